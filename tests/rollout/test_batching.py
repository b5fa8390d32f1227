"""Splitting a rollout into minibatches."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ecrl.config.schema import Config
from ecrl.rollout.batching import split_minibatches
from tests.support.conformance import make_batch, make_module


def test_minibatches_partition_the_groups(tiny: Callable[..., Config]) -> None:
    batch = make_batch(make_module(tiny(), []))
    parts = list(split_minibatches(batch, minibatches=4, epochs=2, seed=0, iteration=0))
    assert [p.fresh for p in parts] == [True] + [False] * 7
    for epoch in (parts[:4], parts[4:]):
        assert sorted(u for p in epoch for u in p.uid.tolist()) == sorted(batch.uid.tolist())
        assert all(len(p) % 4 == 0 for p in epoch)  # whole groups
    assert torch.equal(torch.cat([p.uid for p in parts[:4]]), batch.uid)
    assert not torch.equal(torch.cat([p.uid for p in parts[4:]]), batch.uid)
