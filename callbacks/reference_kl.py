"""Reference KL: stay near the policy that training started from. https://arxiv.org/abs/2402.03300.

    L + β·Σ_i u_i·D(x_i)      x_i = logπ_i − logπ_ref,i, u the aggregation

``D`` is differentiated as it stands, without importance ratio. What its value and its gradient are, in
expectation over tokens drawn from π (see http://joschu.net/blog/kl-approx.html):

    abs  |x|            value at least KL(π‖π_ref); gradient sign(x)·∇logπ, that of no KL
    k2   ½x²            value KL(π‖π_ref) to second order; gradient x·∇logπ, that of KL(π‖π_ref)
    k3   exp(−x)−1+x    value KL(π‖π_ref); gradient (1 − exp(−x))·∇logπ, that of KL(π_ref‖π)

The tokens are drawn from π_old, so all this holds to first order in the policy's change since.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ecrl.algorithm.strategy import Strategy
from ecrl.training.reference import ReferencePenalty

if TYPE_CHECKING:
    from ecrl.config.schema import Config


class ReferenceKL(ReferencePenalty):
    """Penalise distance from the initial policy. Neutral: ``coefficient=0``.

    Args:
        coefficient: β, not negative; 0 also skips the reference model's pass.
        estimator: ``abs``, ``k2`` or ``k3``.
    """

    def __init__(self, *, coefficient: float = 1e-3, estimator: str = "k3") -> None:
        super().__init__(coefficient=coefficient, estimator=estimator)

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where there is no penalty."""
        return ["coefficient=0, so it does nothing."] if self.coefficient == 0 else []
