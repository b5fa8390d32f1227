"""The base of environments: splits, seeds, and one from outside."""

from __future__ import annotations

import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ecrl.envs.base import Problem, ReasoningEnv, Score, item_seed
from ecrl.errors import UsageError


class Fixed(ReasoningEnv):
    """A single problem."""

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        return Problem("again?\n", "yes")

    def score(self, problem: Problem, response: str) -> Score:
        return Score(float(response == problem.answer), answer=response)


def test_a_split_that_cannot_be_reached_says_so() -> None:
    outcomes = []
    for split in ("train", "val"):
        try:
            Fixed(split=split).reset(seed=0)  # type: ignore[arg-type]
            outcomes.append("drawn")
        except UsageError as error:
            assert f"split={split!r}" in str(error)
            outcomes.append("refused")
    assert sorted(outcomes) == ["drawn", "refused"]


def test_step_before_reset() -> None:
    with pytest.raises(gym.error.ResetNeeded):
        Fixed().step("yes")


def test_a_base_without_solutions_says_so() -> None:
    with pytest.raises(NotImplementedError, match="Fixed"):
        Fixed().solution(Problem("", ""), np.random.default_rng(0))


def test_problem_key_defaults_to_the_prompt() -> None:
    assert Problem("a", 1).key == "a"
    assert Problem("a", 1, "b").key == "b"


def test_item_seeds_do_not_overlap() -> None:
    seeds = [item_seed(seed, index) for seed in (0, 1, 42, 43, 5 + (7 << 32)) for index in range(500)]
    assert len(set(seeds)) == len(seeds)
    # Where zero-padded words would collide: [5, 7] and [5 + (7 << 32), 0].
    assert item_seed(5, 7) != item_seed(5 + (7 << 32), 0)
    assert item_seed(5, 7) == item_seed(5, 7)
    assert all(type(seed) is int and 0 <= seed < 1 << 64 for seed in seeds)


def test_an_environment_from_outside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mypkg"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "mod.py").write_text(
        "import gymnasium\n"
        "from ecrl.envs import Problem, ReasoningEnv, Score\n"
        "class MyTask(ReasoningEnv):\n"
        "    def sample_problem(self, rng):\n"
        "        n = int(rng.integers(1000))\n"
        "        return Problem(f'{n}', str(n)[::-1])\n"
        "    def score(self, problem, response):\n"
        "        return Score(float(response == problem.answer))\n"
        "gymnasium.register('me/MyTask-v0', entry_point=MyTask)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    try:
        env = gym.make("mypkg.mod:me/MyTask-v0", split="val")
        check_env(env.unwrapped)
        prompt, _ = env.reset(seed=1)
        assert env.step(prompt[::-1])[1] == 1.0
    finally:
        gym.registry.pop("me/MyTask-v0", None)
        for module in ("mypkg.mod", "mypkg"):
            sys.modules.pop(module, None)
