"""Mixtures: shares, seeds, metrics that tell which, members of several turns."""

from __future__ import annotations

import pickle
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from ecrl.config.compose import build_config
from ecrl.envs import item_seed
from ecrl.envs.composite.mixture import MixtureEnv
from ecrl.envs.safe_calls import make as make_env
from ecrl.envs.tasks.arithmetic import ArithmeticEnv
from ecrl.errors import UsageError

MEMBERS = [
    {"id": "ecrl/Arithmetic-v0", "weight": 3, "kwargs": {"steps": 4}},
    {"id": "ecrl/GuessNumber-v0", "name": "guess", "weight": 1},
]


def make(**kwargs: Any) -> MixtureEnv:
    env = gym.make("ecrl/Mixture-v0", **kwargs).unwrapped
    assert isinstance(env, MixtureEnv)
    return env


@pytest.mark.parametrize("split", ["train", "val"])
def test_gymnasium_is_content(split: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(make(envs=MEMBERS, split=split))


def test_shares_are_the_weights() -> None:
    env = make(envs=MEMBERS)
    shares = []
    for number in range(1000):
        env.reset(seed=item_seed(0, number))
        shares.append(env.step("?")[4]["metrics"]["arithmetic/share"])
    assert np.mean(shares) == pytest.approx(0.75, abs=0.04)


def test_metrics_tell_which() -> None:
    env, seen = make(envs=MEMBERS), set()
    for number in range(20):
        prompt, info = env.reset(seed=item_seed(0, number))
        right = env.solution(info["problem"], np.random.default_rng(0))
        _, reward, terminated, truncated, info = env.step(right)
        assert (reward, terminated, truncated) == (1.0, True, False)
        guess = prompt.startswith("Guess")
        name = "guess" if guess else "arithmetic"
        assert info["metrics"] == {
            "arithmetic/share": float(not guess),
            "guess/share": float(guess),
            f"{name}/reward": 1.0,
            f"{name}/valid": 1.0,
            **({"guess/turns": 1.0} if guess else {}),
        }
        assert info["answer"] is not None
        seen.add(name)
    assert seen == {"arithmetic", "guess"}


def test_members_of_several_turns_go_on() -> None:
    env = make(envs=[{"id": "ecrl/GuessNumber-v0", "kwargs": {"turns": 2}}])
    env.reset(seed=0)
    assert env.step("0")[:4] == ("\nhigher\n", 0.0, False, False)
    assert env.step("0")[:4] == ("", 0.0, False, True)


def test_arguments_reach_the_members() -> None:
    env = make(envs=MEMBERS)
    first = env.members[0].unwrapped
    assert isinstance(first, ArithmeticEnv) and first.steps == 4


def test_a_seed_is_a_problem_and_a_copy_goes_on() -> None:
    one, other = make(envs=MEMBERS), make(envs=MEMBERS)
    other.reset(seed=77)
    other.reset()
    seeds = [item_seed(3, i) for i in range(30)]
    assert [one.reset(seed=s)[0] for s in seeds] == [other.reset(seed=s)[0] for s in seeds]
    twin = pickle.loads(pickle.dumps(one))
    assert twin.step("1")[:4] == one.step("1")[:4]
    assert [twin.reset()[0] for _ in range(5)] == [one.reset()[0] for _ in range(5)]


def test_problems_can_be_judged_by_themselves() -> None:
    env, rng = make(), np.random.default_rng(0)
    for _ in range(20):
        problem = env.sample_problem(rng)
        assert env.score(problem, env.solution(problem, rng)).reward == 1.0
        assert env.score(problem, "?").reward == 0.0


@pytest.mark.parametrize(
    ("envs", "message"),
    [
        ([], "envs must be a list"),
        (None, "envs must be a list"),
        ("ecrl/Countdown-v0", "envs must be a list"),
        ([{"weight": 1}], "id is required"),
        ([{"id": "ecrl/Countdown-v0", "wieght": 1}], "id is required"),
        ([{"id": "ecrl/Countdown-v0", "weight": 0}], "weight must be a positive number; got 0"),
        ([{"id": "ecrl/Countdown-v0", "weight": "2"}], "weight must be a positive number"),
        (["ecrl/Countdown-v0", "ecrl/Countdown-v0"], "two members named 'countdown'"),
        (["ecrl/Countdwn-v0"], "Unknown env 'ecrl/Countdwn-v0'"),
        (["no_such_module:x/Y-v0"], "Unknown env"),
        ([{"id": "ecrl/Countdown-v0", "kwargs": {"nmbers": 3}}], "could not be made"),
        ([{"id": "ecrl/Countdown-v0", "kwargs": {"numbers": 99}}], "numbers must be an integer"),
        ([{"id": "ecrl/Countdown-v0", "kwargs": 3}], "mapping of arguments"),
    ],
)
def test_bad_members_are_one_line(envs: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        make(envs=envs)
    assert "\n" not in str(caught.value)


def test_members_from_the_command_line_replace_the_presets() -> None:
    override = "env.kwargs.envs=[{id: ecrl/Sudoku-v0, weight: 2, kwargs: {empty: 3}}, ecrl/Bases-v0]"
    config = build_config(["env=mixture", override])
    env = make_env(config.env.id, "train", config.env.kwargs).unwrapped
    assert isinstance(env, MixtureEnv) and env.names == ["sudoku", "bases"]
