"""Lp-Reg: shield unlikely tokens of wrong answers from being extinguished. https://arxiv.org/abs/2510.03222.

    π_proxy(v) = π_old(v) / Σ π_old(u)   over the tokens u, v with π_old ≥ keep·max π_old,   else 0
    candidates = the max(⌊fraction·N⁻⌋, 1) least likely of the N⁻ tokens with A < 0
    L + β·Σ_i u_i·D(logπ_i − logπ_proxy,i)   over the candidates with π_i < π_proxy,i
    D(x) = exp(−x) − 1 + x

The proxy drops what looks like noise and so gives the rest more; a token that is noise itself is not
shielded. N⁻ counts the optimizer minibatch; the proxy is of the policy that the rollout began with, and costs
a pass over it. Defaults are those of the authors' public code, which also takes the chosen tokens out of the
ratio's clip, under bounds of 0 and 10: ``objective.bounds.low=1 objective.bounds.high=9``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import lightning as L
import torch
from torch import Tensor

from ecrl.algorithm.losses import kl_k3
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy import PenaltyMixin, Strategy, share_warnings, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule
    from ecrl.training.scoring import Scorer

#: Column ``[N]``: log π_proxy, nats; ``NONE`` where the proxy does not have the token.
PROXY = "proxy_logprobs"
NONE = -1e4
#: Log-probs that are nearer than this, in nats, may differ by rounding only.
ROUNDING = 1e-4


class LpReg(Strategy, PenaltyMixin):
    """Hold unlikely tokens near a proxy without noise. Neutral: ``coefficient=0``.

    Args:
        fraction: share of the tokens with a negative advantage, in [0, 1]: 0.01 is 1 %.
        keep: share of the largest probability below which a token is noise, in (0, 1].
        coefficient: β, not negative; 0 also skips the pass.
    """

    needs_current = True
    needs_facts = True
    _scorer: Scorer

    def __init__(self, *, fraction: float = 0.01, keep: float = 0.02, coefficient: float = 1.0) -> None:
        super().__init__()
        within(self, Range(least=0, most=1), fraction=fraction)
        within(self, Range(above=0, most=1), keep=keep)
        within(self, Range(least=0), coefficient=coefficient)
        self.fraction = fraction
        self.keep = keep
        self.coefficient = coefficient

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where no token is chosen or penalised."""
        if self.fraction == 0 or self.coefficient == 0:
            return ["fraction or coefficient is 0, so it does nothing."]
        return share_warnings(config, self.fraction)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Keep the scorer."""
        self._scorer = cast("PolicyModule", pl_module).scorer

    def extra_columns(self, batch: RolloutBatch) -> Mapping[str, Tensor]:
        """Score the rollout with the proxy, once: ``[N]``, nats."""
        if self.coefficient == 0:
            return {}
        _, _, proxy = self._scorer.vocabulary_facts(batch, self.keep)
        return {PROXY: proxy.clamp(min=NONE)}

    def logged_coefficient(self) -> float:
        """Return β."""
        return self.coefficient

    def penalty_coefficients(self, tokens: TokenBatch) -> Tensor:
        """Give β to the chosen tokens, 0 to the others: ``[N]``."""
        wrong = tokens.advantages < 0
        if self.coefficient == 0 or not wrong.any():
            return torch.zeros_like(tokens.old_logprobs)
        unlikely = torch.where(wrong, -tokens.logprobs, -1.0)  # below every −logπ
        candidates = tokens.top_fraction(unlikely, self.fraction * float(wrong.double().mean()))
        below = tokens.logprobs < tokens.columns[PROXY] - ROUNDING
        return self.coefficient * (candidates & wrong & below).to(tokens.old_logprobs.dtype)

    def penalty(self, tokens: TokenBatch) -> Tensor:
        """Estimate the divergence from the proxy, ``[N]``, nats."""
        return kl_k3(tokens.logprobs - tokens.columns[PROXY])
