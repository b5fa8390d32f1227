"""Curriculum: the rule by hand, the levels of the problems, whole runs, exact resume."""

from __future__ import annotations

import json
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import gymnasium as gym
import lightning as L
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ecrl.config.compose import build_config
from ecrl.config.resume import resumed_config
from ecrl.envs.base import Problem, ReasoningEnv, Score
from ecrl.envs.composite.curriculum import CurriculumEnv, LevelSchedule
from ecrl.errors import UsageError
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors
from tests.support.tiny import TINY


class LevelEnv(ReasoningEnv):
    """Anything is right up to level 1; at level 2 everything is wrong. The prompt says the level."""

    def __init__(self, *, level: int, split: Any = "train") -> None:
        super().__init__(split=split)
        self.level = level

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        return Problem(f"{self.level}: {rng.integers(10**9)}\n", None)

    def score(self, problem: Problem, response: str) -> Score:
        return Score(float(self.level < 2), answer="x")


gym.register("test/Level-v0", entry_point=LevelEnv)
LEVELS = "env.kwargs.levels=[{level: 0}, {level: 1}, {level: 2}, {level: 3}]"
RUN = [
    *TINY[1:],
    "env=ecrl/Curriculum-v0",
    "env.kwargs.env=test/Level-v0",
    LEVELS,
    "env.kwargs.window=2",
    "objective.filters.drop_zero_variance=false",
]


def make(**kwargs: Any) -> CurriculumEnv:
    env = gym.make("ecrl/Curriculum-v0", **kwargs).unwrapped
    assert isinstance(env, CurriculumEnv)
    return env


# The rule


def test_the_level_schedule_by_hand() -> None:
    level_schedule = LevelSchedule(last=2, level=0, up=0.7, down=0.1, window=2)
    levels = []
    for success in (1.0, 0.3, 0.9, 0.6, 0.8, 0.2, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0):
        level_schedule.observe(success)
        levels.append(level_schedule.level)
    # Means of two at a level: .65 | .6 | .75 up | .8 and .2 | .1 down | .5 | 1 up | 1 up to the last | stays
    assert levels == [0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1, 2, 2, 2]


def test_a_level_schedule_continues_from_its_state() -> None:
    one = LevelSchedule(last=5, level=0, up=0.5, down=-1.0, window=3)
    for success in (0.6, 0.6):
        one.observe(success)
    other = LevelSchedule(last=5, level=0, up=0.5, down=-1.0, window=3)
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    other.observe(0.6)
    assert other.level == 1


# The environment


def test_options_say_the_level() -> None:
    env = make(levels=[{"steps": 1}, {"steps": 3}, {"steps": 6}], kwargs={"operators": "+"})
    for level, steps in enumerate((1, 3, 6)):
        prompt, _ = env.reset(seed=5, options={"level": level})
        assert prompt.count("+") == steps
        right = env.solution(env.problem, np.random.default_rng(0))
        _, reward, *_, info = env.step(right)
        assert (reward, info["metrics"]) == (1.0, {"valid": 1.0, "level": level})
        assert env.reset(seed=5, options={"level": level})[0] == prompt
    check_env(env)


def test_without_options_training_starts_and_validation_ends() -> None:
    levels = [{"steps": 1}, {"steps": 2}, {"steps": 5}]
    for split, start, level in (("train", 1, 1), ("val", 1, 2), ("train", 0, 0)):
        env = make(levels=levels, start=start, split=split)
        env.reset(seed=0)
        assert env.step("1")[4]["metrics"]["level"] == level


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"levels": {"steps": 1}}, "levels must be a list"),
        ({"levels": [1, 2]}, "levels must be a list"),
        ({"levels": []}, "levels must be one or more"),
        ({"start": 3}, "start must be one of the 3 levels"),
        ({"start": True}, "start must be an integer; got True"),
        ({"up": 2}, "up must be a success rate above 0, at most 1; got 2"),
        ({"up": "high"}, "up must be a number"),
        ({"env": "ecrl/Nothing-v0"}, "Unknown env"),
        ({"levels": [{"stps": 1}]}, "could not be made"),
        ({"up": 0.2, "down": 0.2}, "down must be below up"),
        ({"window": 0}, "window must be an integer"),
    ],
)
def test_bad_arguments_are_one_line(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make(**kwargs)


def test_a_level_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="level must be from 0 to 2; got 3"):
        make().reset(options={"level": 3})


def test_reasoning_gyms_levels_are_levels() -> None:
    pytest.importorskip("reasoning_gym")
    env = make(env="reasoning_gym/chain_sum-v0", levels=[{"level": 0}, {"level": 3}])
    lengths = [len(env.reset(seed=1, options={"level": level})[0]) for level in (0, 1)]
    assert lengths[0] < lengths[1]


def test_the_environment_declares_its_callback() -> None:
    assert ReasoningEnv.training_callback is None
    assert issubclass(resolve_name(str(CurriculumEnv.training_callback)), L.Callback)


@pytest.mark.parametrize("rule", [{"up": 0}, {"down": 0.9}, {"window": 0}, {"window": 1.5}, {"window": True}])
def test_an_impossible_rule_is_a_value_error(rule: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(rule))} must be"):
        LevelSchedule(**{"last": 2, "level": 0, "up": 0.7, "down": 0.1, "window": 2, **rule})


# Whole runs


def run(tiny_model: Path, run_dir: Path, *overrides: str) -> Path:
    config = build_config([*RUN, f"model.path={tiny_model}", f"run_dir={run_dir}", *overrides])
    return train(config, lambda line: None).run_dir


def levels(run_dir: Path) -> list[float]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [row["env/level"] for row in rows if "env/level" in row]


def test_a_run_climbs_as_it_succeeds(tiny_model: Path, tmp_path: Path) -> None:
    done = run(tiny_model, tmp_path / "run", "iterations=6", "eval.every=3", "eval.problems=4", "eval.k=2")
    assert levels(done) == [0, 0, 1, 1, 2, 2]
    # Every level that changed did so for all copies and problems of an iteration: the means are whole.
    rows = [json.loads(line) for line in (done / "metrics.jsonl").read_text().splitlines()]
    assert [row["rollout/reward"] for row in rows if "rollout/reward" in row] == [1, 1, 1, 1, 0, 0]
    assert {row["val/curriculum/avg@2"] for row in rows if "val/curriculum/avg@2" in row} == {0.0}


@pytest.mark.parametrize("staleness", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_resume_is_exact(staleness: int, tiny_model: Path, tmp_path: Path) -> None:
    ahead = f"rollout.staleness={staleness}"
    whole = run(tiny_model, tmp_path / "whole", "iterations=5", ahead)
    parts = run(tiny_model, tmp_path / "parts", "iterations=1", ahead)
    for total in (3, 5):
        train(resumed_config([f"resume={parts}", f"iterations={total}"]), lambda line: None)
    assert levels(whole) == levels(parts)
    assert max(levels(whole)) >= 1
    left, right = checkpoint_tensors(whole), checkpoint_tensors(parts)
    assert left.keys() == right.keys()
    assert all(bool((left[name] == right[name]).all()) for name in left)
