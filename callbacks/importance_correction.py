"""Importance correction: weigh what the engine drew as if the trainer's old policy had drawn it.

    x_i = logπ_old,i − logμ_i                                  μ: what the engine drew the token with
    ρ_i = exp(x_i)  |  exp(Σ_t x_t)  |  exp(mean_t x_t)        level: token | sequence | geometric
    w_i ← w_i·min(ρ_i, cap)                                    mode: truncate
    w_i ← w_i·ρ_i where floor ≤ ρ_i ≤ cap, else 0              mode: mask

μ is not π_old where the engine computes in other numerics than the trainer, or holds older weights. π_old is
the full-vocabulary distribution at the sampling temperature. So is the default engine's μ: what top-p and
top-k cut off is not corrected there; vLLM's μ is what is left after them, and ρ is then below 1.
Σ and mean run over all response tokens of the sequence. ``sequence`` is the exact importance weight
of a whole response and its variance grows with the length; ``token`` has little variance and some bias;
``geometric`` is no importance weight but a measure of a response's mismatch that its length does not
inflate: use it to mask, with bounds nearer to 1.

Truncated (TIS): https://openreview.net/forum?id=xsonlP8DRV. Masked (MIS): IcePop masks tokens,
https://arxiv.org/abs/2510.18855; https://richardli.xyz/rl-collapse compares the levels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.strategy import Strategy, WeightMixin
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.errors import name_message

if TYPE_CHECKING:
    from ecrl.config.schema import Config

LEVELS = ("token", "sequence", "geometric")
MODES = ("truncate", "mask")


class ImportanceCorrection(Strategy, WeightMixin):
    """Correct the mismatch between engine and trainer. Neutral: any setting, where there is none.

    Args:
        level: ``token``, ``sequence`` or ``geometric``: whose ratio a token is weighed with.
        mode: ``truncate`` (TIS) bounds the ratio from above; ``mask`` (MIS) drops what lies outside.
        cap: largest ratio, at least 1.
        floor: smallest ratio that ``mask`` keeps, in [0, 1]; ``truncate`` has none.
    """

    corrects_staleness = True

    def __init__(
        self, *, level: str = "token", mode: str = "truncate", cap: float = 2.0, floor: float = 0.5
    ) -> None:
        super().__init__()
        if level not in LEVELS:
            raise ValueError(name_message("ImportanceCorrection level", level, LEVELS))
        if mode not in MODES:
            raise ValueError(name_message("ImportanceCorrection mode", mode, MODES))
        if not 1 <= cap < math.inf:
            raise ValueError(f"ImportanceCorrection: cap must be finite and at least 1; got {cap}.")
        if not 0 <= floor <= 1:
            raise ValueError(f"ImportanceCorrection: floor must lie in [0, 1]; got {floor}.")
        self.level = level
        self.mode = mode
        self.cap = cap
        self.floor = floor

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where old log-probs are the engine's."""
        if config.rollout.old_logprobs == "engine":
            return ["rollout.old_logprobs=engine makes π_old and μ the same, so it does nothing. Drop one."]
        return []

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        """Multiply the weights ``[N]`` by the bounded ratios."""
        ratio = self._ratio(tokens)
        if self.mode == "truncate":
            return weights * ratio.clamp(max=self.cap)
        outside = (ratio < self.floor) | (ratio > self.cap)
        return weights * torch.where(outside, 0.0, ratio)

    def _ratio(self, tokens: TokenBatch) -> Tensor:
        x = tokens.old_logprobs - tokens.engine_logprobs
        if self.level == "token":
            return x.exp()
        by_sequence = tokens.per_sequence_sum if self.level == "sequence" else tokens.per_sequence_mean
        return by_sequence(x).exp()[tokens.sequence_ids]
