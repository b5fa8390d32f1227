"""Reads the tests of a row, in the forms in which public data sets write them."""

from __future__ import annotations

import ast
import base64
import io
import json
import pickle
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from ecrl.envs.code.unit_test_forms import check_code
from ecrl.envs.code.unit_tests import Call, CallTests, CodeTests, StdinTests, Tests, split_asserts
from ecrl.envs.sandbox.remote import encode


def read_tests(cell: Any, entry: str | None) -> Tests:
    """Tell the form of a tests cell and read it.

    - ``{"inputs": […], "outputs": […]}``: texts for stdin and stdout; with ``"fn_name"``, or with ``entry``
      and inputs that are lists, arguments and results of a function.
    - ``[{"input": …, "output": …, "testtype": "stdin" | "functional"}, …]``: LiveCodeBench's.
    - ``["assert …", …]`` or a text: test code.
    - Any of these as JSON text; LiveCodeBench's packed form.

    Args:
        cell: of one column, or of several joined in a list of lists.
        entry: the function under test, where the row names it.

    Raises:
        ValueError: it is none of these, or it holds no test; the text says what was found.
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
    """Read a function's name: as it is, or as LiveCodeBench's ``func_name`` in (JSON of) a mapping.

    Raises:
        ValueError: it is no name; None and a mapping without it are fine.
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
    # The APPS family writes each result as a list of one.
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
    """Read a JSON value a line."""
    try:
        return [json.loads(line) for line in _text(value).split("\n") if line]
    except ValueError as error:
        raise ValueError(f"{what} must be JSON, a value a line; found {_shown(value)} ({error})") from None


def _from_code(source: str, entry: str | None) -> Tests:
    try:
        tree = ast.parse(source)
        calls = split_asserts(tree)
        if calls is None:
            compile(tree, "tests", "exec", dont_inherit=True)
            check_code(tree, entry)
    except (SyntaxError, RecursionError, MemoryError) as error:
        raise ValueError(f"the test code is no Python: {error}") from None
    return calls or CodeTests(source, entry)


def _calls(name: str, inputs: Sequence[Sequence[Any]], outputs: Sequence[Any]) -> CallTests:
    calls = (Call(name, encode(list(a)), encode({}), encode(b)) for a, b in zip(inputs, outputs, strict=True))
    return CallTests(tuple(calls), loose=True)


def _text(value: Any) -> str:
    """APPS has texts as lists of lines, too."""
    if isinstance(value, list) and all(isinstance(line, str) for line in value):
        return "\n".join(value)
    if not isinstance(value, str):
        raise ValueError(f"inputs and outputs of programs must be texts; found {_shown(value)}")
    return value


class _DataOnly(pickle.Unpickler):
    """An unpickler for plain data: it imports nothing, so it runs nothing."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain data")


def _unpack(cell: Any) -> Any:
    """Read JSON text, and LiveCodeBench's base64 of zlib of a pickled JSON text."""
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
    except Exception:  # what is not packed can look so, and unpickling it raises anything
        return cell


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
