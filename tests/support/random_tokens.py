"""Random tokens with whole distributions, for comparison with formulas written out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ecrl.algorithm.token_batch import TokenBatch


class Drawn(NamedTuple):
    """Tokens, and the log-probs ``[N, V]`` of the distributions that they come from."""

    tokens: TokenBatch
    distributions: Tensor


def random_tokens(seed: int, sharpness: float = 4.0, vocabulary: int = 7) -> Drawn:
    """Six ragged sequences of three groups in float64, off-policy by noise, advantages by sequence."""
    random = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64)

    lengths = torch.tensor([9, 1, 14, 6, 23, 2])
    n, sequence_ids = int(lengths.sum()), torch.repeat_interleave(torch.arange(6), lengths)
    logits = sharpness * noise(n, vocabulary)
    new, old = logits.log_softmax(1), (logits + 0.5 * noise(n, vocabulary)).log_softmax(1)
    ids = torch.multinomial(old.exp(), 1, generator=random)
    tokens = TokenBatch(
        token_ids=ids.squeeze(1),
        logprobs=new.gather(1, ids).squeeze(1),
        entropy=-(new.exp() * new).sum(1),
        old_logprobs=old.gather(1, ids).squeeze(1),
        engine_logprobs=old.gather(1, ids).squeeze(1),
        advantages=noise(6)[sequence_ids],
        sequence_ids=sequence_ids,
        positions=torch.cat([torch.arange(length) for length in lengths.tolist()]),
        group_ids=sequence_ids // 2,
        uid=sequence_ids,
        low=torch.full((n,), 0.8, dtype=torch.float64),
        high=torch.full((n,), 1.2, dtype=torch.float64),
        clipped=torch.zeros(n, dtype=torch.bool),
    )
    return Drawn(tokens, new)
