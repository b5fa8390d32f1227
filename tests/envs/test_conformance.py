"""The conformance suite: all that ships passes it, and it notices what is wrong."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import ecrl.envs  # noqa: F401  (registers the environments)
from ecrl.cli import main
from ecrl.config.compose import build_config
from ecrl.config.groups import options as group_options
from ecrl.envs.base import Problem, ReasoningEnv, Score
from ecrl.envs.conformance import check
from ecrl.envs.safe_calls import make as make_env
from tests.support.marks import slow_unless


class Sound(ReasoningEnv):
    """Repeat the number."""

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        number = str(rng.integers(10**6))
        return Problem(f"repeat {number}", number)

    def score(self, problem: Problem, response: str) -> Score:
        return Score(float(response == problem.answer))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        return str(problem.answer) if correct else "no"


class Forgetful(Sound):
    """Draws from the clock."""

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        return super().sample_problem(np.random.default_rng(time.perf_counter_ns()))


class Leaky(Sound):
    """Has the same problems in both splits."""

    def _draw(self) -> Problem:
        return self.sample_problem(self.np_random)


class Generous(Sound):
    """Rewards anything."""

    def score(self, problem: Problem, response: str) -> Score:
        return Score(1.0)


class Trusting(Sound):
    """Raises for what it cannot read."""

    def score(self, problem: Problem, response: str) -> Score:
        return Score(float(int(response or 0) == int(problem.answer)))


class Wrong(Sound):
    """Does not accept its own solutions."""

    def score(self, problem: Problem, response: str) -> Score:
        return Score(0.0)


class Bound(Sound):
    """Cannot be pickled."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.function = lambda: None


BROKEN = {
    Forgetful: "determinism",
    Leaky: "splits",
    Generous: "noise",
    Trusting: "hostile text",
    Wrong: "right answers",
    Bound: "pickling",
}
for each in (Sound, *BROKEN):
    gym.register(f"conformance/{each.__name__}-v0", entry_point=each)


#: Presets of published data sets are tested by their schemas, on rows of our own.
SHIPPED = [name for name in group_options("env") if "'path'" not in repr(build_config([f"env={name}"]).env)]
SHIPPED.remove("judge")  # it needs a server: tests/envs/judge
ROWS = {
    "ecrl/Math-v0": [{"problem": f"What is ${i}+1$?", "answer": str(i + 1)} for i in range(300)],
    "ecrl/Code-v0": [
        {
            "problem": f"Print the input plus {i}.",
            "tests": {"inputs": ["1\n", "20\n"], "outputs": [f"{1 + i}\n", f"{20 + i}\n"]},
            "solution": f"print(int(input()) + {i})",
        }
        for i in range(300)
    ],
}


@pytest.mark.parametrize("name", slow_unless(lambda name: name != "code", SHIPPED))
def test_all_that_ships_passes(name: str, tmp_path: Path) -> None:
    config = build_config([f"env={name}"]).env
    kwargs = dict(config.kwargs)
    if rows := ROWS.get(config.id):
        kwargs["path"] = str(tmp_path / "rows.jsonl")
        kwargs |= {"solution_column": "solution"} if "solution" in rows[0] else {}
        Path(kwargs["path"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    findings = check(lambda split: make_env(config.id, split, kwargs))
    assert [f for f in findings if f.verdict == "fail"] == []


def test_adapted_reward_functions_pass(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"say {i}", "answer": str(i)}) + "\n" for i in range(300)))
    kwargs = {"functions": "tests.support.rewards:equals", "path": str(path)}
    findings = check(lambda split: make_env("ecrl/RewardFunctions-v0", split, kwargs))
    assert [f for f in findings if f.verdict == "fail"] == []


def test_a_sound_environment_passes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "check", "tests.envs.test_conformance:conformance/Sound-v0"]) == 0
    assert "fail" not in capsys.readouterr().out


@pytest.mark.parametrize(("broken", "finds"), BROKEN.items(), ids=lambda x: getattr(x, "__name__", x))
def test_what_is_wrong_is_found(broken: type[ReasoningEnv], finds: str) -> None:
    findings = check(lambda split: gym.make(f"conformance/{broken.__name__}-v0", split=split))
    assert finds in [f.name for f in findings if f.verdict == "fail"]
