"""The default engine: reproducible whatever the batch, exact distributions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion, Request, Sampling
from ecrl.engines.hf import HFEngine, StreamSampler
from ecrl.policy.model import load_policy, load_tokenizer

SAMPLING = Sampling(temperature=1.0, top_p=1.0, max_new_tokens=8)


PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25], [30], [40, 41]]


@pytest.fixture
def engine(tiny_model: Path) -> HFEngine:
    return HFEngine(load_policy(str(tiny_model), load_tokenizer(str(tiny_model))), ProcessGroup())


def test_a_completion_depends_on_its_own_key_only(engine: HFEngine) -> None:
    keys = [1, 2, 3, 4]
    together = engine.generate(PROMPTS, SAMPLING, keys)
    alone = [engine.generate([p], SAMPLING, [k])[0] for p, k in zip(PROMPTS, keys, strict=True)]
    backwards = engine.generate(PROMPTS[::-1], SAMPLING, keys[::-1])[::-1]
    engine.batch_size = 3
    split = engine.generate(PROMPTS, SAMPLING, keys)
    for other in (alone, backwards, split):
        assert [c.token_ids for c in other] == [c.token_ids for c in together]
        for a, b in zip(other, together, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)
    assert engine.generate(PROMPTS, SAMPLING, [5, 6, 7, 8])[0].token_ids != together[0].token_ids


def test_requests_with_their_own_sampling_are_answered_or_forgotten(engine: HFEngine) -> None:
    greedy = Sampling(temperature=0.0, max_new_tokens=3)
    want = engine.generate(PROMPTS[:2], SAMPLING, [1, 2]) + engine.generate(PROMPTS[2:], greedy, [3, 4])
    samplings = [SAMPLING, SAMPLING, greedy, greedy]
    requests = [Request(10 + i, PROMPTS[i], 1 + i, samplings[i]) for i in range(4)]
    engine.submit(requests[::2])
    engine.submit(requests[1::2])
    assert dict(engine.poll()) == {10 + i: want[i] for i in range(4)}
    assert engine.poll() == []
    engine.submit(requests)
    engine.cancel()
    assert engine.poll() == []


def draw(logits: Tensor, sampling: Sampling) -> list[Completion]:
    """One token for each row of logits ``[B, V]``."""
    sampler = StreamSampler(range(len(logits)), sampling)
    sampler(logits, np.arange(len(logits)))
    return sampler.completions(eos_ids=[], version=0)


def shares(completions: list[Completion], size: int) -> list[float]:
    counts = np.bincount([c.token_ids[0] for c in completions], minlength=size)
    return list(counts / len(completions))


def test_draws_follow_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2, 1e-12]))
    drawn = draw(logits.expand(20000, 4), SAMPLING)
    # Standard deviation of a share is at most 0.0036.
    assert shares(drawn, 4) == pytest.approx([0.5, 0.3, 0.2, 0.0], abs=0.015)
    expected = -(0.5 * torch.log(torch.tensor(0.5)) + 0.3 * logits[1] + 0.2 * logits[2])
    assert drawn[0].entropy == pytest.approx([float(expected)], abs=1e-6)


def test_temperature_and_nucleus() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(5000, 3)
    nucleus = draw(logits, Sampling(1.0, 0.6, 1))
    assert shares(nucleus, 3) == pytest.approx([0.625, 0.375, 0.0], abs=0.03)
    # Log-probs are those of the whole vocabulary, so that the policy can be compared with itself.
    two = draw(logits, Sampling(1.0, 1.0, 1, top_k=2))
    assert shares(two, 3) == pytest.approx([0.625, 0.375, 0.0], abs=0.03)
    assert shares(draw(logits, Sampling(1.0, 0.6, 1, top_k=2)), 3) == [1.0, 0.0, 0.0]  # 0.6 of those two
    assert max(c.logprobs[0] for c in nucleus) == pytest.approx(float(logits[0, 0]), abs=1e-6)
    (cold,) = draw(logits[:1], Sampling(0.5, 1.0, 1))
    # p ∝ p^(1/T): 0.25, 0.09, 0.04 over 0.38
    entropy = -sum(p / 0.38 * torch.log(torch.tensor(p / 0.38)) for p in (0.25, 0.09, 0.04))
    assert cold.entropy == pytest.approx([float(entropy)], abs=1e-6)
