"""Trajectories as tensors: what a rollout gives to training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ecrl.algorithm.episodes import Episodes
from ecrl.algorithm.token_batch import TokenBatch


@dataclass(frozen=True)
class SequenceTokens:
    """Token ids of one trajectory, as the policy reads them.

    Attributes:
        prompt_ids: the first observation.
        response_ids: all that follows: the policy's own tokens, and the environment's between turns.
        own: for each response token, whether the policy wrote it.
    """

    prompt_ids: list[int]
    response_ids: list[int]
    own: list[bool]

    def __len__(self) -> int:
        return len(self.prompt_ids) + len(self.response_ids)


#: Column of the initial policy's log-probs ``[N]``, nats.
REFERENCE_LOGPROBS = "reference_logprobs"
#: Fields of a ``RolloutBatch`` with a number for each sequence, and for each token.
_BY_SEQUENCE = ("lengths", "group_ids", "uid", "rewards", "truncated")
_BY_TOKEN = ("turns", "token_rewards", "old_logprobs", "engine_logprobs", "old_entropy", "advantages")


@dataclass(frozen=True)
class RolloutBatch:
    """Trajectories ready for training: ``B`` sequences with ``N`` own tokens in all.

    Attributes:
        sequences: the ``B`` sequences' token ids, ragged.
        lengths: ``[B]`` long, own tokens of each sequence.
        group_ids: ``[B]`` long, the problem each sequence answers.
        uid: ``[B]`` long, identity of each sequence, stable under any split.
        rewards: ``[B]``, sum of the episode's rewards.
        truncated: ``[B]`` bool, cut off by a token or turn limit.
        turns: ``[N]`` long, the turn of each own token within its sequence, from 0.
        token_rewards: ``[N]``, a turn's reward at the turn's last token.
        old_logprobs: ``[N]`` log-probabilities at rollout time, nats: by the trainer's own weights, or
            left to the engine.
        engine_logprobs: ``[N]`` the same by the engine, nats.
        old_entropy: ``[N]`` full-vocabulary entropy at rollout time, nats.
        advantages: ``[N]``.
        columns: further named ``[N]`` tensors.
        temperature: of the softmax, for sampling and for scoring.
        fresh: no update lies between the rollout and this batch.
        own_logprobs: old log-probs and entropies are the trainer's own, not left to an engine that differs.
    """

    sequences: list[SequenceTokens]
    lengths: Tensor
    group_ids: Tensor
    uid: Tensor
    rewards: Tensor
    truncated: Tensor
    turns: Tensor
    token_rewards: Tensor
    old_logprobs: Tensor
    engine_logprobs: Tensor
    old_entropy: Tensor
    advantages: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    temperature: float = 1.0
    fresh: bool = False
    own_logprobs: bool = True

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
        own = [t for s in self.sequences for t, mine in zip(s.response_ids, s.own, strict=True) if mine]
        return torch.tensor(own, dtype=torch.long)

    def select(self, index: Tensor) -> RolloutBatch:
        """Take the sequences at ``index``, in that order."""
        token_index = self.token_index(index)
        return replace(
            self,
            sequences=[self.sequences[i] for i in index.tolist()],
            **{name: getattr(self, name)[index] for name in _BY_SEQUENCE},
            **{name: getattr(self, name)[token_index] for name in _BY_TOKEN},
            columns={name: column[token_index] for name, column in self.columns.items()},
        )

    def episodes(self) -> Episodes:
        """View the batch as shaping and estimators see it."""
        return Episodes(
            rewards=self.rewards,
            group_ids=self.group_ids,
            lengths=self.lengths,
            truncated=self.truncated,
            turns=self.turns,
            token_rewards=self.token_rewards,
            logprobs=self.old_logprobs,
            entropy=self.old_entropy,
            columns=self.columns,
        )

    def token_index(self, index: Tensor) -> Tensor:
        """Indices of the own tokens of the sequences at ``index``, in that order."""
        starts = self.lengths.cumsum(0) - self.lengths
        spans = [torch.arange(int(starts[i]), int(starts[i] + self.lengths[i])) for i in index.tolist()]
        return torch.cat(spans) if spans else torch.zeros(0, dtype=torch.long)

    def tokens(self, key: int, low: float, high: float) -> TokenBatch:
        """View the batch as tokens whose current policy is the policy of the rollout."""
        sequence_ids = self.sequence_ids
        return TokenBatch(
            token_ids=self.token_ids,
            logprobs=self.old_logprobs,
            entropy=self.old_entropy,
            old_logprobs=self.old_logprobs,
            engine_logprobs=self.engine_logprobs,
            advantages=self.advantages,
            sequence_ids=sequence_ids,
            positions=self.positions,
            group_ids=self.group_ids[sequence_ids],
            uid=self.uid[sequence_ids],
            low=torch.full_like(self.old_logprobs, low),
            high=torch.full_like(self.old_logprobs, high),
            clipped=torch.zeros_like(self.old_logprobs, dtype=torch.bool),
            key=key,
            columns=self.columns,
        )
