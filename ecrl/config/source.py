"""Reads what a class or a function says of itself from its source, without importing it.

Strategies and objectives import torch and Lightning, which takes seconds; what they change, their formula and
their settings stand in the text.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from importlib.machinery import ModuleSpec
from pathlib import Path

from ecrl.errors import UsageError

_ITEM = re.compile(r"^ {4}(\w+): (.*)$")


@dataclass(frozen=True)
class Definition:
    """A class or a function as its source shows it.

    Attributes:
        name: its own.
        module_doc: docstring of its module.
        doc: its docstring.
        defaults: by argument, the default as it is written; empty for none.
        bases: names of a class's bases and of theirs.
        flags: names that a class or one of these sets to True.
    """

    name: str
    module_doc: str
    doc: str
    defaults: dict[str, str]
    bases: tuple[str, ...] = ()
    flags: frozenset[str] = field(default_factory=frozenset)

    @property
    def summary(self) -> str:
        """First sentence of the docstring, without what is neutral."""
        return self.doc.partition("\n\n")[0].partition(" Neutral:")[0].replace("\n", " ").strip()

    @property
    def formula(self) -> str:
        """Docstring of a class's module, or what a function's says before its arguments."""
        text = self.module_doc if self.bases else self.doc
        return re.split(r"\n(?:Args|Returns|Raises):\n", text)[0].strip()

    @property
    def neutral(self) -> str:
        """The settings that do nothing; empty if none are stated."""
        found = re.search(r"Neutral: (.*?)\.(?=\s|$)", " ".join(self.doc.split()))
        return found[1].replace("``", "") if found else ""

    @property
    def meanings(self) -> dict[str, str]:
        """What each argument means."""
        return described(self.doc, "Args")


def described(doc: str, title: str) -> dict[str, str]:
    """Return what a section of a docstring, such as ``Args``, says of each name."""
    found: dict[str, str] = {}
    name = ""
    _, _, below = inspect.cleandoc(doc).partition(f"\n{title}:\n")
    for line in below.splitlines():
        if item := _ITEM.match(line):
            name, found[item[1]] = item[1], item[2]
        elif line.startswith(" " * 8):
            found[name] += f" {line.strip()}"
        else:
            break
    return found


@cache
def definition(dotted: str, where: str) -> Definition:
    """Read the class or function that a ``_target_`` names.

    Args:
        dotted: its dotted name.
        where: the node that names it, for messages.

    Raises:
        UsageError: there is no such class or function in a Python source.
    """
    module, _, name = dotted.rpartition(".")
    path = _source(module) if module else None
    if path is None:
        raise UsageError(f"{where}._target_={dotted!r}: there is no Python source of {module or dotted!r}.")
    tree = _parsed(path)
    for node in tree.body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)) and node.name == name:
            return _read(node, module, ast.get_docstring(tree) or "")
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    return definition(f"{node.module}.{alias.name}", where)
    raise UsageError(f"{where}._target_={dotted!r}: {module} defines no {name}.")


@cache
def _parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _source(module: str) -> Path | None:
    """Find a module's source; ``importlib.util.find_spec`` would import the packages above it."""
    spec: ModuleSpec | None = None
    locations: Sequence[str] | None = None
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        found = (finder.find_spec(".".join(parts[:end]), locations) for finder in sys.meta_path)
        spec = next(filter(None, found), None)
        if spec is None:
            return None
        locations = spec.submodule_search_locations
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _read(node: ast.ClassDef | ast.FunctionDef, module: str, module_doc: str) -> Definition:
    doc = inspect.cleandoc(ast.get_docstring(node) or "")
    if isinstance(node, ast.FunctionDef):
        return Definition(node.name, module_doc, doc, _defaults(node))
    made = [x for x in node.body if isinstance(x, ast.FunctionDef) and x.name == "__init__"]
    flags = {
        target.id
        for x in node.body
        if isinstance(x, ast.Assign) and isinstance(x.value, ast.Constant) and x.value.value is True
        for target in x.targets
        if isinstance(target, ast.Name)
    }
    bases = [ast.unparse(base) for base in node.bases]
    defaults = _defaults(made[0]) if made else {}
    for above in _definitions(module, bases):
        bases += above.bases
        flags |= above.flags
        defaults = defaults if made else above.defaults | defaults
    return Definition(node.name, module_doc, doc, defaults, tuple(bases), frozenset(flags))


def _definitions(module: str, names: Sequence[str]) -> list[Definition]:
    """Those of the classes that a module names whose source can be read."""
    found = []
    for name in names:
        with suppress(UsageError):
            found.append(definition(f"{module}.{name}", module))
    return found


def _defaults(function: ast.FunctionDef) -> dict[str, str]:
    """Defaults of all arguments but the first, which is ``self`` or what the code passes."""
    arguments = function.args
    placed = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(placed) - len(arguments.defaults))
    pairs = [
        *zip(placed, [*missing, *arguments.defaults], strict=True),
        *zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True),
    ]
    return {argument.arg: "" if default is None else ast.unparse(default) for argument, default in pairs[1:]}
