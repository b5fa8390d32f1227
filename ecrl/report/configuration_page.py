"""The page of all keys of a run's configuration, for docs/configuration.md.

python -m ecrl.report.configuration_page > docs/configuration.md
"""

from __future__ import annotations

import re
from ast import literal_eval
from collections.abc import Iterator
from dataclasses import Field, fields, is_dataclass
from functools import cache
from importlib import resources
from itertools import chain
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf

from ecrl.config.groups import GROUPS, LISTED, OPEN_NODES, options
from ecrl.config.limits import LIMIT, NotEmpty, Range
from ecrl.config.schema import Config
from ecrl.config.source import Definition, definition, described

_HEAD = """\
# Configuration

Written by `python -m ecrl.report.configuration_page > docs/configuration.md` from `ecrl/config/schema.py`.

A run takes `KEY=VALUE` words: `ecrl train seed=1 update.lr=1e-5 strategy=[clip_cov,clip_higher]`. `--cfg`
prints the whole configuration and stops. A wrong key or value is answered in one line, before anything is
loaded.
`--config-dir DIR` adds files of your own: `DIR/env/mine.yaml` is `env=mine`. `null` stands for *not given*.

The settings of the other commands stand in their help, e.g. `ecrl report --help`.
"""
_NAMED = """\
## Names

A key with a group takes a name, which sets all keys below it; keys beside it still win:
`engine=vllm engine.dtype=bfloat16`. `strategy` and `monitor` take lists. All strategies and objectives, with
their settings: [strategies](strategies.md).
"""
_TYPES: dict[Any, str] = {
    int: "whole number",
    float: "number",
    str: "text",
    bool: "true, false",
    list: "a list of names",
    dict: "names and values",
    Any: "a name",
}
_FOLDER = Path(str(resources.files("ecrl.configs")))
_GIVEN_BY_THE_RUN = ("model", "process_group", "run_dir", "done")
_BUILT = ("engine", "monitor", "logger")


def as_markdown() -> str:
    """Return the page."""
    lines = [_HEAD, "## The run\n", *_table(Config, ""), *_sections(Config, "")]
    return "\n".join([*lines, _NAMED, *_names(), *chain.from_iterable(map(_constructors, _BUILT))])


def _sections(node: type, prefix: str) -> Iterator[str]:
    """A section for each dataclass below another."""
    for of, kind in _fields(node):
        inner = _dataclass_in(kind)
        if inner is not None:
            key = f"{prefix}{of.name}" + (".NAME" if get_origin(kind) is dict else "")
            yield f"##{'#' * key.count('.')} {key}\n"
            yield f"{_plain((inner.__doc__ or '').partition('Attributes:')[0].strip())}\n"
            yield from _table(inner, f"{key}.")
            yield from _sections(inner, f"{key}.")


def _table(node: type, prefix: str) -> Iterator[str]:
    """The keys of a dataclass that hold a value."""
    meanings = described(node.__doc__ or "", "Attributes")
    yield from ("| key | takes | default | meaning |", "|---|---|---|---|")
    for of, kind in _fields(node):
        if not is_dataclass(kind):
            key, meaning = f"{prefix}{of.name}", _cell(meanings[of.name])
            yield f"| `{key}` | {_cell(_takes(of, kind))} | {_default(key, of)} | {meaning} |"
    yield ""


def _fields(node: Any) -> list[tuple[Field[Any], Any]]:
    """The fields of a dataclass with their types."""
    types = get_type_hints(node)
    return [(of, types[of.name]) for of in fields(node)]


def _dataclass_in(kind: Any) -> Any:
    """The dataclass that a type is, or holds; None if there is none."""
    found = [kind, *get_args(kind), *(inner for part in get_args(kind) for inner in get_args(part))]
    return next(filter(is_dataclass, found), None)


def _takes(of: Field[Any], kind: Any) -> str:
    limit = of.metadata.get(LIMIT)
    if limit is not None and not isinstance(limit, (Range, NotEmpty)):
        return str(limit.takes)
    if of.name in LISTED:
        return "a list of names"
    parts = (
        [part for part in get_args(kind) if part is not NoneType] if isinstance(kind, UnionType) else [kind]
    )
    words = [_TYPES[get_origin(part) or part] for part in parts]
    return ", ".join([" or ".join(words), *([limit.takes] if limit else [])])


def _default(key: str, of: Field[Any]) -> str:
    """The value of a key that nobody sets, and that of another model's run where it differs."""
    shown = _written(_chosen().get(key, of.default))
    other = OmegaConf.select(_of_other_models(), key)
    return shown if other is None or key in OPEN_NODES else f"{shown}; {_written(other)} with `model.path`"


@cache
def _chosen() -> dict[str, Any]:
    """The names that configs/config.yaml chooses, by key."""
    listed: Any = OmegaConf.to_container(OmegaConf.load(_FOLDER / "config.yaml"))
    chosen = [entry for entry in listed["defaults"] if isinstance(entry, dict)]
    return {group.replace("/", "."): name for entry in chosen for group, name in entry.items()}


@cache
def _of_other_models() -> Any:
    return OmegaConf.load(_FOLDER / "model_defaults" / "hf.yaml")


def _written(value: Any) -> str:
    """Write a default as the command line takes it; a dash for none."""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, list):
        return f"`[{','.join(value)}]`"
    return f"`{value}`" if isinstance(value, (int, float)) or (isinstance(value, str) and value) else "–"


def _names() -> list[str]:
    rows = [f"| `{group}` | {' '.join(f'`{name}`' for name in options(group))} |" for group in GROUPS]
    return ["| group | names |", "|---|---|", *rows, ""]


def _constructors(group: str) -> Iterator[str]:
    """A section for each class of a group: what its constructor takes."""
    targets: dict[str, str] = {}
    for name in options(group):
        node: Any = OmegaConf.to_container(OmegaConf.load(_FOLDER / group / f"{name}.yaml"))
        for own in (node, *filter(lambda part: isinstance(part, dict), node.values())):
            if "_target_" in own:
                targets.setdefault(own["_target_"], name)
    for target, name in targets.items():
        what = definition(target, group)
        prefix = "engine" if group == "engine" else f"{group}.{name}"
        yield f"### {group}={name if group == 'engine' else f'[{name}]'}\n"
        yield f"{_plain(what.summary)} `{target}`\n"
        yield from _arguments(what, prefix)


def _arguments(what: Definition, prefix: str) -> list[str]:
    """The arguments that a user gives."""
    rows = [
        f"| `{prefix}.{name}` | {_written(literal_eval(default or 'None'))} | {_cell(what.meanings[name])} |"
        for name, default in what.defaults.items()
        if name not in _GIVEN_BY_THE_RUN
    ]
    return ["| key | default | meaning |", "|---|---|---|", *rows, ""] if rows else []


def _plain(text: str) -> str:
    return " ".join(text.replace("``", "`").split())


def _cell(text: str) -> str:
    return re.sub(r"\bNone\b", "`null`", _plain(text)).replace("|", "\\|")


if __name__ == "__main__":
    print(as_markdown(), end="")
