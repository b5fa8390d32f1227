"""Episodes: what reward shaping and advantage estimators see of a rollout."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor


@dataclass(frozen=True)
class Episodes:
    """``B`` episodes with ``N`` own tokens in all, in the order of the rollout batch.

    Attributes:
        rewards: ``[B]``, the episode's rewards summed, shaping included.
        group_ids: ``[B]`` long, the problem that each episode answers.
        lengths: ``[B]`` long, own tokens of each episode, at least 1.
        truncated: ``[B]`` bool, cut off by a token or turn limit.
        turns: ``[N]`` long, the turn of each own token within its episode, from 0.
        token_rewards: ``[N]``, the reward that arrives with each token: an environment rewards a turn at its
            last token. Shaping of the whole episode arrives at the episode's last token.
        logprobs: ``[N]`` log π_old, nats.
        entropy: ``[N]`` full-vocabulary entropy at rollout time, nats.
        columns: further named ``[N]`` tensors, e.g. ``reference_logprobs`` or a model's process rewards.
    """

    rewards: Tensor
    group_ids: Tensor
    lengths: Tensor
    truncated: Tensor
    turns: Tensor
    token_rewards: Tensor
    logprobs: Tensor
    entropy: Tensor
    columns: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rewards)

    @property
    def sequence_ids(self) -> Tensor:
        """``[N]`` long: the episode of each own token."""
        return torch.repeat_interleave(torch.arange(len(self)), self.lengths)

    @property
    def last_tokens(self) -> Tensor:
        """``[B]`` long: index of each episode's last own token."""
        return self.lengths.cumsum(0) - 1

    def groups(self) -> Iterator[Tensor]:
        """Yield the indices of each problem's episodes."""
        for group in torch.unique(self.group_ids):
            yield (self.group_ids == group).nonzero().flatten()

    def per_episode_sum(self, x: Tensor) -> Tensor:
        """Sum ``[N]`` over each episode: ``[B]``."""
        return x.new_zeros(len(self)).index_add(0, self.sequence_ids, x)

    def returns(self, token_rewards: Tensor) -> Tensor:
        """Sum rewards ``[N]`` from each token to the end of its episode: ``[N]``, without discount."""
        total = token_rewards.double().cumsum(0)
        before = total - token_rewards.double()
        at_end = total[self.last_tokens][self.sequence_ids]
        return (at_end - before).to(token_rewards.dtype)
