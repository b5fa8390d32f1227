"""Turns trajectories into optimizer minibatches: filters, advantages, splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ecrl.algorithm.advantages import group_mean, zero_variance
from ecrl.algorithm.objective import Filters, Objective
from ecrl.algorithm.rollout_batch import RolloutBatch, SequenceTokens
from ecrl.hashing import hash_u64
from ecrl.rollout.trajectory import Trajectory


def group_tensors(trajectories: Sequence[Trajectory]) -> tuple[Tensor, Tensor]:
    """Return the rewards ``[B]`` and the group ids ``[B]`` of trajectories."""
    rewards = torch.tensor([t.reward for t in trajectories], dtype=torch.float32)
    return rewards, torch.tensor([t.problem_id for t in trajectories], dtype=torch.long)


def kept_by(filters: Filters, trajectories: Sequence[Trajectory]) -> list[int]:
    """Return the indices of the trajectories to train on: those of groups that pass the filters."""
    rewards, group_ids = group_tensors(trajectories)
    accuracy = group_mean(rewards, group_ids)
    kept = torch.ones_like(group_ids, dtype=torch.bool)
    if filters.min_accuracy is not None:
        kept &= accuracy >= filters.min_accuracy
    if filters.max_accuracy is not None:
        kept &= accuracy <= filters.max_accuracy
    if filters.drop_zero_variance:
        kept &= ~zero_variance(rewards, group_ids)
    return kept.nonzero().flatten().tolist()


def build_batch(trajectories: Sequence[Trajectory], iteration: int) -> RolloutBatch:
    """Build a training batch of trajectories, without advantages (0): see ``with_advantages``.

    Old log-probs and entropies are the engine's; entropies that it did not report are NaN until scored.
    """
    rewards, group_ids = group_tensors(trajectories)
    turns = [(number, turn) for t in trajectories for number, turn in enumerate(t.turns)]
    sizes = torch.tensor([len(turn.completion.token_ids) for _, turn in turns], dtype=torch.long)
    completions = [turn.completion for _, turn in turns]
    logprobs = torch.tensor([x for c in completions for x in c.logprobs], dtype=torch.float32)
    entropy = [x for c in completions for x in (c.entropy or [float("nan")] * len(c.token_ids))]
    token_rewards = torch.zeros_like(logprobs)
    token_rewards[sizes.cumsum(0) - 1] = torch.tensor([turn.reward for _, turn in turns])
    sample_index = torch.tensor([t.sample_index for t in trajectories], dtype=torch.long)
    return RolloutBatch(
        sequences=[sequence_tokens(t) for t in trajectories],
        lengths=torch.tensor([t.num_tokens for t in trajectories], dtype=torch.long),
        group_ids=group_ids,
        uid=identities(iteration, group_ids, sample_index),
        rewards=rewards,
        truncated=torch.tensor([t.truncated for t in trajectories], dtype=torch.bool),
        turns=torch.repeat_interleave(torch.tensor([n for n, _ in turns], dtype=torch.long), sizes),
        token_rewards=token_rewards,
        old_logprobs=logprobs,
        engine_logprobs=logprobs,
        old_entropy=torch.tensor(entropy, dtype=torch.float32),
        advantages=torch.zeros_like(logprobs),
    )


def identities(iteration: int, group_ids: Tensor, sample_index: Tensor) -> Tensor:
    """Return what identifies each sequence, ``[B]`` long: the same in any split of the batch.

    Args:
        iteration: that trains on them, from 0.
        group_ids: ``[B]`` long.
        sample_index: ``[B]`` long, index of each sequence within its group.
    """
    uid = hash_u64(iteration, group_ids.numpy(), sample_index.numpy()) >> np.uint64(1)
    return torch.from_numpy(np.atleast_1d(uid).astype(np.int64))


def with_advantages(batch: RolloutBatch, objective: Objective) -> RolloutBatch:
    """Shape the rewards and estimate the advantages, once log-probs and columns are final."""
    if not len(batch):
        return batch
    return replace(batch, advantages=objective.advantages(batch.episodes()))


def sequence_entropy(batch: RolloutBatch) -> Tensor:
    """Return the mean entropy over each sequence's own tokens, ``[B]``, nats."""
    sums = torch.zeros(len(batch)).index_add(0, batch.sequence_ids, batch.old_entropy)
    return sums / batch.lengths


def sequence_tokens(trajectory: Trajectory) -> SequenceTokens:
    """Return the token ids of a trajectory as the policy reads them."""
    response: list[int] = []
    own: list[bool] = []
    for turn in trajectory.turns:
        response += turn.context_ids + turn.completion.token_ids
        own += [False] * len(turn.context_ids) + [True] * len(turn.completion.token_ids)
    return SequenceTokens(trajectory.prompt_ids, response, own)


def split_minibatches(
    batch: RolloutBatch, minibatches: int, epochs: int, seed: int, iteration: int
) -> Iterator[RolloutBatch]:
    """Yield ``minibatches·epochs`` minibatches of whole groups; some are empty if there are few groups.

    The first epoch keeps the order of the rollout; later ones shuffle the groups. Only the first minibatch
    of the first epoch is ``fresh``: no update comes between it and the rollout.
    """
    groups = list(dict.fromkeys(batch.group_ids.tolist()))
    members: dict[int, list[int]] = {group: [] for group in groups}
    for i, group in enumerate(batch.group_ids.tolist()):
        members[group].append(i)
    for epoch in range(epochs):
        if epoch:
            order = np.random.default_rng([seed, iteration, epoch]).permutation(len(groups))
            groups = [groups[i] for i in order]
        for number, part in enumerate(np.array_split(np.asarray(groups, np.int64), minibatches)):
            index = torch.tensor([i for group in part.tolist() for i in members[group]], dtype=torch.long)
            yield replace(batch.select(index), fresh=epoch == 0 and number == 0)
