"""The loss once more, token by token from transformers' own logits, against the real update path."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.config.schema import Config
from ecrl.training.module import PolicyModule
from tests.support.conformance import gradient, make_batch, make_module

TEMPERATURE = 0.7


def slow_logprobs(module: PolicyModule, batch: RolloutBatch) -> Tensor:
    """Log-probs ``[N]``, one sequence at a time through the whole model."""
    found = []
    for sequence in batch.sequences:
        ids = torch.tensor([sequence.prompt_ids + sequence.response_ids])
        logits = module.model.lm(input_ids=ids).logits[0] / TEMPERATURE
        for step, token in enumerate(sequence.response_ids):
            row = logits[len(sequence.prompt_ids) - 1 + step]
            found.append(row[token] - row.exp().sum().log())
    return torch.stack(found)


def slow_loss(kind: str, logprobs: Tensor, batch: RolloutBatch) -> Tensor:
    """GRPO, Clip-Cov or KL-Cov as the paper writes it, over a Python loop."""
    count = len(logprobs)
    values = logprobs.tolist()
    mean_logprob = sum(values) / count
    mean_advantage = sum(batch.advantages.tolist()) / count
    cov = [
        (x - mean_logprob) * (a - mean_advantage)
        for x, a in zip(values, batch.advantages.tolist(), strict=True)
    ]
    leaders = set(sorted(range(count), key=lambda i: -cov[i])[: int(0.2 * count)])
    total = torch.zeros(())
    for i in range(count):
        advantage = float(batch.advantages[i])
        ratio = (logprobs[i] - batch.old_logprobs[i]).exp()
        clipped = ratio.clamp(0.8, 1.2)
        surrogate = torch.maximum(-advantage * ratio, -advantage * clipped)
        if kind == "grpo":
            total = total + surrogate
        elif kind == "clip_cov":
            outside = (advantage > 0 and float(ratio) > 1.2) or (advantage < 0 and float(ratio) < 0.8)
            if not (0.1 < cov[i] < 2.0 and not outside):  # every candidate is drawn
                total = total + surrogate
        else:
            total = total - advantage * ratio
            if i in leaders:
                total = total + 0.5 * (logprobs[i] - batch.old_logprobs[i]).abs()
    return total / count


STACKS: dict[str, dict[str, Any]] = {
    "grpo": {},
    "clip_cov": {
        "clip_cov": {"_target_": "ecrl.callbacks.ClipCov", "fraction": 1.0, "low": 0.1, "high": 2.0},
    },
    "kl_cov": {"kl_cov": {"_target_": "ecrl.callbacks.KLCov", "fraction": 0.2, "coefficient": 0.5}},
}


@pytest.mark.parametrize("kind", STACKS)
def test_loss_and_gradient_agree(kind: str, tiny: Callable[..., Config]) -> None:
    module = make_module(tiny(f"rollout.temperature={TEMPERATURE}"), build_strategies(STACKS[kind]))
    batch = make_batch(module)
    loss, got, _ = gradient(module, batch)
    module.zero_grad()
    expected = slow_loss(kind, slow_logprobs(module, batch), batch)
    expected.backward()
    parts = [p.grad.flatten() for p in module.model.parameters() if p.grad is not None]
    reference = torch.cat(parts)
    assert loss == pytest.approx(float(expected.detach()), rel=1e-5, abs=1e-6)
    assert (got - reference).norm() < 1e-5 * reference.norm()
