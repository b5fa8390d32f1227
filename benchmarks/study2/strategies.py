"""KL-Cov with the same share of other tokens: does it matter that it takes those of highest covariance?"""

from __future__ import annotations

import torch
from torch import Tensor

from ecrl import TokenBatch
from ecrl.algorithm.covariance import token_covariance
from ecrl.callbacks import KLCov


class RandomKLCov(KLCov):
    """Penalise a random share of the tokens."""

    def chosen(self, tokens: TokenBatch) -> Tensor:
        """Draw the share uniformly, ``[N]`` bool."""
        return tokens.sample(torch.ones_like(tokens.logprobs, dtype=torch.bool), self.fraction)


class LowestKLCov(KLCov):
    """Penalise the tokens of lowest covariance."""

    def chosen(self, tokens: TokenBatch) -> Tensor:
        """Mark the share with the lowest covariance, ``[N]`` bool."""
        return tokens.top_fraction(-token_covariance(tokens.logprobs, tokens.advantages), self.fraction)
