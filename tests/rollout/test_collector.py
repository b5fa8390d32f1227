"""Collected completions: exact log-probs, token ids end to end, problems by their number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import torch

from ecrl.algorithm.objective import Objective
from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.envs.safe_calls import make as make_env
from ecrl.metrics import MetricsRecorder
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.rollout.batching import build_batch, with_advantages
from ecrl.rollout.chat import Chat
from ecrl.rollout.collector import Collector
from ecrl.rollout.env_pools import split_of
from ecrl.rollout.trajectory import Trajectory
from tests.support.conformance import make_module

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8)


def collector(
    tiny_model: Path, env_id: str = "", make: Callable[[str], gym.Env[str, str]] | None = None
) -> Collector:
    tokenizer = load_tokenizer(str(tiny_model))
    policy = HFEngine(load_policy(str(tiny_model), tokenizer), ProcessGroup())
    make = make or (lambda pool: make_env(env_id, split_of(pool), {}))
    return Collector(make, policy, Chat(tokenizer), seed=0)


def collect(source: Collector, problems: list[int], copies: int) -> list[Trajectory]:
    return source.collect("train", problems, copies, SAMPLING, 0, MetricsRecorder())


def test_known_log_probs_equal_recomputed_ones(tiny: Callable[..., Config], tiny_model: Path) -> None:
    module = make_module(tiny(), [])
    source = collector(tiny_model, "tests.support.tasks:test/Digits-v0")
    source.engine = HFEngine(module.model, ProcessGroup())
    assert source.engine.logprobs_exact
    batch = with_advantages(build_batch(collect(source, [0, 1, 2, 3], 4), iteration=0), Objective())
    logprobs, entropy = module.scorer.score(batch)
    assert torch.allclose(batch.old_logprobs, logprobs, atol=1e-5)
    assert torch.allclose(batch.old_entropy, entropy, atol=1e-5)


def test_a_problem_is_the_same_however_many_are_drawn(tiny_model: Path) -> None:
    source = collector(tiny_model, "tests.support.tasks:test/Digits-v0")
    many = collect(source, [0, 1, 2, 3], 2)
    one = collect(source, [2], 2)
    assert [t.prompt for t in one] == [t.prompt for t in many[4:6]]
    assert [t.response for t in one] == [t.response for t in many[4:6]]
    assert len({t.prompt for t in many}) == 4


def test_turns_of_the_environment_are_context(tiny: Callable[..., Config], tiny_model: Path) -> None:
    source = collector(tiny_model, "tests.support.tasks:test/Echo-v0")
    trajectories = collect(source, [0, 1], 3)
    tokenizer = load_tokenizer(str(tiny_model))
    batch = with_advantages(build_batch(trajectories, iteration=0), Objective())
    for sequence, trajectory in zip(batch.sequences, trajectories, strict=True):
        assert len(trajectory.turns) == 2
        context = [t for t, own in zip(sequence.response_ids, sequence.own, strict=True) if not own]
        assert tokenizer.decode(context) == "\nagain\n"
    assert batch.lengths.tolist() == [t.num_tokens for t in trajectories]
    module = make_module(tiny(), [])
    source.engine = HFEngine(module.model, ProcessGroup())
    batch = with_advantages(build_batch(collect(source, [0, 1], 3), iteration=0), Objective())
    # The engine read exactly the ids that scoring reads: the log-probs agree over both turns.
    assert torch.allclose(batch.old_logprobs, module.scorer.score(batch)[0], atol=1e-5)


def test_one_validation_set_at_a_time_holds_environments(tiny_model: Path) -> None:
    made: list[str] = []

    def make(pool: str) -> gym.Env[str, str]:
        made.append(pool)
        return make_env("tests.support.tasks:test/Digits-v0", split_of(pool), {})

    source = collector(tiny_model, make=make)
    drawn = [source.collect(pool, [0, 1], 2, SAMPLING, 0, MetricsRecorder()) for pool in "abab"]
    assert "".join(made) == "aaaabbbbaaaabbbb"
    assert [t.response for t in drawn[0]] == [t.response for t in drawn[2]]
