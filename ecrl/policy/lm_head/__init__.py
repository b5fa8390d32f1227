"""Log-probabilities and entropy of tokens from hidden states, without storing the logits.

    x = (h·Wᵀ + b) / T        logπ = x_y − logsumexp(x)        H = −Σ_v p_v·log p_v

    ∂(g·logπ + k·H)/∂x = g·(onehot(y) − p) − k·p·(log p + H)

The logits are computed tile by tile (some rows, some columns of the vocabulary) and reduced to a running
maximum, mass and first moment; the backward pass recomputes each tile. The element-wise work on a tile is in
``eager`` (any device) and ``kernels`` (Triton); everything else is shared. ``facts`` measures the whole
distribution of each token, without gradient, in two passes over the tiles.
"""

from ecrl.policy.lm_head.facts import vocabulary_facts
from ecrl.policy.lm_head.stats import token_stats
from ecrl.policy.lm_head.vocabulary import VocabShard

__all__ = ["VocabShard", "token_stats", "vocabulary_facts"]
