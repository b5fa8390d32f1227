"""Completions by transformers' own ``generate``, as the reference of our decoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from ecrl.engines.base import Sampling
from ecrl.hashing import uniform
from ecrl.policy.model import PolicyModel


class InverseCDF(LogitsProcessor):
    """Allows only the token at which the row's cumulative distribution passes the row's uniform number."""

    def __init__(self, keys: Sequence[int], temperature: float) -> None:
        self.keys = keys
        self.temperature = temperature
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        cdf = (scores.float() / self.temperature).softmax(-1).double().cumsum(-1).numpy()
        tokens = [
            np.searchsorted(row, float(uniform(key, self.step)) * row[-1], side="right")
            for row, key in zip(cdf, self.keys, strict=True)
        ]
        self.step += 1
        return torch.full_like(scores, -torch.inf).scatter(1, torch.tensor(tokens)[:, None], 0.0)


def generated(
    model: PolicyModel, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
) -> list[list[int]]:
    """Token ids of each completion, all prompts in one padded batch, none shared."""
    width = max(map(len, prompts))
    ids = torch.tensor([[model.pad_id] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    draws = [InverseCDF(keys, sampling.temperature)] if sampling.temperature > 0 else []
    generate: Any = model.lm.generate
    output = generate(
        input_ids=ids,
        attention_mask=mask,
        logits_processor=LogitsProcessorList(draws),
        generation_config=GenerationConfig(
            do_sample=False,
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=model.eos_ids,
            pad_token_id=model.pad_id,
        ),
    )
    rows = []
    for row in output[:, width:].tolist():
        end = next((t for t, token in enumerate(row) if token in model.eos_ids), len(row) - 1)
        rows.append(row[: end + 1])
    return rows
