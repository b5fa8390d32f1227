"""Muon for the weight matrices of the layers, AdamW for the embedding, the LM head and the vectors.

Muon: https://kellerjordan.github.io/posts/muon/; its step scaled to AdamW's size: https://arxiv.org/abs/2502.16982.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ecrl.policy.model import PolicyModel
from ecrl.policy.weights import full_tensor, local_part, local_tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315  # of the quintic iteration
_ITERATIONS = 5
_TINY = 1e-7


class Muon(torch.optim.Optimizer):
    """Moves each matrix of the layers by its momentum with all singular values near 1.

        m ← μ·m + (1 − μ)·g        W ← (1 − lr·λ)·W − 0.2·lr·√max(rows, columns)·orthogonal((1 − μ)·g + μ·m)

    The factor gives a step the root mean square of AdamW's, so one learning rate serves both. A sharded
    matrix is gathered before it is made orthogonal, on every process: the step is the same however the model
    is spread.

    Args:
        model: the policy; its parameters that need a gradient are trained.
        lr: learning rate of both.
        weight_decay: λ of both.
        momentum: μ, of the matrices.
        betas: AdamW's decay rates.
        eps: AdamW's.

    Raises:
        ValueError: a number is out of range.
    """

    def __init__(
        self,
        model: PolicyModel,
        lr: float = 1e-3,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        ends: list[Any] = [model.lm.get_input_embeddings(), model.lm.get_output_embeddings()]
        of_ends = {id(p) for module in ends for p in module.parameters()}
        trained = [p for p in model.parameters() if p.requires_grad]
        matrices = [p for p in trained if p.ndim == 2 and id(p) not in of_ends]
        chosen = {id(p) for p in matrices}
        others = [p for p in trained if id(p) not in chosen]
        self._device = model.device
        # Adapters alone may leave AdamW nothing; torch refuses an empty list, but not an empty group.
        self._adamw = torch.optim.AdamW(
            [{"params": others}], lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True
        )
        muon = {"params": matrices, "momentum": momentum}
        super().__init__([muon, *self._adamw.param_groups], {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take one step on the gradients that there are."""
        muon, adamw = self.param_groups
        for parameter in muon["params"]:
            if parameter.grad is not None:
                self._move(parameter, muon)
        # A restored state is another object than the one before.
        self._adamw.state, self._adamw.param_groups = self.state, [adamw]
        self._adamw.step()

    def _move(self, parameter: Tensor, group: dict[str, Any]) -> None:
        state, gradient, lr = self.state[parameter], parameter.grad, group["lr"]
        assert gradient is not None
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        average = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        whole = full_tensor(gradient.lerp(average, group["momentum"]), self._device)
        step = local_part(orthogonal(whole).to(parameter.dtype), parameter)
        size = 0.2 * lr * math.sqrt(max(parameter.shape))
        local_tensor(parameter).mul_(1 - lr * group["weight_decay"]).add_(step, alpha=-size)


def orthogonal(matrix: Tensor) -> Tensor:
    """Bring the singular values of a matrix near 1: five steps ``X ← aX + (bXXᵀ + c(XXᵀ)²)X`` in bfloat16.

    Args:
        matrix: ``[rows, columns]``; of zeros it stays zero.
    """
    tall = matrix.shape[0] > matrix.shape[1]
    x = matrix.bfloat16().T if tall else matrix.bfloat16()
    x = x / x.norm().clamp(min=_TINY)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=_B, alpha=_C), x, beta=_A)
    return x.T if tall else x
