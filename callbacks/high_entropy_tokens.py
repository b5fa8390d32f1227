"""80/20: train on the high-entropy minority of tokens only. https://arxiv.org/abs/2506.01939.

    w_i ← w_i·c for the n = max(⌊fraction·N⌋, 1) tokens of highest entropy,   w_i ← 0 for the others

``N`` counts all response tokens of the optimizer minibatch. The paper's formula averages over all of them,
c = 1 (``rescale=false``). The authors' public code averages over the kept tokens, c = N/n, which is the
default here; under another aggregation than the token mean it is the same factor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from ecrl.algorithm.strategy import Strategy, WeightMixin
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.errors import UsageError

if TYPE_CHECKING:
    from ecrl.config.schema import Config


class HighEntropyTokens(Strategy, WeightMixin):
    """Keep the gradient of the "forking" tokens only. Neutral: ``fraction=1``.

    Args:
        fraction: share of the tokens to keep, in (0, 1]: 0.2 is the top 20 %.
        rescale: divide by the number of kept tokens, as the authors' code does, not by that of all tokens,
            as in the paper's formula.
    """

    needs_current = True

    def __init__(self, *, fraction: float = 0.2, rescale: bool = True) -> None:
        super().__init__()
        if not 0 < fraction <= 1:
            raise ValueError(f"HighEntropyTokens: fraction is the share to keep, in (0, 1]; got {fraction}.")
        self.fraction = fraction
        self.rescale = rescale

    def check(self, config: Config, others: Sequence[Strategy]) -> list[str]:
        """Refuse a second one, which would count the dropped tokens twice; warn where all are kept."""
        if twins := [s.name for s in others if isinstance(s, HighEntropyTokens)]:
            raise UsageError(
                f"{self.name} and {twins[0]} both rescale the loss to the tokens that they keep; together "
                "the scale is wrong. Keep the one with the smaller fraction."
            )
        return ["fraction=1 keeps every token, so it does nothing."] if self.fraction == 1 else []

    def weights(self, tokens: TokenBatch, weights: Tensor) -> Tensor:
        """Zero the low-entropy tokens' weights ``[N]`` and scale up the others."""
        kept = tokens.top_fraction(tokens.entropy, self.fraction)
        scale = len(tokens) / max(int(kept.sum()), 1) if self.rescale else 1.0
        return (weights * scale).masked_fill(~kept, 0.0)
