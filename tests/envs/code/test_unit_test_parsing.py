"""The forms that tests of programs come in, and cells that are none."""

from __future__ import annotations

import ast
import base64
import json
import pickle
import zlib
from contextlib import suppress
from typing import Any

import pytest

from ecrl.envs.code.program_server import encode
from ecrl.envs.code.unit_test_parsing import read_entry, read_tests, split_asserts
from ecrl.envs.code.unit_tests import CallTests, CodeTests, StdinTests


def test_forms() -> None:
    texts = {"inputs": ["1\n", "2\n"], "outputs": ["1", "4"]}
    assert read_tests(texts, None) == StdinTests(("1\n", "2\n"), ("1", "4"))
    assert read_tests(json.dumps(texts), None) == read_tests(texts, None)
    assert read_tests({"inputs": [["1", "2"]], "outputs": [["3"]]}, None) == StdinTests(("1\n2",), ("3",))
    named = read_tests({"fn_name": "f", "inputs": [[1], [2]], "outputs": [[1], [4]]}, None)
    assert isinstance(named, CallTests) and [c.wanted for c in named.calls] == [encode(1), encode(4)]
    bare = read_tests({"inputs": [[1]], "outputs": [[1]]}, "f")
    assert isinstance(bare, CallTests) and bare.calls[0].wanted == encode([1])


def test_livecodebench_cases() -> None:
    public = json.dumps([{"input": "1\n", "output": "2", "testtype": "stdin"}])
    private = [{"input": "3\n", "output": "4", "testtype": "stdin"}]
    packed = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(private)))).decode()
    assert read_tests([public, packed], None) == StdinTests(("1\n", "3\n"), ("2", "4"))
    functional = json.dumps([{"input": '[1, 2]\n"x"', "output": "[3]", "testtype": "functional"}])
    tests = read_tests([functional, "[]"], read_entry('{"func_name": "f"}'))
    assert isinstance(tests, CallTests)
    assert [(c.name, c.args, c.wanted) for c in tests.calls] == [("f", encode([[1, 2], "x"]), encode([3]))]


def test_a_packed_cell_runs_nothing(tmp_path: Any) -> None:
    class Evil:
        def __reduce__(self) -> Any:
            return (open, (str(tmp_path / "mark"), "w"))

    packed = base64.b64encode(zlib.compress(pickle.dumps(Evil()))).decode()
    with suppress(ValueError):  # unless its letters happen to be an expression of Python
        read_tests([packed, packed], None)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    "source",
    [
        "assert f(1) == 2",
        "assert 2 == f(1)",
        "assert f([1, {'a': (2,)}], key=-3.5) == {1, 2}\nassert f() == set()",
        "assert f(1), 'message'",
        "assert not f('x')",
    ],
)
def test_asserts_that_split(source: str) -> None:
    assert isinstance(read_tests(source, None), CallTests)


@pytest.mark.parametrize(
    "source",
    [
        "assert f(1) == g(2)",
        "assert f(g(1)) == 2",
        "assert sorted(f(1)) == [2]",
        "assert f(1) in (2, 3)",
        "assert f(1) < 2",
        "assert f(*[1]) == 2",
        "assert f(**{'a': 1}) == 2",
        "assert f(x) == 2",
        "assert f(1) == 2 == 2",
        "assert isinstance(f(1), int)",
        "assert abs(f(1) - 2) < 1e-6",
        "assert f.g(1) == 2",
        "x = 1\nassert f(x) == 2",
        "def test(): assert f(1) == 2",
        "assert f(lambda: 1) == 2",
    ],
)
def test_asserts_that_have_to_be_run(source: str) -> None:
    assert split_asserts(ast.parse(source)) is None
    assert isinstance(read_tests(source, None), CodeTests)


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        (None, "found None"),
        ("", "found ''"),
        ([], "found"),
        (3, "found 3"),
        ([1, 2], "found"),
        ({"inputs": ["1"]}, "`outputs`"),
        ({"inputs": [], "outputs": []}, "found 0 and 0"),
        ({"inputs": ["1"], "outputs": ["1", "2"]}, "found 1 and 2"),
        ({"inputs": [1], "outputs": ["1"]}, "found 1"),
        ({"fn_name": "f", "inputs": ["1"], "outputs": ["1"]}, "lists of arguments"),
        ("def f(:", "not valid Python"),
        ("assert f(1) ==", "not valid Python"),
        ([{"input": "1"}], "'output' is missing"),
        ([{"input": "1", "output": "1", "testtype": "functional"}], "entry_column"),
        (
            {"fn_name": 5, "inputs": [[1]], "outputs": [[1]]},
            "`fn_name` must be the name of a function; found 5",
        ),
        ("x = 1", "calls anything"),
        ("assert True", "calls anything"),
        ("def helper():\n    assert f(1) == 2", "calls anything"),
        ("def check(candidate):\n    assert candidate(1) == 2", "calls anything.*entry_column"),
        ("if __name__ == '__main__':\n    f(1)", "calls anything"),
        ("assert len([1]) < 2", "uses nothing of the program"),
        ("import pandas\nassert f(1) == pandas.NA", "imports pandas"),
        ("import numpy.testing\nf(1)", "imports numpy.testing"),
        ("from . import f\nf(1)", "imports ."),
        (
            "import numpy as np\nassert f(np.array([1])) == 2",
            "uses numpy.array; of numpy the sandbox has allclose",
        ),
        ("from unittest.mock import patch\nf(1)", "imports unittest.mock"),
        ("from pytest import fixture\nf(1)", "uses pytest.fixture; of pytest the sandbox has approx, mark"),
        ("import pytest\n@pytest.fixture\ndef x(): return 1\ndef test(x): f(x)", "uses pytest.fixture"),
        ("def test(capsys):\n    f(1)", "test needs the fixture 'capsys'"),
        ("class TestF:\n    def test(self, tmp_path):\n        f(1)", "needs the fixture 'tmp_path'"),
        ("import pytest\n@pytest.mark.skip\ndef test(): f(1)", "pytest.mark.skip"),
        ("async def test(): f(1)", "asynchronous"),
        ("def setup_module(): pass\ndef test(): f(1)", "setup_module is not called"),
        ("assert f(" + "(" * 300 + ")" * 300 + ")", "not valid Python"),
    ],
)
def test_bad_cells(cell: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        read_tests(cell, None)


@pytest.mark.parametrize(
    ("case", "says"),
    [
        ({"input": "x", "output": "1"}, "`input` of case 1 must be JSON, one value on each line; found 'x'"),
        ({"input": "1", "output": "x"}, "`output` of case 1 must be JSON"),
        ({"input": 1, "output": "1"}, "`input` of case 1 .* found 1"),
        ({"input": "1", "output": None}, "`output` of case 1 .* found None"),
        ({"input": "1", "output": "1\n2"}, "`output` of case 1 must be one value"),
        ({"input": "1", "output": "9" * 5000}, "`output` of case 1 .*4300"),
    ],
)
def test_bad_cases_say_which(case: dict[str, Any], says: str) -> None:
    cases = [{"input": "1", "output": "1", "testtype": "functional"}, {**case, "testtype": "functional"}]
    with pytest.raises(ValueError, match=says):
        read_tests(cases, "f")


@pytest.mark.parametrize("cell", [5, "a b", [1]])
def test_what_is_no_entry(cell: Any) -> None:
    with pytest.raises(ValueError, match="the name of a function was wanted; found"):
        read_entry(cell)


@pytest.mark.parametrize(
    ("cell", "entry"),
    [
        ("f", "f"),
        ('{"func_name": "f"}', "f"),
        ("{}", None),
        (None, None),
    ],
)
def test_entries(cell: Any, entry: str | None) -> None:
    assert read_entry(cell) == entry
