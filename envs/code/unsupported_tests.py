"""Refuses test code that no program could pass.

Test code runs in a sandbox without packages; `stand_ins` offers parts of pytest, numpy and unittest. Code
that needs more, or that does not use the program at all, is refused when its row is read.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Iterator, Sequence

#: What `stand_ins` offers. All of unittest can be imported, but the rest of it does not work over a pipe.
OFFERED = {
    "pytest": {"approx", "mark", "param", "raises"},
    "numpy": {"allclose", "float32", "float64", "ndarray"},
    "unittest": {"TestCase", "main"},
}
_MODULES = sys.stdlib_module_names | OFFERED.keys() | {"solution"}
#: Marks that change what pytest does; it ignores the others.
_NO_MARKS = {"asyncio", "skip", "skipif", "usefixtures", "xfail"}
_NO_HOOKS = {"setUpModule", "setup_function", "setup_module"}

_Function = ast.FunctionDef | ast.AsyncFunctionDef


def check_code(tree: ast.Module, entry: str | None) -> None:
    """Check that a program could pass some test code.

    Args:
        tree: the code.
        entry: the function that the code's `check` gets, if the row names it.

    Raises:
        ValueError: no program could; says why.
    """
    nodes = list(ast.walk(tree))
    _check_imports(nodes)
    _check_attributes(nodes)
    for test in _tests(tree):
        _check_arguments(test)
    for function in tree.body:
        if isinstance(function, _Function) and function.name in _NO_HOOKS:
            raise ValueError(f"{function.name} is not called in the sandbox")
    run = [*_statements(tree), *_tests(tree), *_functions(tree, "check" if entry else None)]
    if not any(isinstance(node, ast.Call) for root in run for node in ast.walk(root)):
        raise ValueError("no test in the code calls anything: neither test_… nor check(…) of entry_column")
    if not entry and not _uses_program(nodes):
        raise ValueError("the test code uses nothing of the program")


def _check_imports(nodes: Sequence[ast.AST]) -> None:
    # Within a `try` the code may handle a missing module itself.
    tried = {node for outer in nodes if isinstance(outer, ast.Try) for node in ast.walk(outer)}
    for node in nodes:
        if node in tried or not isinstance(node, (ast.Import, ast.ImportFrom)):
            continue
        within = [node.module or "."] if isinstance(node, ast.ImportFrom) else []
        for module in within or [name.name for name in node.names]:
            root = module.partition(".")[0]
            if root not in _MODULES or (root in OFFERED and root != module):
                raise ValueError(f"the test code imports {module}, which the sandbox does not have")
        for name in node.names if within else []:
            _check_offered(within[0], name.name)


def _check_attributes(nodes: Sequence[ast.AST]) -> None:
    imports = (alias for node in nodes if isinstance(node, ast.Import) for alias in node.names)
    names = {alias.asname or alias.name: alias.name for alias in imports}
    for node in nodes:
        match node:
            case ast.Attribute(ast.Name(name), attribute) if name in names:
                _check_offered(names[name], attribute)
            case ast.Attribute(ast.Attribute(attr="mark") | ast.Name("mark"), mark) if mark in _NO_MARKS:
                raise ValueError(f"the test code uses pytest.mark.{mark}, which does not work in the sandbox")


def _check_offered(module: str, name: str) -> None:
    if name not in OFFERED.get(module, {name}):
        offered = ", ".join(sorted(OFFERED[module]))
        raise ValueError(f"the test code uses {module}.{name}; of {module} the sandbox has {offered}")


def _check_arguments(test: _Function) -> None:
    """Refuse a test that needs fixtures or an event loop."""
    if isinstance(test, ast.AsyncFunctionDef):
        raise ValueError(f"{test.name} is asynchronous")
    known = {"self", "cls"}
    for decorator in test.decorator_list:
        match decorator:
            case ast.Call(ast.Attribute(attr="parametrize"), [ast.Constant(str(names)), *_]):
                known |= {name.strip() for name in names.split(",")}
            case ast.Call(ast.Attribute(attr="parametrize"), [ast.List(names) | ast.Tuple(names), *_]):
                known |= {ast.literal_eval(name) for name in names if isinstance(name, ast.Constant)}
            case ast.Call(ast.Attribute(attr="parametrize")):
                return  # its names are known only at run time
    arguments = [argument.arg for argument in [*test.args.posonlyargs, *test.args.args]]
    required = arguments[: len(arguments) - len(test.args.defaults)]
    if wanted := [name for name in required if name not in known]:
        raise ValueError(f"{test.name} needs the fixture {wanted[0]!r}, and the sandbox has no fixtures")


def _tests(tree: ast.Module) -> Iterator[_Function]:
    """Yield the functions and methods that `judge` runs as tests."""
    yield from _functions(tree, None, "test")
    for node in tree.body:
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            if node.name.startswith("Test") or "TestCase" in bases:
                yield from _functions(node, None, "test")


def _functions(
    where: ast.Module | ast.ClassDef, name: str | None, prefix: str | None = None
) -> Iterator[_Function]:
    for node in where.body:
        if isinstance(node, _Function) and (node.name == name or (prefix and node.name.startswith(prefix))):
            yield node


def _statements(tree: ast.Module) -> Iterator[ast.stmt]:
    """Yield the statements that run on import, except definitions and ``if __name__ == "__main__"``."""
    for node in tree.body:
        main = isinstance(node, ast.If) and "__name__" in ast.unparse(node.test)
        if not main and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node


def _uses_program(nodes: Sequence[ast.AST]) -> bool:
    """Tell whether the code uses a name that only the program can define."""
    used, bound = set(), set(dir(builtins))
    for node in nodes:
        match node:
            case ast.ImportFrom("solution") | ast.alias("solution"):
                return True
            case ast.Name(name, ast.Load()):
                used.add(name)
            case ast.Name(name) | ast.arg(name) | ast.FunctionDef(name) | ast.ClassDef(name):
                bound.add(name)
            case ast.alias(name, other):
                bound.add(other or name.partition(".")[0])
            case ast.ExceptHandler(_, str(name)):
                bound.add(name)
    return not used <= bound
