"""Reads the unit tests of a row, in the forms that public data sets use."""

from __future__ import annotations

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from ecrl.envs.code.program_server import encode
from ecrl.envs.code.unit_tests import Call, CallTests, CodeTests, StdinTests, Tests
from ecrl.envs.code.unsupported_tests import check_code


def read_tests(cell: Any, entry: str | None) -> Tests:
    """Read a cell with tests, in any of these forms.

    - ``{"inputs": […], "outputs": […]}``: strings for stdin and stdout. With ``"fn_name"``, or with ``entry``
      and inputs that are lists, these are arguments and results of a function.
    - ``[{"input": …, "output": …, "testtype": "stdin" | "functional"}, …]``: LiveCodeBench's form.
    - ``["assert …", …]`` or a string: test code.
    - Each of these as a JSON string, or packed as LiveCodeBench does.

    Args:
        cell: the cell of one column, or a list of the cells of several.
        entry: the function under test, if the row names it.

    Raises:
        ValueError: the cell has none of these forms, or holds no test; says what was found.
    """
    value = _unpack(cell)
    if isinstance(value, Mapping):
        return _from_lists(value, entry)
    if isinstance(value, str) and value.strip():
        return _from_code(value, entry)
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        items = [
            item for part in map(_unpack, value) for item in (part if isinstance(part, list) else [part])
        ]
        if items and all(isinstance(item, str) for item in items):
            return _from_code("\n".join(items), entry)
        if items and all(isinstance(item, Mapping) for item in items):
            return _from_cases(items, entry)
    raise ValueError(f"tests must be lists of inputs and outputs, cases or asserts; found {_shown(cell)}")


def read_entry(cell: Any) -> str | None:
    """Read the name of a function: a string, or LiveCodeBench's mapping (or its JSON) with ``func_name``.

    Returns:
        The name; None if the cell is None or a mapping without a name.

    Raises:
        ValueError: the cell is anything else.
    """
    value = _unpack(cell)
    if isinstance(value, Mapping):
        value = value.get("func_name")
    if value is None or (isinstance(value, str) and value.isidentifier()):
        return value
    raise ValueError(f"the name of a function was wanted; found {_shown(cell)}")


def _from_lists(value: Mapping[str, Any], entry: str | None) -> Tests:
    inputs, outputs = value.get("inputs"), value.get("outputs")
    if not isinstance(inputs, list) or not isinstance(outputs, list):
        raise ValueError(f"tests need the lists `inputs` and `outputs`; found {_shown(dict(value))}")
    if not inputs or len(inputs) != len(outputs):
        raise ValueError(
            f"tests need as many inputs as outputs, and one at least; found {len(inputs)} and {len(outputs)}"
        )
    name = value.get("fn_name") or (entry if isinstance(inputs[0], list) else None)
    if name is not None and not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"`fn_name` must be the name of a function; found {_shown(name)}")
    if name is None:
        return StdinTests(tuple(map(_text, inputs)), tuple(map(_text, outputs)))
    if not all(isinstance(args, list) for args in inputs):
        raise ValueError(f"inputs of the function {name!r} must be lists of arguments")
    # Data sets in the form of APPS write each result as a list with one item.
    if value.get("fn_name") and all(isinstance(x, list) and len(x) == 1 for x in outputs):
        outputs = [x[0] for x in outputs]
    return _calls(name, inputs, outputs)


def _from_cases(cases: Sequence[Mapping[str, Any]], entry: str | None) -> Tests:
    try:
        if all(case.get("testtype", "stdin") == "stdin" for case in cases):
            return StdinTests(
                tuple(_text(case["input"]) for case in cases), tuple(_text(case["output"]) for case in cases)
            )
        if entry is None:
            raise ValueError("functional cases need the function's name: set entry_column")
        inputs = [_lines(case["input"], f"`input` of case {i}") for i, case in enumerate(cases)]
        outputs = [_lines(case["output"], f"`output` of case {i}") for i, case in enumerate(cases)]
        if several := [i for i, values in enumerate(outputs) if len(values) != 1]:
            raise ValueError(f"`output` of case {several[0]} must be one value")
        return _calls(entry, inputs, [values[0] for values in outputs])
    except KeyError as error:
        raise ValueError(f"every case needs `input` and `output`; {error} is missing") from None


def _lines(value: Any, what: str) -> list[Any]:
    """Read one JSON value from each line."""
    try:
        return [json.loads(line) for line in _text(value).split("\n") if line]
    except ValueError as error:
        raise ValueError(
            f"{what} must be JSON, one value on each line; found {_shown(value)} ({error})"
        ) from None


def _from_code(source: str, entry: str | None) -> Tests:
    try:
        tree = ast.parse(source)
        calls = split_asserts(tree)
        if calls is None:
            compile(tree, "tests", "exec", dont_inherit=True)
            check_code(tree, entry)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"the test code is not valid Python: {error}") from None
    return calls or CodeTests(source, entry)


def split_asserts(tree: ast.Module) -> CallTests | None:
    """Read test code in which every line is ``assert f(<literals>) == <literal>``.

    The call may stand on either side; ``assert f(…)`` and ``assert not f(…)`` are read as well.

    Returns:
        The calls; None for any other code, which has to be run.
    """
    try:
        calls = tuple(map(_split, tree.body))
    except (ValueError, TypeError, RecursionError, MemoryError):
        return None
    return CallTests(calls, loose=False) if calls else None


def _split(statement: ast.stmt) -> Call:
    """Read one assert.

    Raises:
        ValueError: it has another form.
    """
    match statement:
        case ast.Assert(ast.Compare(left, [ast.Eq()], [right])):
            if isinstance(left, ast.Call) and not _is_empty_set(left):
                return _call(left, encode(ast.literal_eval(right)))
            if isinstance(right, ast.Call):
                return _call(right, encode(ast.literal_eval(left)))
        case ast.Assert(ast.UnaryOp(ast.Not(), ast.Call() as call)):
            return _call(call, None, truth=False)
        case ast.Assert(ast.Call() as call):
            return _call(call, None, truth=True)
    raise ValueError("not a call compared with a literal")


def _is_empty_set(node: ast.expr) -> bool:
    """Tell whether a node is ``set()``: `literal_eval` takes it for a literal, the parser for a call."""
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id == "set"
        and not node.args
    )


def _call(node: ast.Call, wanted: Any, truth: bool | None = None) -> Call:
    if not isinstance(node.func, ast.Name):
        raise ValueError("not a plain function")
    args = [ast.literal_eval(arg) for arg in node.args]
    kwargs = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
    if None in kwargs:
        raise ValueError("not plain arguments")
    return Call(node.func.id, encode(args), encode(kwargs), wanted, truth)


def _calls(name: str, inputs: Sequence[Sequence[Any]], outputs: Sequence[Any]) -> CallTests:
    calls = (Call(name, encode(list(a)), encode({}), encode(b)) for a, b in zip(inputs, outputs, strict=True))
    return CallTests(tuple(calls), loose=True)


def _text(value: Any) -> str:
    """Return an input or output as a string; APPS also writes it as a list of lines."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"inputs and outputs of programs must be texts; found {_shown(value)}")
    return value


class _DataOnly(pickle.Unpickler):
    """An unpickler for plain data only: it imports nothing, so it executes nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is not plain data")


def _unpack(cell: Any) -> Any:
    """Decode a JSON string, or LiveCodeBench's form: base64 of zlib of a pickled JSON string."""
    if not isinstance(cell, str):
        return cell
    try:
        value = json.loads(cell)
        return value if isinstance(value, (dict, list)) else cell
    except (ValueError, RecursionError):
        pass
    try:
        packed = zlib.decompress(base64.b64decode(cell, validate=True))
        return _unpack(_DataOnly(io.BytesIO(packed)).load())
    except Exception:  # other strings can look like the packed form, and unpickling them raises anything
        return cell


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
