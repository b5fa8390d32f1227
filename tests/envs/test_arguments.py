"""Arguments of a wrong type are one line that names them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import gymnasium as gym
import pytest

import ecrl.envs  # noqa: F401  (registers the environments)
from ecrl.cli import main
from ecrl.envs.arguments import check_types, keyword_arguments
from ecrl.envs.code.env import CodeEnv
from ecrl.envs.datasets.math_problems import MathEnv
from ecrl.envs.reasoning_gym.env import ReasoningGymEnv
from ecrl.envs.safe_calls import make as make_env
from ecrl.errors import UsageError


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


def test_arguments_that_are_handed_to_the_base_are_listed_after_an_environments_own() -> None:
    rows = ["path", "val_path", "where", "subset", "part", "val_part", "bad_rows"]
    rows += ["pass_rate", "pass_rates", "split"]
    names = list(keyword_arguments(MathEnv))
    assert names[:2] == ["problem_column", "answer_column"] and names[-10:] == rows
    assert list(keyword_arguments(CodeEnv))[-10:] == rows
    assert keyword_arguments(MathEnv)["bad_rows"].default == "refuse"
    assert list(keyword_arguments(ReasoningGymEnv)) == ["task", "level", "exact", "split"]


@pytest.mark.parametrize(
    ("env", "wrong", "nearest"),
    [("Math", "pth", "path"), ("Math", "tolernace", "tolerance"), ("Countdown", "nmbers", "numbers")],
)
def test_an_unknown_argument_names_the_nearest_one(env: str, wrong: str, nearest: str) -> None:
    with pytest.raises(UsageError) as caught:
        make_env(f"ecrl/{env}-v0", "train", {wrong: 3})
    message = str(caught.value)
    assert message.startswith(
        f"env 'ecrl/{env}-v0' could not be made: Unknown argument {wrong!r}. Did you mean {nearest!r}?"
    )
    assert "\n" not in message


def test_show_lists_the_arguments_about_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"problem": f"{i}", "answer": f"{i}"}) + "\n" for i in range(99)))
    assert main(["envs", "show", "math", f"path={path}"]) == 0
    output = capsys.readouterr().out
    assert all(name in output for name in ("problem_column", "val_path", "bad_rows", "'refuse'", "split"))


def test_an_unknown_inner_environment_is_named() -> None:
    with pytest.raises(UsageError, match="Unknown env 'nope'"):
        gym.make("ecrl/PythonTool-v0", env="nope")
