"""Tokens as every loss, advantage and strategy sees them: flat, without padding or masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace

import torch
from torch import Tensor

from ecrl.hashing import hash_u64

#: Numbers that differ by less than this share of the largest may differ by rounding only.
ROUNDING = 1e-4
#: Log-ratios beyond it (e^20 is 5e8) are slips of the numbers; exp of 89 is infinite in float32.
LOG_RATIO_LIMIT = 20.0


@dataclass(frozen=True)
class TokenBatch:
    """Per-token facts, flat over the policy's own response tokens only: no padding, no masks.

    ``N`` is the number of tokens, ``B`` of sequences. During planning the batch holds all tokens of
    the optimizer minibatch; during a micro-batch pass it holds that micro-batch's tokens.

    Examples:
        Three tokens of two sequences:

        >>> import torch
        >>> from ecrl import TokenBatch
        >>> zeros, sequence_ids = torch.zeros(3), torch.tensor([0, 0, 1])
        >>> tokens = TokenBatch(
        ...     token_ids=torch.tensor([7, 8, 9]), logprobs=torch.tensor([-1.0, -3.0, -5.0]), entropy=zeros,
        ...     old_logprobs=zeros, engine_logprobs=zeros, advantages=zeros, sequence_ids=sequence_ids,
        ...     positions=torch.tensor([0, 1, 0]), group_ids=sequence_ids, uid=sequence_ids,
        ...     low=zeros + 0.8, high=zeros + 1.2, clipped=zeros > 0,
        ... )
        >>> tokens.per_sequence_mean(tokens.logprobs)
        tensor([-2., -5.])

    Attributes:
        token_ids: ``[N]`` long.
        logprobs: ``[N]`` log π(y_t | context) at the sampling temperature, nats; has a gradient in a
            micro-batch pass.
        entropy: ``[N]`` full-vocabulary entropy, nats; has a gradient in a micro-batch pass if asked for.
        old_logprobs: ``[N]`` log π_old, the policy at rollout time, nats.
        engine_logprobs: ``[N]`` the log-probability that the engine drew each token with, nats.
        advantages: ``[N]``.
        sequence_ids: ``[N]`` long, 0..B-1 within this batch, non-decreasing.
        positions: ``[N]`` long, index of the token within its own sequence's response.
        group_ids: ``[N]`` long, the problem each token's sequence answers.
        uid: ``[N]`` long, identity of the sequence across batches and partitions.
        low: ``[N]`` lower bound of the ratio, dimensionless.
        high: ``[N]`` upper bound of the ratio, dimensionless.
        clipped: ``[N]`` bool, the surrogate gives the token no gradient; known once advantages and bounds
            are final, so to the hooks of weights and penalties.
        key: hash key of (seed, optimizer step, strategy), for reproducible choice.
        columns: further named ``[N]`` tensors that strategies asked for (e.g. reference log-probs).
    """

    token_ids: Tensor
    logprobs: Tensor
    entropy: Tensor
    old_logprobs: Tensor
    engine_logprobs: Tensor
    advantages: Tensor
    sequence_ids: Tensor
    positions: Tensor
    group_ids: Tensor
    uid: Tensor
    low: Tensor
    high: Tensor
    clipped: Tensor
    key: int = 0
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.token_ids.shape[0]

    @property
    def num_sequences(self) -> int:
        """Number of sequences with at least one token here."""
        return int(self.sequence_ids[-1]) + 1 if len(self) else 0

    @property
    def log_ratio(self) -> Tensor:
        """``[N]`` log π − log π_old, nats."""
        return self.logprobs - self.old_logprobs

    @property
    def ratio(self) -> Tensor:
        """``[N]`` importance ratio π/π_old, its logarithm clamped to ±20: finite, and so is its gradient."""
        return self.log_ratio.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT).exp()

    def per_sequence_sum(self, x: Tensor) -> Tensor:
        """Sum ``[N]`` over each sequence: ``[B]``."""
        return x.new_zeros(self.num_sequences).index_add(0, self.sequence_ids, x)

    def per_sequence_mean(self, x: Tensor) -> Tensor:
        """Mean of ``[N]`` over each sequence: ``[B]``."""
        return self.per_sequence_sum(x) / self.lengths

    @property
    def lengths(self) -> Tensor:
        """``[B]`` number of tokens of each sequence, as float."""
        return self.per_sequence_sum(torch.ones_like(self.old_logprobs))

    def top_fraction(self, x: Tensor, fraction: float) -> Tensor:
        """Mark the ``max(⌊fraction·N⌋, 1)`` largest entries of ``x``; none where ``fraction`` is 0.

        Tokens in the same context have the same entropy, but for rounding that depends on how sequences were
        packed. So numbers that lie next to the smallest chosen one count as ties with it, and ties are broken
        by each token's hash: the choice depends on neither order nor partition.

        Args:
            x: ``[N]``.
            fraction: share of all tokens, in [0, 1].

        Returns:
            ``[N]`` bool.
        """
        x, count = x.detach(), self._count(fraction)
        if not count:
            return torch.zeros_like(x, dtype=torch.bool)
        smallest = x.topk(count).values[-1]
        margin = ROUNDING * x.abs().max()
        above = x > smallest + margin
        tied = ~above & (x >= smallest - margin)
        return above | self._draw(tied, count - int(above.sum()))

    def top_of_sequences(self, x: Tensor, fraction: float) -> Tensor:
        """Mark the tokens above the ``1 − fraction`` quantile of their own sequence.

        Of a sequence with ``n`` tokens these are the ``n − 1 − ⌊(1 − fraction)·(n − 1)⌋`` largest, none of a
        single token. Numbers next to the smallest chosen one are ties, as in ``top_fraction``.

        Args:
            x: ``[N]``.
            fraction: in [0, 1].

        Returns:
            ``[N]`` bool.
        """
        x, owner = x.detach(), self.sequence_ids
        if not len(x):
            return torch.zeros_like(x, dtype=torch.bool)
        lengths = torch.bincount(owner)
        counts = lengths - 1 - ((1 - fraction) * (lengths - 1) + 1e-9).long()
        last = _ranks(-x, owner) == (counts - 1)[owner]
        smallest = x.new_full(lengths.shape, torch.inf).scatter(0, owner[last], x[last])[owner]
        margin = ROUNDING * x.abs().max()
        above = x > smallest + margin
        tied = (~above & (x >= smallest - margin)).nonzero().flatten()
        left = counts - torch.bincount(owner[above], minlength=len(counts))
        drawn = _ranks(self._codes(tied), owner[tied]) < left[owner[tied]]
        return above.index_fill(0, tied[drawn], True)

    def sample(self, candidates: Tensor, fraction: float) -> Tensor:
        """Draw ``max(⌊fraction·N⌋, 1)`` of the candidates uniformly (all, if there are fewer).

        Args:
            candidates: ``[N]`` bool.
            fraction: share of all tokens (not of the candidates), in [0, 1]; 0 draws none.

        Returns:
            ``[N]`` bool.
        """
        return self._draw(candidates, self._count(fraction))

    def select(self, index: Tensor) -> TokenBatch:
        """Take some tokens, renumbering the sequences that remain."""
        changes: dict[str, object] = {
            f.name: getattr(self, f.name)[index]
            for f in fields(self)
            if isinstance(getattr(self, f.name), Tensor)
        }
        _, changes["sequence_ids"] = torch.unique(self.sequence_ids[index], return_inverse=True)
        changes["columns"] = {name: column[index] for name, column in self.columns.items()}
        return replace(self, **changes)  # type: ignore[arg-type]

    def _count(self, fraction: float) -> int:
        # 1e-9: 0.29 * 100 is 28.999… in floating point, and 29 tokens are meant.
        return min(max(int(fraction * len(self) + 1e-9), 1), len(self)) if fraction > 0 else 0

    def _draw(self, candidates: Tensor, count: int) -> Tensor:
        """Mark the ``count`` candidates with the smallest hashes."""
        index = candidates.nonzero().flatten()
        order = self._codes(index).argsort(stable=True)
        return torch.zeros_like(candidates).index_fill(0, index[order[:count]], True)

    def _codes(self, index: Tensor) -> Tensor:
        """A hash of each token at ``index``: long, not negative, the same in any order and partition."""
        codes = hash_u64(self.key, self.uid[index].cpu().numpy(), self.positions[index].cpu().numpy())
        return torch.from_numpy((codes >> 1).astype("int64")).to(index.device)


def _ranks(x: Tensor, owner: Tensor) -> Tensor:
    """Place ``[N]`` of each number among those of the same owner by ascending ``x``, from 0."""
    order = x.argsort(stable=True)
    order = order[owner[order].argsort(stable=True)]
    counts = torch.bincount(owner)
    places = torch.arange(len(x), device=x.device) - (counts.cumsum(0) - counts)[owner[order]]
    return torch.empty_like(order).scatter(0, order, places)
