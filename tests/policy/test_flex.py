"""Flex attention in the model: it agrees with sdpa, and is compiled for few shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch
from torch import Tensor
from torch._dynamo.exc import FailOnRecompileLimitHit
from torch._dynamo.testing import CompileCounter
from torch.nn.attention.flex_attention import flex_attention

from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.policy import flex
from ecrl.policy.packing import MicroBatch, pack_micro_batches
from ecrl.training.module import PolicyModule
from tests.support.conformance import make_batch, make_module


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[CompileCounter]:
    """Counts the programs that flex attention is compiled to, without the minutes of building them."""
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(flex_attention, backend=counter, dynamic=False, fullgraph=True)
    monkeypatch.setattr(flex, "compiled", lambda: compiled)
    yield counter
    torch._dynamo.reset()


def passes(module: PolicyModule, bucketed: bool) -> list[MicroBatch]:
    """Passes over rollouts of different sizes."""
    sequences = make_batch(module).sequences
    parts = [sequences[:count] * copies for count, copies in ((3, 1), (11, 1), (20, 2), (24, 3), (24, 4))]
    return [m for part in parts for m in pack_micro_batches(part, 512, 512, bucketed=bucketed)]


@torch.no_grad()
def score(module: PolicyModule, attention: str, micro_batches: list[MicroBatch]) -> list[Tensor]:
    module.model.attention = attention
    return [torch.stack(module.model(micro_batch, 1.0)) for micro_batch in micro_batches]


def test_one_program_for_each_shape(tiny: Callable[..., Config], programs: CompileCounter) -> None:
    module = make_module(tiny(), [])
    exact, padded = passes(module, bucketed=False), passes(module, bucketed=True)
    got = score(module, flex.FLEX, padded)
    assert all(map(partial(torch.allclose, atol=1e-5), got, score(module, "sdpa", exact)))
    shapes = [len({m.input_ids.shape for m in micro_batches}) for micro_batches in (exact, padded)]
    assert programs.frame_count == shapes[1] < shapes[0]
    score(module, flex.FLEX, padded)
    assert programs.frame_count == shapes[1]


def test_under_autocast(tiny: Callable[..., Config], programs: CompileCounter) -> None:
    module = make_module(tiny(), [])
    (micro_batch, *_) = passes(module, bucketed=True)
    with torch.autocast("cpu", torch.bfloat16):
        sparse, dense = (score(module, name, [micro_batch])[0] for name in (flex.FLEX, "sdpa"))
    assert torch.allclose(sparse, dense, atol=0.05)


def test_unfused_attention_in_place_of_a_program_is_an_error(
    tiny: Callable[..., Config], programs: CompileCounter, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_module(tiny(), [])
    monkeypatch.setattr(flex, "MOST_PROGRAMS", 2)
    with pytest.raises(FailOnRecompileLimitHit):
        score(module, flex.FLEX, passes(module, bucketed=True))


def test_attention_sinks_are_refused() -> None:
    q = torch.zeros(1, 1, 1, 1)
    with pytest.raises(UsageError, match="sinks"):
        flex.attend(torch.nn.Module(), q, q, q, None, s_aux=torch.zeros(1))  # type: ignore[arg-type]
