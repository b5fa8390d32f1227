"""Environments of other frameworks here and ours there; against the real package where it is installed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import ecrl.envs  # noqa: F401  (registers the environments)
from ecrl.envs.adapters.gem import GemEnv, as_gem
from ecrl.envs.adapters.skyrl import SkyRLEnv, as_skyrl
from ecrl.envs.adapters.trl import RewardFunctionEnv, as_trl
from ecrl.envs.adapters.verifiers import VerifiersEnv, as_verifiers
from ecrl.envs.base import ReasoningEnv
from ecrl.errors import UsageError


def rows_file(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def quiz(tmp_path: Path) -> str:
    return rows_file(tmp_path / "q.jsonl", [{"prompt": f"what is {i}?", "answer": str(i)} for i in range(50)])


@pytest.fixture
def chat(tmp_path: Path) -> str:
    rows = [{"prompt": [{"role": "user", "content": f"q{i}"}], "answer": str(i)} for i in range(50)]
    return rows_file(tmp_path / "chat.jsonl", rows)


def test_reward_functions_are_summed_by_weight(quiz: str, chat: str) -> None:
    functions = ["tests.support.rewards:equals", "tests.support.rewards:length"]
    for path, prompt in ((quiz, "what is 7?"), (chat, "q7")):
        env = RewardFunctionEnv(functions=functions, weights=[1.0, 0.5], path=path)
        assert env.reset(options={"index": 7})[0] == prompt
        _, reward, terminated, _, info = env.step("7")
        assert (reward, terminated) == (1.5, True)
        assert info["metrics"] == {"equals": 1.0, "length": 1.0, "timeout": 0.0, "crash": 0.0}


def test_a_reward_function_that_hangs_scores_nothing(quiz: str) -> None:
    env = RewardFunctionEnv(functions="tests.support.rewards:hangs", path=quiz, time_limit=0.5)
    env.reset(seed=0)
    assert env.step("1")[1] == 0.0
    env.reset(seed=0)
    assert env.step("1")[4]["metrics"]["timeout"] == 1.0


def test_bad_functions_are_one_line(quiz: str) -> None:
    with pytest.raises(UsageError, match="cannot be imported"):
        RewardFunctionEnv(functions="tests.support.rewards:nothing", path=quiz)
    with pytest.raises(UsageError, match="as many weights"):
        RewardFunctionEnv(functions="tests.support.rewards:equals", weights=[1.0, 2.0], path=quiz)


def test_ours_as_trl() -> None:
    rows, reward = as_trl("ecrl/Countdown-v0", 5)
    env = gym.make("ecrl/Countdown-v0").unwrapped
    assert isinstance(env, ReasoningEnv)
    answers = []
    for row in rows:
        prompt, info = env.reset(seed=row["seed"])
        assert prompt == row["prompt"]
        answers.append(env.solution(info["problem"], np.random.default_rng(0)))
    seeds = [row["seed"] for row in rows]
    assert reward(prompts=None, completions=answers, seed=seeds) == [1.0] * 5
    messages = [[{"role": "assistant", "content": "?"}]] * 5
    assert reward(prompts=None, completions=messages, seed=seeds) == [0.0] * 5


def test_a_verifiers_package() -> None:
    env = VerifiersEnv(target="tests.support.rewards", kwargs={"size": 50})
    prompt, _ = env.reset(seed=1)
    answer = prompt.removeprefix("what is ").removesuffix("?")
    _, reward, *_, info = env.step(answer)
    assert reward == pytest.approx(1 + 0.5 / (1 + len(answer)))
    assert info["metrics"] == {"correct": 1.0, "short": pytest.approx(1 / (1 + len(answer)))}
    with pytest.raises(UsageError, match="has no load_environment"):
        VerifiersEnv(target="json")


def test_ours_as_a_real_verifiers_environment() -> None:
    pytest.importorskip("verifiers")
    made = as_verifiers("ecrl/Countdown-v0", 8)
    assert len(made.get_dataset()) == 8


class Coin:
    """GEM's interface: heads or tails, three guesses."""

    def __init__(self, sides: int = 2) -> None:
        self.sides = sides

    def reset(self, seed: int | None = None) -> tuple[str, dict[str, Any]]:
        self.side, self.turns = random.randrange(self.sides), 0
        return f"coin {random.random()}", {}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.turns += 1
        right, last = action == str(self.side), self.turns == 3
        return "again", float(right), right or last, last and not right, {"turns": self.turns, "text": "x"}


class LaterCoin(Coin):
    """The same, whose steps are awaited."""

    async def step(self, action: str) -> Any:  # type: ignore[override]
        return super().step(action)


def test_a_gem_class_may_have_asynchronous_steps() -> None:
    now, later = (
        GemEnv(target=f"tests.envs.adapters.test_adapters:{name}") for name in ("Coin", "LaterCoin")
    )
    assert now.reset(seed=5)[0] == later.reset(seed=5)[0]
    assert now.score(now.problem, "1") == later.score(later.problem, "1")
    assert now.step("1") == later.step("1")


def test_ours_with_asynchronous_steps_as_trl() -> None:
    rows, reward = as_trl("tests.support.async_tasks:test/LaterSums-v0", 3)
    right = [str(sum(map(int, row["prompt"].split("+")))) for row in rows]
    assert reward(completions=right, seed=[row["seed"] for row in rows]) == [1.0] * 3


def test_a_gem_class_is_deterministic_and_leaves_global_randomness_alone() -> None:
    env, other = (
        GemEnv(target="tests.envs.adapters.test_adapters:Coin", kwargs={"sides": 10}) for _ in range(2)
    )
    random.seed(3)
    before = random.getstate()
    assert env.reset(seed=5)[0] == other.reset(seed=5)[0]
    outcomes = [e.step("3") for e in (env, other)]
    assert outcomes[0] == outcomes[1]
    assert random.getstate() == before
    rewards = []
    for side in range(10):
        env.reset(seed=5)
        rewards.append(env.step(str(side))[1])
    assert sum(rewards) == 1
    env.reset(seed=5)
    wrong = str((rewards.index(1.0) + 1) % 10)
    assert [env.step(wrong)[2:4] for _ in range(3)] == [(False, False), (False, False), (False, True)]


def test_real_gem_both_ways() -> None:
    gem = pytest.importorskip("gem")
    env = GemEnv(target="game:GuessTheNumber-v0-easy", split_by="seed")
    assert "Guess" in env.reset(seed=0)[0]
    assert env.step("\\boxed{1}")[0]
    ours = as_gem("ecrl/Countdown-v0")
    assert isinstance(ours, gem.core.Env)
    assert (
        ours.reset(seed=0)[0]
        == ours.spawn().reset(seed=0)[0]
        == ours.spawn(same_state=True).env.unwrapped.problem.prompt
    )
    assert ours.step("?")[1:4] == (0.0, True, False)


class Doubling:
    """skyrl-gym's interface, two turns."""

    def __init__(self, env_config: Any, extras: dict[str, Any]) -> None:
        self.answer, self.turns = extras["answer"], 0

    def init(self, prompt: Any) -> tuple[Any, dict[str, Any]]:
        return [{"role": "system", "content": "Answer twice."}, *prompt], {}

    def step(self, action: str) -> dict[str, Any]:
        self.turns += 1
        observations = [{"role": "user", "content": "once more"}] if self.turns == 1 else []
        reward = float(action == self.answer)
        return {"observations": observations, "reward": reward, "done": self.turns == 2, "metadata": {}}

    def get_metrics(self) -> dict[str, Any]:
        return {"turns": self.turns, "name": "x"}


def test_a_skyrl_class(quiz: str) -> None:
    env = SkyRLEnv(target="tests.envs.adapters.test_adapters:Doubling", path=quiz)
    assert env.reset(options={"index": 4})[0] == "Answer twice.\n\nwhat is 4?"
    assert env.step("4")[:4] == ("once more", 1.0, False, False)
    observation, reward, terminated, _, info = env.step("5")
    assert (observation, reward, terminated, info["metrics"]) == ("", 0.0, True, {"turns": 2.0})
    assert env.reset(options={"index": 4})[0] and env.step("4")[2] is False  # a new episode


def test_real_skyrl_both_ways(tmp_path: Path) -> None:
    pytest.importorskip("skyrl_gym")
    rows = [
        {"prompt": [{"role": "user", "content": f"what is {i}?"}], "reward_spec": {"ground_truth": str(i)}}
        for i in range(30)
    ]
    env = SkyRLEnv(target="gsm8k", path=rows_file(tmp_path / "g.jsonl", rows))
    env.reset(options={"index": 6})
    assert env.step("#### 6")[1] == 1.0
    ours = as_skyrl("ecrl/Countdown-v0")(extras={"seed": 3})
    messages, _ = ours.init([])
    problem = ours.env.unwrapped.problem
    assert messages[0]["content"] == problem.prompt
    output = ours.step(ours.env.unwrapped.solution(problem, np.random.default_rng(0)))
    assert (output["reward"], output["done"]) == (1.0, True)
