"""Rows of the shipped environments that are no problems: each is named when the environment is made."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ecrl.envs.adapters.trl import RewardFunctionEnv
from ecrl.envs.code.env import CodeEnv
from ecrl.envs.datasets.math_problems import MathEnv
from ecrl.envs.datasets.rows import load_rows
from ecrl.envs.datasets.rows_env import RowsEnv
from ecrl.errors import UsageError
from tests.support.row_files import jsonl


def test_shipped_environments_know_their_like(tmp_path: Path) -> None:
    rows = [{"problem": f"{i}", "answer": "1", "tests": [f"assert f({i}) == 1"]} for i in range(20)]
    path = str(jsonl(tmp_path / "f.jsonl", rows))
    for _ in range(2):
        envs: list[RowsEnv] = [
            MathEnv(path=path),
            RewardFunctionEnv(path=path, functions="tests.support.rewards:equals", prompt_column="problem"),
        ]
        envs += [CodeEnv(path=path)] if shutil.which("bwrap") else []
    assert len(load_rows(path).problems) == len(envs)
    MathEnv(path=path, template="Solve {problem}")
    assert len(load_rows(path).problems) == len(envs) + 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"problem": "x", "answer": "  "}, "column 'answer' is empty: \"  \""),
        ({"problem": "x", "answer": "so \\boxed{}"}, "column 'answer': no answer can be found in"),
        ({"problem": "x", "answer": [[]]}, r"column 'answer': an answer must be .* found \[\[\]\]"),
        ({"problem": "x", "answer": {"a": 1}}, "column 'answer': an answer must be .* found {'a': 1}"),
        ({"problem": "x", "answer": True}, "column 'answer': an answer must be .* found True"),
        ({"problem": 5, "answer": "1"}, "column 'problem': a text or chat messages were wanted; found 5"),
        ({"problem": [{"content": None}], "answer": "1"}, "column 'problem': a text or chat messages"),
    ],
)
def test_rows_that_are_no_problems(row: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "f.jsonl", [{"problem": "x", "answer": "1"}, row])
    with pytest.raises(UsageError, match=f"f.jsonl:2: {message}"):
        MathEnv(path=str(path))


@pytest.mark.parametrize(
    ("row", "columns", "message"),
    [
        ({"tests": [1]}, {}, "column 'tests': tests must be lists"),
        ({"problem": 5}, {}, "column 'problem': a text was wanted; found 5"),
        ({"name": 5}, {"entry_column": "name"}, "column 'name': the name of a function was wanted"),
        ({}, {"entry_column": "name"}, "no column 'name'; found problem, tests"),
        ({}, {"starter_column": "starter"}, "no column 'starter'"),
        ({"code": 5}, {"solution_column": "code"}, "column 'code': a text was wanted; found 5"),
    ],
)
def test_rows_that_are_no_programming_problems(
    row: dict[str, Any], columns: dict[str, str], message: str, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "f.jsonl", [{"problem": "x", "tests": ["assert f(1) == 1"], **row}])
    with pytest.raises(UsageError, match=f"f.jsonl:1: {message}"):
        CodeEnv(path=str(path), **columns)


def test_nesting_too_deep_for_a_test_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "f.jsonl"
    nested = "[" * 900 + "]" * 900
    file.write_text(
        f'{{"problem": "x", "tests": {{"fn_name": "f", "inputs": [[{nested}]], "outputs": [1]}}}}\n'
    )
    with pytest.raises(UsageError, match=r"f\.jsonl:1: column 'tests': nested too deep"):
        CodeEnv(path=str(file))


BAD = {
    "no tests": ({"problem": "x"}, "no column 'tests'; found problem"),
    "empty": ({"problem": "x", "tests": {}}, "column 'tests' is empty: {}"),
    "lengths": ({"problem": "x", "tests": {"inputs": ["1"], "outputs": []}}, "tests"),
    "kind": ({"problem": "x", "tests": {"foo": 1}}, "tests"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_name_file_row_and_column(name: str, tmp_path: Path) -> None:
    row, part = BAD[name]
    path = str(jsonl(tmp_path / "bad.jsonl", [row]))
    with pytest.raises(UsageError) as caught:
        CodeEnv(path=path)
    assert path in str(caught.value) and "bad.jsonl:1: " in str(caught.value) and part in str(caught.value)
