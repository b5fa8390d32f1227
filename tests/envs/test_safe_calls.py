"""A user's own environment that fails ends a command in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from ecrl.cli import main
from ecrl.envs import Problem, ReasoningEnv, Score


def boom(*_: Any, **__: Any) -> Any:
    raise KeyError("boom")


class Fine(ReasoningEnv):
    """Write the digits backwards."""

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        number = str(rng.integers(10**5))
        return Problem(prompt=f"reverse {number}\n", answer=number[::-1])

    def score(self, problem: Problem, response: str) -> Score:
        return Score(float(response == problem.answer), answer=response)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        return str(problem.answer) if correct else "0"


FAULTS: dict[str, tuple[dict[str, Any], str]] = {
    "Fine": ({}, ""),
    "Init": ({"__init__": boom}, "Making me/Init-v0 failed: KeyError: 'boom'"),
    "Reset": ({"sample_problem": boom}, "me/Reset-v0.reset failed: KeyError: 'boom'"),
    "NoPair": ({"reset": lambda *_, **__: "x"}, "me/NoPair-v0.reset failed: ValueError: not enough values"),
    "Prompt": ({"reset": lambda *_, **__: (5, {})}, "me/Prompt-v0.reset failed: TypeError: the prompt"),
    "Solution": ({"solution": boom}, "me/Solution-v0.solution failed: KeyError: 'boom'"),
    "NoText": ({"solution": lambda *_, **__: 5}, "me/NoText-v0.solution failed: TypeError: the solution"),
    "Step": ({"score": boom}, "me/Step-v0.step failed: KeyError: 'boom'"),
    "Exit": ({"score": lambda *_: exit(3)}, "me/Exit-v0.step failed: SystemExit: 3"),
    "Short": ({"step": lambda *_: ("", 1.0)}, "me/Short-v0.step failed: ValueError: not enough values"),
    "Reward": ({"score": lambda *_: Score("1")}, "me/Reward-v0.step failed: ValueError: the reward"),
    "Nan": ({"score": lambda *_: Score(float("nan"))}, "me/Nan-v0.step failed: ValueError: the reward"),
    "Metric": ({"score": lambda *_: Score(1.0, {"m": "x"})}, "me/Metric-v0.step failed: ValueError: the met"),
    "Says": ({"step": lambda *_: (5, 0.0, False, False, {})}, "me/Says-v0.step failed: TypeError: the obs"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods, message = FAULTS[name]
    gym.register(f"me/{name}-v0", entry_point=type(name, (Fine,), methods))
    small = ["iterations=1", "rollout.prompts=2", "rollout.group_size=2", "rollout.max_new_tokens=4"]
    small += ["eval.every=0", "warmup.steps=1", "warmup.batch=2", "update.minibatches=1"]
    try:
        code = main(["train", f"env=me/{name}-v0", *small, f"run_dir={tmp_path / 'run'}"])
        said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("ecrl: ")]
        assert code == (1 if message else 0)
        assert [line.startswith(f"ecrl: {message}") for line in said] == ([True] if message else [])
        if name in ("Init", "Reset", "Solution", "Step"):
            assert main(["envs", "show", f"me/{name}-v0"]) == 1
            assert message in capsys.readouterr().err
    finally:
        gym.registry.pop(f"me/{name}-v0")
