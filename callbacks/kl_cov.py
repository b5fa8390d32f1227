"""KL-Cov: hold the tokens of highest covariance near the old policy. https://arxiv.org/abs/2505.22617.

    Cov_i = (logπ_i − mean_j logπ_j)·(A_i − mean_j A_j)
    L_i = −A_i·r_i + β·D(x_i)  for the max(⌊fraction·N⌋, 1) largest Cov_i,   L_i = −A_i·r_i  for the others
    x_i = logπ_i − logπ_old,i

Means and ``N`` run over all response tokens of the optimizer minibatch. As in the paper, there is no
PPO clip at all, unless ``keep_clip=True``. The tokens were drawn from π_old and carry no importance
weight in ``D``, so over all tokens (the choice of some biases each of them) its estimators mean:

    abs  |x|            the paper's code: size of the one-sample estimate −x of KL(π_old‖π).
                        Gradient sign(x)·∇logπ: a constant pull, the gradient of neither KL.
    k2   ½x²            both KLs to second order in x. Gradient x·∇logπ.
    k3   exp(−x)−1+x    χ²(π_old‖π) − KL(π_old‖π), which is both KLs to second order.
                        Gradient (1 − exp(−x))·∇logπ.

Every gradient is 0 while π = π_old: with one update per rollout, KL-Cov does nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.covariance import token_covariance
from ecrl.algorithm.losses import KL_ESTIMATORS
from ecrl.algorithm.strategy import PenaltyMixin, RatioMixin, Strategy, share_warnings
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.errors import UsageError, name_message

if TYPE_CHECKING:
    from ecrl.config.schema import Config


#: Log-ratios, in nats, that are rounding if no token has a larger one. The penalty's gradient is 0 while
#: π = π_old, but rounding would give |x| a sign.
UNMOVED = 1e-4


class KLCov(Strategy, RatioMixin, PenaltyMixin):
    """Penalise high-covariance tokens. Neutral: ``coefficient=0, keep_clip=True``.

    Args:
        fraction: share of all tokens to penalise, in [0, 1]: 2e-3 is 0.2 % (the paper's for 7B
            models; 2e-4 for 32B).
        coefficient: β, not negative.
        estimator: ``abs``, ``k2`` or ``k3``.
        keep_clip: keep the objective's ratio bounds rather than remove them.
    """

    needs_current = True
    needs_updates = True

    def __init__(
        self,
        *,
        fraction: float = 2e-3,
        coefficient: float = 1.0,
        estimator: str = "abs",
        keep_clip: bool = False,
    ) -> None:
        super().__init__()
        if not 0 <= fraction <= 1:
            raise ValueError(f"KLCov: fraction is a share of the tokens, in [0, 1]; got {fraction}.")
        if not 0 <= coefficient < math.inf:
            raise ValueError(f"KLCov: coefficient must be finite and not negative; got {coefficient}.")
        if estimator not in KL_ESTIMATORS:
            raise ValueError(name_message("KL estimator", estimator, KL_ESTIMATORS))
        self.fraction = fraction
        self.coefficient = coefficient
        self.estimator = estimator
        self.keep_clip = keep_clip

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Refuse a second opinion on the bounds it removes; warn where no token feels the penalty."""
        bounding = (s for s in others if not isinstance(s, KLCov) and isinstance(s, RatioMixin))
        rivals = [s.name for s in bounding if s.sets_bounds]
        if rivals and not self.keep_clip:
            raise UsageError(
                f"{self.name} removes the ratio bounds that {', '.join(rivals)} sets, so one of them would "
                f"do nothing. Drop one, or keep the bounds with strategy.{self.name}.keep_clip=true."
            )
        warnings = share_warnings(config, self.fraction)
        if self.fraction == 0 or self.coefficient == 0:
            warnings.append("fraction or coefficient is 0, so no token is penalised.")
        return warnings

    @property
    def sets_bounds(self) -> bool:
        """Whether the bounds are removed."""
        return not self.keep_clip

    def logged_coefficient(self) -> float:
        """Return β."""
        return self.coefficient

    def ratio_bounds(self, tokens: TokenBatch, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
        """Remove the bounds: ``[N]`` of 0 and of infinity."""
        if self.keep_clip:
            return low, high
        return torch.zeros_like(low), torch.full_like(high, torch.inf)

    def penalty_coefficients(self, tokens: TokenBatch) -> Tensor:
        """Give β to the top tokens by covariance, 0 to the others: ``[N]``."""
        if tokens.log_ratio.abs().max() < UNMOVED:
            return torch.zeros_like(tokens.old_logprobs)
        return self.coefficient * self.chosen(tokens).to(tokens.old_logprobs.dtype)

    def chosen(self, tokens: TokenBatch) -> Tensor:
        """Mark the top tokens by covariance, ``[N]`` bool."""
        return tokens.top_fraction(token_covariance(tokens.logprobs, tokens.advantages), self.fraction)

    def penalty(self, tokens: TokenBatch) -> Tensor:
        """Estimate the divergence from π_old, ``[N]``, nats."""
        return KL_ESTIMATORS[self.estimator](tokens.log_ratio)
