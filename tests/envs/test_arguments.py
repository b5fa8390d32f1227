"""Arguments of a wrong type are one line that names them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import pytest

import ecrl.envs  # noqa: F401  (registers the environments)
from ecrl.envs.arguments import check_types
from ecrl.errors import UsageError
from ecrl.training.datamodule import make_env


def example(
    text: str = "",
    number: float = 0.0,
    integer: int | None = None,
    names: str | Sequence[str] = (),
    where: Mapping[str, Any] | None = None,
    mode: Literal["a", "b"] = "a",
    anything: Any = None,
) -> None:
    """Some arguments."""


@pytest.mark.parametrize(
    "values",
    [
        {"text": "x", "number": 3, "integer": None, "names": ["a"], "where": {"a": 1}, "mode": "b"},
        {"number": 0.5, "integer": 2, "names": "a", "where": None, "anything": object(), "self": 3},
    ],
)
def test_what_fits(values: dict[str, Any]) -> None:
    check_types(example, values)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("text", None, "text must be a text; got null"),
        ("number", "abc", "number must be a number; got 'abc'"),
        ("number", True, "number must be a number; got True"),
        ("integer", 1.5, "integer must be an integer or null; got 1.5"),
        ("names", [1], "names must be a text or a list, each item a text; got [1]"),
        ("where", [1], "where must be a mapping by names or null; got [1]"),
        ("mode", "c", "mode must be one of a, b; got 'c'"),
    ],
)
def test_what_does_not(name: str, value: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_types(example, {name: value})
    assert str(caught.value) == f"{message}."


MATH: dict[str, Any] = {
    "answer_column": None, "template": 5, "where": {"problem": [1]}, "path": 5, "val_path": 5,
    "time_limit": [0, -1, None, 1e30, "x"], "tolerance": [-1, None, "abc", float("nan"), 1],
    "bad_rows": "drop",
}  # fmt: skip
CODE: dict[str, Any] = {
    "tests_column": [[], 5, [5]], "preamble": 5, "instruction": None, "sandbox_url": 5, "python": 5,
    "reward": "half", "time_limit": [0, None], "memory_limit": [1, 100.0],
}  # fmt: skip
TOOL: dict[str, Any] = {"env": 5, "env_kwargs": [1], "turns": None, "sandbox": None}
CASES = [
    (env, name, value)
    for env, arguments in (("Math", MATH), ("Code", CODE), ("PythonTool", TOOL))
    for name, values in arguments.items()
    for value in (values if isinstance(values, list) and values and name != "env_kwargs" else [values])
]


@pytest.mark.parametrize(("env", "name", "value"), CASES)
def test_a_wrong_type_is_one_line_that_names_it(env: str, name: str, value: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"problem": "x", "answer": "1", "tests": ["assert f(1) == 1"]}) + "\n")
    given = {name: value} if env == "PythonTool" else {"path": str(path), name: value}
    with pytest.raises(UsageError) as caught:
        make_env(f"ecrl/{env}-v0", "train", given)
    message = str(caught.value)
    assert message.startswith(name) and "got " in message and "\n" not in message


def test_an_unknown_inner_environment_is_named() -> None:
    with pytest.raises(UsageError, match="Unknown env 'nope'"):
        gym.make("ecrl/PythonTool-v0", env="nope")
