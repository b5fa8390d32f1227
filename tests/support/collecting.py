"""Collectors that draw with a tiny model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.envs.safe_calls import make as make_env
from ecrl.metrics import MetricsRecorder
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.rollout.chat import Chat
from ecrl.rollout.collector import Collector
from ecrl.rollout.env_pools import split_of
from ecrl.rollout.trajectory import Trajectory

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8)


def collector(tiny_model: Path, of: type[HFEngine], task: str, batch: int = 1, **settings: Any) -> Collector:
    tokenizer = load_tokenizer(str(tiny_model))
    # One at a time by default, so that the padding beside others does not change the last bits.
    engine = of(load_policy(str(tiny_model), tokenizer), ProcessGroup(), batch_size=batch)
    return Collector(
        lambda pool: make_env(task, split_of(pool), {}), engine, Chat(tokenizer), seed=0, **settings
    )


def collect(
    source: Collector,
    recorder: MetricsRecorder | None = None,
    problems: Sequence[int] = (0, 1, 2),
    copies: int = 4,
) -> list[Trajectory]:
    return source.collect("train", problems, copies, SAMPLING, 0, recorder or MetricsRecorder())
