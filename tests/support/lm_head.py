"""The plain formula of log-probs and entropy, and random problems."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float = 1.0, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    logits = torch.nn.functional.linear(hidden, weight, bias) / temperature
    logp = torch.log_softmax(logits, -1)
    return logp.gather(1, targets[:, None]).squeeze(1), -(logp.exp() * logp).sum(-1)


def problem(n: int, v: int, d: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    shapes = {"hidden": (n, d), "weight": (v, d), "bias": (v,)}
    made = {k: torch.randn(s, generator=random, dtype=dtype).requires_grad_() for k, s in shapes.items()}
    return {**made, "targets": torch.randint(v, (n,), generator=random)}


def gradients(
    function: Callable[..., tuple[Tensor, Tensor]], inputs: dict[str, Tensor], g: Tensor, k: Tensor, **kw: Any
) -> list[Tensor]:
    logprobs, entropy = function(**inputs, **kw)
    wanted = [t for t in inputs.values() if t.requires_grad]
    return list(torch.autograd.grad((g * logprobs + k * entropy).sum(), wanted))
