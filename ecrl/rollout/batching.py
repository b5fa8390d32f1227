"""Turns trajectories into optimizer minibatches: filters, advantages, splits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from ecrl.algorithm.advantages import zero_variance
from ecrl.algorithm.objective import Filters, Objective
from ecrl.algorithm.rollout_batch import RolloutBatch, SequenceTokens
from ecrl.hashing import hash_u64
from ecrl.rollout.trajectory import Trajectory


def group_tensors(trajectories: Sequence[Trajectory]) -> tuple[Tensor, Tensor]:
    """Return the rewards ``[B]`` and the group ids ``[B]`` of trajectories."""
    rewards = torch.tensor([t.reward for t in trajectories], dtype=torch.float32)
    return rewards, torch.tensor([t.problem_id for t in trajectories], dtype=torch.long)


def kept_by(filters: Filters, trajectories: Sequence[Trajectory]) -> list[int]:
    """Return the indices of the trajectories to train on, without groups whose rewards are all equal."""
    if not filters.drop_zero_variance:
        return list(range(len(trajectories)))
    dropped = zero_variance(*group_tensors(trajectories)).tolist()
    return [i for i, drop in enumerate(dropped) if not drop]


def build_batch(trajectories: Sequence[Trajectory], objective: Objective, iteration: int) -> RolloutBatch:
    """Build a training batch of trajectories, with their advantages.

    Old log-probs and entropies are the engine's; entropies that it did not report are NaN until scored.
    """
    rewards, group_ids = group_tensors(trajectories)
    sequences = [_sequence(t) for t in trajectories]
    lengths = torch.tensor([t.num_tokens for t in trajectories], dtype=torch.long)
    completions = [turn.completion for t in trajectories for turn in t.turns]
    logprobs = torch.tensor([x for c in completions for x in c.logprobs], dtype=torch.float32)
    entropy = [x for c in completions for x in (c.entropy or [float("nan")] * len(c.token_ids))]
    sample_index = np.asarray([t.sample_index for t in trajectories], np.int64)
    uid = hash_u64(iteration, group_ids.numpy(), sample_index) >> np.uint64(1)
    advantages = objective.estimator(rewards, group_ids) if len(trajectories) else rewards
    return RolloutBatch(
        sequences=sequences,
        lengths=lengths,
        group_ids=group_ids,
        uid=torch.from_numpy(np.atleast_1d(uid).astype(np.int64)),
        rewards=rewards,
        old_logprobs=logprobs,
        engine_logprobs=logprobs,
        old_entropy=torch.tensor(entropy, dtype=torch.float32),
        advantages=torch.repeat_interleave(advantages, lengths),
    )


def sequence_entropy(batch: RolloutBatch) -> Tensor:
    """Return the mean entropy over each sequence's own tokens, ``[B]``, nats."""
    sums = torch.zeros(len(batch)).index_add(0, batch.sequence_ids, batch.old_entropy)
    return sums / batch.lengths


def _sequence(trajectory: Trajectory) -> SequenceTokens:
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
