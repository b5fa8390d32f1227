"""CW-GRPO: a Gaussian kernel on each token's covariance. https://arxiv.org/abs/2605.11538.

    c_i = (logπ_i − mean_j logπ_j)·(A_i − mean_j A_j)      σ = std_j c_j
    v_i = exp(−c_i² / (2·(width·σ)²))
    A_i ← A_i·v_i·N / Σ_j v_j

The tokens whose covariance is extreme, on either side, weigh less; the weights still sum to N. Means, σ and
sum run over all tokens of the optimizer minibatch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.covariance import token_covariance
from ecrl.algorithm.strategy import AdvantageMixin, Strategy, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range

if TYPE_CHECKING:
    from ecrl.config.schema import Config


class CWGRPO(Strategy, AdvantageMixin):
    """Soften the advantages of extreme tokens. Neutral: ``width=null``.

    Args:
        width: of the kernel, in standard deviations of the covariance, positive; 1 is the paper's method.
            None for no limit.
    """

    needs_current = True

    def __init__(self, *, width: float | None = 1.0) -> None:
        super().__init__()
        if width is not None:
            within(self, Range(above=0), width=width)
        self.width = width

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where all advantages stay."""
        return ["width=null keeps every advantage, so it does nothing."] if self.width is None else []

    def advantages(self, tokens: TokenBatch, advantages: Tensor) -> Tensor:
        """Reweigh the advantages ``[N]``."""
        if self.width is None:
            return advantages
        covariance = token_covariance(tokens.logprobs, advantages)
        width = self.width * covariance.std(correction=0)
        scaled = covariance / width.clamp(min=torch.finfo(covariance.dtype).tiny)
        kernel = (-0.5 * scaled.square()).exp()
        return advantages * kernel / kernel.mean()
