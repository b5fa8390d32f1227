"""What every procedural task has to hold; `ecrl envs check` adds the rest at the settings of the presets."""

from __future__ import annotations

import pickle
import time
import timeit
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from omegaconf import OmegaConf

from ecrl.envs import ReasoningEnv
from ecrl.envs.base import Split
from ecrl.envs.tasks.arithmetic import ArithmeticEnv
from ecrl.envs.tasks.countdown import CountdownEnv
from ecrl.envs.tasks.graph_path import GraphPathEnv
from ecrl.envs.tasks.guess_number import GuessNumberEnv
from ecrl.envs.tasks.knights import KnightsEnv
from ecrl.envs.tasks.number_bases import BasesEnv
from ecrl.envs.tasks.strings import StringsEnv
from ecrl.envs.tasks.sudoku import SudokuEnv
from ecrl.errors import UsageError
from tests.support.environments import SETTINGS, problems
from tests.support.hostile import HOSTILE
from tests.support.paths import ROOT

IDS = {cls: f"ecrl/{cls.__name__.removesuffix('Env')}-v0" for cls in SETTINGS}
CASES = [(cls, kwargs) for cls, many in SETTINGS.items() for kwargs in many]
OF_ONE_TURN = [cls for cls in SETTINGS if cls is not GuessNumberEnv]
EXPRESSIONS: list[type[ReasoningEnv]] = [CountdownEnv, ArithmeticEnv]


@pytest.mark.parametrize("split", ["train", "val"])
@pytest.mark.parametrize(("cls", "kwargs"), CASES)
def test_solutions_earn_and_wrong_ones_mostly_do_not(
    cls: type[ReasoningEnv], kwargs: dict[str, Any], split: Split
) -> None:
    env, rng = cls(split=split, **kwargs), np.random.default_rng(0)
    count, least = (300, 200) if cls in EXPRESSIONS else (60, 50)
    wrong = 0.0
    for problem in problems(env, count):
        right = env.score(problem, env.solution(problem, rng))
        assert right.reward == 1.0 and right.answer is not None
        assert right.metrics == {"valid": 1.0}
        slip = env.score(problem, env.solution(problem, rng, correct=False))
        assert cls not in EXPRESSIONS or slip.metrics == {"valid": 1.0}
        wrong += 1 - slip.reward
    # Dropping letters forgives many slips.
    assert wrong > (0 if kwargs.get("operations") == ["drop"] else least)


@pytest.mark.parametrize(("cls", "kwargs"), [case for case in CASES if case[1]])
@pytest.mark.parametrize("split", ["train", "val"])
def test_gymnasium_is_content(cls: type[ReasoningEnv], kwargs: dict[str, Any], split: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(gym.make(IDS[cls], split=split, **kwargs).unwrapped)


@pytest.mark.parametrize("cls", OF_ONE_TURN)
def test_one_step_episode(cls: type[ReasoningEnv]) -> None:
    env = gym.make(IDS[cls])
    prompt, info = env.reset(seed=3)
    assert prompt == info["problem"].prompt
    assert all(c == "\n" or " " <= c <= "~" for c in prompt)
    observation, reward, terminated, truncated, info = env.step("?")
    assert (observation, reward, terminated, truncated) == ("", 0.0, True, False)
    assert set(info) == {"metrics", "answer"}
    assert info["answer"] is None


@pytest.mark.parametrize("cls", SETTINGS)
def test_a_seed_is_a_problem_and_a_copy_goes_on(cls: type[ReasoningEnv]) -> None:
    one, other = cls(), cls()
    other.reset(seed=9)
    assert [p.prompt for p in problems(one, 20)] == [p.prompt for p in problems(other, 20)]
    assert [one.reset()[0] for _ in range(20)] == [other.reset()[0] for _ in range(20)]
    assert len({one.reset(seed=i)[0] for i in range(50)}) > 25
    env = gym.make(IDS[cls], split="val")
    env.reset(seed=5)
    twin = pickle.loads(pickle.dumps(env))
    for answer in ("1+1", "5"):
        assert twin.step(answer)[1:] == env.step(answer)[1:]
        assert [twin.reset()[0] for _ in range(5)] == [env.reset()[0] for _ in range(5)]


@pytest.mark.parametrize("cls", SETTINGS)
def test_global_random_state_is_left_alone(cls: type[ReasoningEnv]) -> None:
    before = np.random.get_state()[1].tolist()  # type: ignore[index]
    env = cls()
    _, info = env.reset(seed=1)
    env.solution(info["problem"], np.random.default_rng(0))
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index]


@pytest.mark.parametrize("cls", SETTINGS)
def test_splits_are_disjoint(cls: type[ReasoningEnv]) -> None:
    count = 1500 if cls in EXPRESSIONS else 400
    train, val = ({p.key for p in problems(cls(split=s), count)} for s in ("train", "val"))  # type: ignore[arg-type]
    assert len(train) > 200 and len(val) > (50 if cls in EXPRESSIONS else 40)
    assert len(train) > len(val) or cls not in EXPRESSIONS
    assert not train & val


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("cls", EXPRESSIONS)
def test_make_vec(cls: type[ReasoningEnv], mode: str) -> None:
    single = [cls() for _ in range(2)]
    envs = gym.make_vec(IDS[cls], num_envs=2, vectorization_mode=mode)
    try:
        for seed in (11, 21):
            prompts, infos = envs.reset(seed=seed)
            expected = [env.reset(seed=seed + i) for i, env in enumerate(single)]
            assert prompts == tuple(prompt for prompt, _ in expected)
            right = single[0].solution(infos["problem"][0], np.random.default_rng(0))
            observations, rewards, terminated, truncated, infos = envs.step((right, "?"))
            assert observations == ("", "")
            assert rewards.tolist() == [1.0, 0.0]
            assert terminated.all()
            assert not truncated.any()
            assert infos["answer"][0] is not None
            assert infos["metrics"]["valid"].tolist() == [1.0, 0.0]
        prompts, *_ = envs.step(("", ""))
        assert prompts == tuple(env.reset()[0] for env in single)
    finally:
        envs.close()


@pytest.mark.parametrize("cls", SETTINGS)
@pytest.mark.parametrize("text", [*HOSTILE, "A=knight " * 99_999, "1\n" * 99_999, "A-" * 99_999], ids=len)
def test_hostile_text_earns_nothing_and_fast(cls: type[ReasoningEnv], text: str) -> None:
    env = cls()
    for problem in problems(env, 3):
        start = time.process_time()
        assert env.score(problem, text).reward == 0.0
        assert time.process_time() - start < 2


@pytest.mark.parametrize("cls", EXPRESSIONS)
def test_noise_scores_nothing(cls: type[ReasoningEnv]) -> None:
    env = cls()
    env.action_space.seed(0)
    _, info = env.reset(seed=0)
    rewards = [env.score(info["problem"], env.action_space.sample()).reward for _ in range(500)]
    assert sum(rewards) == 0


@pytest.mark.parametrize("cls", EXPRESSIONS)
def test_overhead(cls: type[ReasoningEnv]) -> None:
    env = cls()

    def play() -> None:
        env.reset(seed=12345)
        env.step("1+2=3 3+4=7")

    # About 35 µs; the bound leaves room for a slow, busy machine.
    assert min(timeit.repeat(play, number=200, repeat=5)) / 200 < 1e-3


def test_every_task_has_a_preset() -> None:
    presets = (ROOT / "configs" / "env").glob("*.yaml")
    assert set(IDS.values()) <= {OmegaConf.load(path).id for path in presets}


@pytest.mark.parametrize(
    ("cls", "name", "value"),
    [
        (CountdownEnv, "split", "test"),
        (CountdownEnv, "operators", ""),
        (CountdownEnv, "operators", "++"),
        (CountdownEnv, "operators", "+%"),
        (CountdownEnv, "operators", None),
        (CountdownEnv, "numbers", 1),
        (CountdownEnv, "numbers", 7),
        (CountdownEnv, "low", 0),
        (CountdownEnv, "low", 10),
        (CountdownEnv, "high", 2.5),
        (ArithmeticEnv, "split", None),
        (ArithmeticEnv, "operators", "+/"),
        (ArithmeticEnv, "steps", 0),
        (ArithmeticEnv, "steps", "2"),
        (ArithmeticEnv, "steps", True),
        (ArithmeticEnv, "digits", 10),
        (KnightsEnv, "people", 1),
        (KnightsEnv, "claims", 1),
        (SudokuEnv, "empty", 13),
        (GraphPathEnv, "nodes", 27),
        (GraphPathEnv, "edges", -1),
        (GraphPathEnv, "weight", 0),
        (StringsEnv, "length", 1),
        (StringsEnv, "steps", 0),
        (StringsEnv, "letters", 27),
        (StringsEnv, "operations", ["rot13"]),
        (StringsEnv, "operations", []),
        (StringsEnv, "operations", "reverse"),
        (BasesEnv, "low", 1),
        (BasesEnv, "high", 37),
        (BasesEnv, "maximum", 9),
        (GuessNumberEnv, "size", 1),
        (GuessNumberEnv, "turns", 65),
    ],
)
def test_bad_arguments_are_named(cls: type[ReasoningEnv], name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=f"^{name} must be .*got"):
        cls(**{name: value})
