"""EntroPIC: proportional-integral control of the sure tokens' weight. https://arxiv.org/abs/2511.15248.

    e_t = H_t − H*        α_t = clip(K_p·e_t + K_i·Σ_{s≤t} e_s, −1, 1)        once an iteration
    L − α·Σ_i u_i·r_i·|A_i|  over the tokens with π_i > threshold; u the aggregation

Where entropy is short, α is negative: sure tokens are pushed down, whether their answer was right or wrong.
The public code averages the term over the chosen tokens alone; here u counts all tokens, as in the loss.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ecrl.algorithm.strategy import PenaltyMixin, Strategy, within
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.limits import Range
from ecrl.training.observer import EntropyObserver

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.training.module import PolicyModule


class EntroPIC(Strategy, PenaltyMixin, EntropyObserver):
    """Hold the entropy by pushing sure tokens up or down. Neutral: ``proportional=0, integral=0``.

    Defaults are those of the authors' public code.

    Args:
        target: H*, nats, positive.
        proportional: K_p, per nat, not negative.
        integral: K_i, per nat and iteration, not negative.
        threshold: probability above which a token is sure, in (0, 1).
    """

    needs_current = True
    needs_entropy = True

    def __init__(
        self,
        *,
        target: float = 0.1,
        proportional: float = 1.0,
        integral: float = 0.01,
        threshold: float = 0.95,
    ) -> None:
        super().__init__()
        within(self, Range(above=0), target=target)
        within(self, Range(least=0), proportional=proportional, integral=integral)
        if not 0 < threshold < 1:
            raise ValueError(f"EntroPIC: threshold is a probability, in (0, 1); got {threshold}.")
        self.target = target
        self.proportional = proportional
        self.integral = integral
        self.threshold = threshold
        self._total = 0.0
        self._alpha = 0.0

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Warn where α stays 0."""
        inert = self.proportional == self.integral == 0
        return ["both gains are 0, so it does nothing."] if inert else []

    def on_entropy(self, module: PolicyModule, entropy: float) -> None:
        """Move α by the entropy of the fresh rollout."""
        error = entropy - self.target
        self._total += error
        wanted = self.proportional * error + self.integral * self._total
        self._alpha = min(max(wanted, -1.0), 1.0)

    def logged_coefficient(self) -> float:
        """Return α."""
        return self._alpha

    def penalty_coefficients(self, tokens: TokenBatch) -> Tensor:
        """Give −α to the sure tokens, 0 to the others: ``[N]``."""
        sure = tokens.logprobs > math.log(self.threshold)
        return -self._alpha * sure.to(tokens.old_logprobs.dtype)

    def penalty(self, tokens: TokenBatch) -> Tensor:
        """Return ``r·|A|``, ``[N]``."""
        return tokens.ratio * tokens.advantages.abs()

    def state_dict(self) -> dict[str, Any]:
        """Return Σe and α."""
        return {"total": self._total, "alpha": self._alpha}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._total = state_dict["total"]
        self._alpha = state_dict["alpha"]
