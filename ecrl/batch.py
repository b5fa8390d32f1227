"""The data that flows through training: completions, trajectories, rollout batches, token batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Literal

import torch
from torch import Tensor

from ecrl.hashing import hash_u64

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Completion:
    """What an engine drew for one prompt.

    Attributes:
        token_ids: the drawn tokens, the end-of-sequence token included where it was drawn.
        logprobs: log-probability of each token under the full-vocabulary distribution at the
            sampling temperature (before top-p), in nats.
        entropy: entropy of that distribution at each token, in nats; None if the engine has none.
        finish_reason: ``stop`` at the end-of-sequence token, ``length`` at the token limit.
        weights_version: the version of the weights that drew it.
    """

    token_ids: list[int]
    logprobs: list[float]
    entropy: list[float] | None
    finish_reason: FinishReason
    weights_version: int


@dataclass(frozen=True)
class Turn:
    """One move of the policy: the environment's tokens that came before it, then its own.

    Attributes:
        context_ids: tokens of the environment since the last turn; never trained on.
        completion: the policy's own tokens.
    """

    context_ids: list[int]
    completion: Completion


@dataclass(frozen=True)
class Trajectory:
    """One episode.

    Attributes:
        prompt_ids: token ids of the first observation.
        turns: the policy's moves; the first has no context of its own.
        problem_id: identifies the problem; trajectories that share it form a group.
        copy: index of this trajectory within its group.
        reward: sum of the episode's rewards.
        terminated: the episode ended by itself.
        truncated: it was cut off by a token or turn limit.
        metrics: numbers the environment reported at the end.
        answer: the extracted final answer, for majority votes; None if there is none.
        prompt: the first observation as text.
        response: the policy's own text.
    """

    prompt_ids: list[int]
    turns: list[Turn]
    problem_id: int
    copy: int
    reward: float
    terminated: bool
    truncated: bool
    metrics: Mapping[str, float]
    answer: str | None
    prompt: str
    response: str

    @property
    def num_tokens(self) -> int:
        """Number of tokens the policy itself wrote."""
        return sum(len(turn.completion.token_ids) for turn in self.turns)


@dataclass(frozen=True)
class SequenceTokens:
    """Token ids of one trajectory, as the policy reads them.

    Attributes:
        prompt_ids: the first observation.
        tail_ids: all that follows: own tokens, and the environment's between turns.
        own: for each tail token, whether the policy wrote it.
    """

    prompt_ids: list[int]
    tail_ids: list[int]
    own: list[bool]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.tail_ids)


@dataclass(frozen=True)
class RolloutBatch:
    """Trajectories ready for training: ``B`` sequences with ``N`` own tokens in all.

    Attributes:
        sequences: the ``B`` sequences' token ids, ragged.
        lengths: ``[B]`` long, own tokens of each sequence.
        group_ids: ``[B]`` long, the problem each sequence answers.
        uid: ``[B]`` long, identity of each sequence, stable under any split.
        rewards: ``[B]``.
        old_logprobs: ``[N]`` log-probabilities at rollout time by the trainer's own weights, nats.
        engine_logprobs: ``[N]`` the same by the engine, nats.
        old_entropy: ``[N]`` full-vocabulary entropy at rollout time, nats.
        advantages: ``[N]``.
        columns: further named ``[N]`` tensors.
        temperature: of the softmax that it was drawn with, and is scored with.
        fresh: the stored log-probs are those of the current weights (no update since the rollout).
    """

    sequences: list[SequenceTokens]
    lengths: Tensor
    group_ids: Tensor
    uid: Tensor
    rewards: Tensor
    old_logprobs: Tensor
    engine_logprobs: Tensor
    old_entropy: Tensor
    advantages: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    temperature: float = 1.0
    fresh: bool = False

    def __len__(self) -> int:
        return len(self.sequences)

    @property
    def num_tokens(self) -> int:
        """Number of own tokens, ``N``."""
        return self.old_logprobs.shape[0]

    @property
    def sequence_ids(self) -> Tensor:
        """``[N]`` long: the sequence of each own token."""
        return torch.repeat_interleave(torch.arange(len(self)), self.lengths)

    @property
    def positions(self) -> Tensor:
        """``[N]`` long: index of each own token within its sequence's own tokens."""
        starts = self.lengths.cumsum(0) - self.lengths
        return torch.arange(self.num_tokens) - torch.repeat_interleave(starts, self.lengths)

    @property
    def token_ids(self) -> Tensor:
        """``[N]`` long: the own tokens."""
        own = [t for s in self.sequences for t, mine in zip(s.tail_ids, s.own, strict=True) if mine]
        return torch.tensor(own, dtype=torch.long)

    def select(self, index: Tensor) -> RolloutBatch:
        """Take the sequences at ``index``, in that order."""
        token_index = self.token_index(index)
        return replace(
            self,
            sequences=[self.sequences[i] for i in index.tolist()],
            **{name: getattr(self, name)[index] for name in ("lengths", "group_ids", "uid", "rewards")},
            **{
                name: getattr(self, name)[token_index]
                for name in ("old_logprobs", "engine_logprobs", "old_entropy", "advantages")
            },
            columns={name: column[token_index] for name, column in self.columns.items()},
        )

    def token_index(self, index: Tensor) -> Tensor:
        """Indices of the own tokens of the sequences at ``index``, in that order."""
        starts = self.lengths.cumsum(0) - self.lengths
        spans = [torch.arange(int(starts[i]), int(starts[i] + self.lengths[i])) for i in index.tolist()]
        return torch.cat(spans) if spans else torch.zeros(0, dtype=torch.long)

    def tokens(self, key: int, low: float, high: float) -> TokenBatch:
        """View the batch as tokens whose current policy is the policy of the rollout."""
        spread = self.sequence_ids
        return TokenBatch(
            token_ids=self.token_ids,
            logprobs=self.old_logprobs,
            entropy=self.old_entropy,
            old_logprobs=self.old_logprobs,
            engine_logprobs=self.engine_logprobs,
            advantages=self.advantages,
            sequence_ids=spread,
            positions=self.positions,
            group_ids=self.group_ids[spread],
            uid=self.uid[spread],
            low=torch.full_like(self.old_logprobs, low),
            high=torch.full_like(self.old_logprobs, high),
            key=key,
            columns=self.columns,
        )


@dataclass(frozen=True)
class TokenBatch:
    """Per-token facts, flat over the policy's own response tokens only: no padding, no masks.

    ``N`` is the number of tokens, ``B`` of sequences. During planning the batch holds all tokens of
    the optimizer minibatch; during a micro-batch pass it holds that micro-batch's tokens.

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
    def clipped_high(self) -> Tensor:
        """``[N]`` bool: the upper PPO bound is active."""
        return (self.log_ratio.exp() > self.high) & (self.advantages > 0)

    @property
    def clipped_low(self) -> Tensor:
        """``[N]`` bool: the lower PPO bound is active."""
        return (self.log_ratio.exp() < self.low) & (self.advantages < 0)

    @property
    def clipped(self) -> Tensor:
        """``[N]`` bool: a PPO bound is active, so the token has no gradient under a clipped surrogate."""
        return self.clipped_high | self.clipped_low

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

        Ties are broken by each token's hash, so the choice does not depend on order or partition.

        Args:
            x: ``[N]``.
            fraction: share of all tokens, in [0, 1].

        Returns:
            ``[N]`` bool.
        """
        count = self._count(fraction)
        # Two stable sorts: by hash, then by value; equal values keep their hash order.
        by_hash = torch.argsort(self._hash(), stable=True)
        order = by_hash[torch.argsort(x.detach()[by_hash], descending=True, stable=True)]
        return self._mark(order[:count])

    def sample(self, candidates: Tensor, fraction: float) -> Tensor:
        """Draw ``max(⌊fraction·N⌋, 1)`` of the candidates uniformly (all, if there are fewer).

        Args:
            candidates: ``[N]`` bool.
            fraction: share of all tokens (not of the candidates), in [0, 1]; 0 draws none.

        Returns:
            ``[N]`` bool.
        """
        index = candidates.nonzero().flatten()
        order = index[torch.argsort(self._hash()[index], stable=True)]
        return self._mark(order[: self._count(fraction)])

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
        return max(int(fraction * len(self) + 1e-9), 1) if fraction > 0 else 0

    def _mark(self, index: Tensor) -> Tensor:
        mask = torch.zeros(len(self), dtype=torch.bool, device=self.token_ids.device)
        mask[index] = True
        return mask

    def _hash(self) -> Tensor:
        codes = hash_u64(self.key, self.uid.cpu().numpy(), self.positions.cpu().numpy())
        return torch.from_numpy((codes >> 1).astype("int64")).to(self.token_ids.device)
