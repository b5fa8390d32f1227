"""The transformers engine: reproducible whatever the batch, exact distributions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import (
    GenerationConfig,
)

from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
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


def test_draws_follow_the_distribution() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.2, 1e-12]))
    count = 20000
    sampler = StreamSampler(range(count), SAMPLING)
    drawn = sampler(torch.zeros(count, 1), logits.expand(count, 4)).argmax(-1)
    shares = torch.bincount(drawn, minlength=4) / count
    # Standard deviation of a share is at most 0.0036.
    assert shares.tolist() == pytest.approx([0.5, 0.3, 0.2, 0.0], abs=0.015)
    expected = -(0.5 * torch.log(torch.tensor(0.5)) + 0.3 * logits[1] + 0.2 * logits[2])
    assert float(sampler.entropy[0][0]) == pytest.approx(float(expected), abs=1e-6)


def test_temperature_and_nucleus() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2]])).expand(5000, 3)
    nucleus = StreamSampler(range(5000), Sampling(1.0, 0.6, 1))
    drawn = nucleus(torch.zeros(5000, 1), logits).argmax(-1)
    shares = torch.bincount(drawn, minlength=3) / 5000
    assert shares.tolist() == pytest.approx([0.625, 0.375, 0.0], abs=0.03)
    # Log-probs are those of the whole vocabulary, so that the policy can be compared with itself.
    assert float(nucleus.logprobs[0].max()) == pytest.approx(float(logits[0, 0]), abs=1e-6)
    cold = StreamSampler([0], Sampling(0.5, 1.0, 1))
    cold(torch.zeros(1, 1), logits[:1])
    # p ∝ p^(1/T): 0.25, 0.09, 0.04 over 0.38
    entropy = -sum(p / 0.38 * torch.log(torch.tensor(p / 0.38)) for p in (0.25, 0.09, 0.04))
    assert float(cold.entropy[0]) == pytest.approx(float(entropy), abs=1e-6)


def test_greedy_equals_transformers(engine: HFEngine) -> None:
    model = engine.model
    (got,) = engine.generate([PROMPTS[1]], Sampling(0.0, 1.0, 8), [0])
    plain = model.lm.generate(
        input_ids=torch.tensor([PROMPTS[1]]),
        attention_mask=torch.ones(1, 6, dtype=torch.long),
        generation_config=GenerationConfig(
            do_sample=False, max_new_tokens=8, eos_token_id=model.eos_ids, pad_token_id=model.pad_id
        ),
    )
    assert got.token_ids == plain[0, 6:].tolist()
