"""Prompts that are too long: left out, cut, or refused; the limit, and what sets it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig, Qwen2Config

from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion, Sampling
from ecrl.engines.hf import HFEngine
from ecrl.envs.safe_calls import make
from ecrl.errors import UsageError
from ecrl.metrics import MetricsRecorder
from ecrl.policy.context_window import context_window
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.rollout.chat import Chat
from ecrl.rollout.collector import Collector
from ecrl.rollout.prompt_limit import PromptLimit, prompt_limit
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.preflight import preflight

COUNT = "tests.support.tasks:test/Count-v0"  # prompts of 5 to 120 tokens
SAMPLING = Sampling(1.0, 1.0, 4)


class Longest(HFEngine):
    """Remembers the longest prompt that it was given."""

    longest = 0

    def draw(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        self.longest = max([self.longest, *map(len, prompts)])
        return super().draw(prompts, sampling, keys)


@pytest.fixture
def collector(tiny_model: Path) -> Callable[..., Collector]:
    tokenizer = load_tokenizer(str(tiny_model))
    engine = Longest(load_policy(str(tiny_model), tokenizer), ProcessGroup())

    def of(limit: PromptLimit, env: str = COUNT, **kwargs: Any) -> Collector:
        return Collector(
            lambda split: make(env, split, kwargs),
            engine,
            Chat(tokenizer),
            seed=0,
            prompt_limit=lambda split, sampling: limit,
        )

    return of


def collect(source: Collector, split: Any, problems: Sequence[int]) -> list[Trajectory]:
    return source.collect(split, problems, 2, SAMPLING, 0, MetricsRecorder())


def test_training_passes_over_prompts_that_are_too_long(collector: Callable[..., Collector]) -> None:
    free, limited = collector(PromptLimit()), collector(PromptLimit(50, "the test"))
    lengths = [len(t.prompt_ids) for t in collect(free, "train", range(40))[::2]]
    fits = [number for number, length in enumerate(lengths) if length <= 50]
    assert 5 < len(fits) < 35
    chosen = limited.choose("train", 0, 5, SAMPLING)
    assert chosen.problems == fits[:5] and chosen.stop == fits[4] + 1
    assert chosen.overlong == chosen.stop - 5
    # The next rollout begins where this one ended, so no problem is skipped or posed twice.
    assert limited.choose("train", chosen.stop, 3, SAMPLING).problems == fits[5:8]
    assert free.choose("train", 7, 3, SAMPLING).problems == [7, 8, 9]
    limited.engine.longest = 0  # type: ignore[attr-defined]
    drawn = collect(limited, "train", chosen.problems)
    assert all(t.turns for t in drawn) and limited.engine.longest <= 50  # type: ignore[attr-defined]


def test_in_validation_they_are_not_read(collector: Callable[..., Collector]) -> None:
    free, limited = collector(PromptLimit()), collector(PromptLimit(50, "the test"))
    all_read, read = collect(free, "val", range(20)), collect(limited, "val", range(20))
    for one, other in zip(all_read, read, strict=True):
        if len(one.prompt_ids) > 50:
            assert other.overlong and not other.turns and other.reward == 0 and other.vote is None
        else:
            assert other.response == one.response and not other.overlong


def test_truncating_leaves_out_the_middle(collector: Callable[..., Collector]) -> None:
    free, cut = collector(PromptLimit()), collector(PromptLimit(51, "the test", "truncate"))
    assert cut.choose("train", 0, 40, SAMPLING).problems == list(range(40))
    assert cut.choose("train", 0, 40, SAMPLING).overlong > 5
    for one, other in zip(collect(free, "train", range(20)), collect(cut, "train", range(20)), strict=True):
        whole = one.prompt_ids
        assert other.overlong == (len(whole) > 51)
        if other.overlong:
            assert other.prompt_ids == whole[:26] + whole[-25:]
            assert other.prompt == one.prompt[:26] + one.prompt[-25:]


def test_an_error_names_the_prompt_and_the_limit(collector: Callable[..., Collector]) -> None:
    source = collector(PromptLimit(50, "rollout.max_prompt_tokens", "error"))
    with pytest.raises(
        UsageError,
        match=r"The prompt of train-problem\d+ has \d+ tokens, but rollout\.max_prompt_tokens allows 50: "
        r"'\d+.*drop or trunc",
    ):
        source.choose("train", 0, 40, SAMPLING)


def test_nothing_that_fits_is_an_error(collector: Callable[..., Collector]) -> None:
    with pytest.raises(UsageError, match=r"The prompts of 1000 problems are all too long: the test allows 2"):
        collector(PromptLimit(2, "the test")).choose("train", 0, 200, SAMPLING)


def test_several_turns_end_at_the_limit(collector: Callable[..., Collector]) -> None:
    echo = "tests.support.tasks:test/Echo-v0"
    short = collect(collector(PromptLimit(12, "the test"), echo), "train", [0, 1])
    assert all(len(t.turns) == 1 and t.truncated and not t.terminated for t in short)
    assert all(
        len(t.turns) == 2 for t in collect(collector(PromptLimit(100, "the test"), echo), "train", [0])
    )


def test_the_limit_is_the_least_of_three(tiny: Callable[..., Config]) -> None:
    config = tiny("update.max_tokens=300")
    assert prompt_limit(config, None, 8, training=False).tokens is None
    assert prompt_limit(config, 512, 8, training=False).tokens == 504
    assert prompt_limit(config, 512, 8, training=True).tokens == 292
    limited = tiny("update.max_tokens=300", "rollout.max_prompt_tokens=100", "rollout.overlong_prompts=error")
    limit = prompt_limit(limited, 512, 8, training=True)
    assert (limit.tokens, limit.overlong) == (100, "error")
    assert limit.reason == "rollout.max_prompt_tokens"
    assert prompt_limit(limited, 64, 60, training=False).tokens == 4


def test_windows() -> None:
    assert context_window(Qwen2Config(max_position_embeddings=512)) == 512
    yarn = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6}
    assert context_window(Qwen2Config(max_position_embeddings=32768, rope_parameters=yarn)) == 131072
    llama = {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 8192,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "rope_theta": 5e5,
    }
    assert context_window(LlamaConfig(max_position_embeddings=131072, rope_parameters=llama)) == 131072
    assert context_window(object()) is None


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["rollout.max_new_tokens=1024"],
            "1024 and a prompt are more than the model's window of 1024 tokens",
        ),
        (
            ["rollout.max_new_tokens=24", "rollout.max_prompt_tokens=1001"],
            "24 and rollout.max_prompt_tokens=1001 are more than the model's window of 1024",
        ),
        (
            ["eval.every=1", "eval.sets={long: {max_new_tokens: 1024}}"],
            r"eval\.sets\.long\.max_new_tokens=1024 and a prompt are more than the model's window of 1024",
        ),
    ],
)
def test_more_than_the_window_is_refused(words: list[str], message: str, tiny: Callable[..., Config]) -> None:
    with pytest.raises(UsageError, match=message):
        preflight(tiny(*words))
    preflight(tiny("rollout.max_new_tokens=24", "rollout.max_prompt_tokens=1000"))


@pytest.mark.parametrize(
    ("word", "key"),
    [
        ("rollout.max_prompt_tokens=0", "rollout.max_prompt_tokens"),
        ("rollout.max_prompt_tokens=many", "rollout.max_prompt_tokens"),
        ("rollout.max_prompt_tokens=16380", "update.max_tokens=16384 cannot hold"),
        ("rollout.overlong_prompts=cut", "rollout.overlong_prompts"),
        ("env.on_error=ignore", "env.on_error"),
    ],
)
def test_wrong_values_are_refused(word: str, key: str, tiny: Callable[..., Config]) -> None:
    with pytest.raises(UsageError, match=key):
        tiny(word)
