"""Responses as the columns of a part of ``rollouts/``: see ``ecrl.runs.rollouts`` for their meaning."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ecrl.algorithm.covariance import token_covariance
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.rollout.batching import sequence_tokens
from ecrl.rollout.trajectory import Trajectory

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class TrainedTokens:
    """What the update knows of a response's ``n`` own tokens; the last are None where it did not reach them.

    Attributes:
        old_logprobs: ``[n]``, nats.
        old_entropy: ``[n]``, nats.
        advantages: ``[n]``, before the strategies.
        columns: ``[n]`` each, by name.
        logprobs: ``[n]`` of the policy at their update, nats.
        token_entropy: ``[n]`` of the policy at their update, nats.
        covariances: ``[n]`` over their optimizer minibatch.
    """

    old_logprobs: Floats
    old_entropy: Floats
    advantages: Floats
    columns: Mapping[str, Floats]
    logprobs: Floats | None
    token_entropy: Floats | None
    covariances: Floats | None


@dataclass(frozen=True)
class ScoredTokens:
    """What is kept of an optimizer minibatch until its rollout is written: ``B`` sequences, ``N`` tokens.

    Attributes:
        uids: ``[B]``, identities of the sequences.
        lengths: ``[B]`` long.
        logprobs: ``[N]`` of the policy at the update, nats.
        entropy: ``[N]`` of the policy at the update, nats.
        covariances: ``[N]``.
    """

    uids: list[int]
    lengths: Tensor
    logprobs: Tensor
    entropy: Tensor
    covariances: Tensor


def scored_tokens(tokens: TokenBatch) -> ScoredTokens:
    """Take what is kept of an optimizer minibatch with final advantages, as the update scored it."""
    lengths = tokens.lengths.long()
    uids = tokens.uid[lengths.cumsum(0) - lengths].tolist()
    covariances = token_covariance(tokens.logprobs, tokens.advantages)
    return ScoredTokens(uids, lengths, tokens.logprobs, tokens.entropy, covariances)


def trained_tokens(batch: RolloutBatch, scored: Sequence[ScoredTokens]) -> list[TrainedTokens]:
    """Cut what an update knows of its tokens into responses, in the order of the batch.

    Args:
        batch: all that trains in an iteration.
        scored: the minibatches of one pass over it.
    """
    found: dict[int, tuple[Floats, Floats, Floats]] = {}
    for tokens in scored:
        parts = (_cut(x, tokens.lengths) for x in (tokens.logprobs, tokens.entropy, tokens.covariances))
        found |= dict(zip(tokens.uids, zip(*parts, strict=True), strict=True))
    own = (_cut(x, batch.lengths) for x in (batch.old_logprobs, batch.old_entropy, batch.advantages))
    columns = {name: _cut(column, batch.lengths) for name, column in batch.columns.items()}
    result = []
    for i, (uid, logprobs, entropy, advantages) in enumerate(zip(batch.uid.tolist(), *own, strict=True)):
        added = {name: column[i] for name, column in columns.items()}
        at_update = found.get(uid, (None, None, None))
        result.append(TrainedTokens(logprobs, entropy, advantages, added, *at_update))
    return result


def _cut(x: Tensor, lengths: Tensor) -> list[Floats]:
    """Cut ``[N]`` into pieces of the given lengths."""
    ends = lengths.cumsum(0).tolist()
    values = x.detach().float().numpy()
    return [values[start:end] for start, end in zip([0, *ends], ends, strict=False)]


def response_columns(
    trajectories: Sequence[Trajectory],
    iteration: int,
    trained: Sequence[TrainedTokens | None],
    greedy: bool = False,
) -> dict[str, list[Any]]:
    """Return the columns that every part has.

    Args:
        trajectories: the responses.
        iteration: of the part.
        trained: what the update knows of each response; None for one that does not train.
        greedy: whether they are the greedy answers of a validation.
    """
    count = len(trajectories)
    return {
        "iteration": [iteration] * count,
        "problem": [t.problem_id for t in trajectories],
        "copy": [t.sample_index for t in trajectories],
        "prompt": [_text(t.prompt) for t in trajectories],
        "response": [_text(t.response) for t in trajectories],
        "reward": [t.reward for t in trajectories],
        "metrics": [[{"name": k, "value": float(v)} for k, v in t.metrics.items()] for t in trajectories],
        "answer": [_text(t.answer) for t in trajectories],
        "gold": [_text(t.gold) for t in trajectories],
        "truncated": [t.truncated for t in trajectories],
        "failed": [t.failed for t in trajectories],
        "overlong": [t.overlong for t in trajectories],
        "trained": [x is not None for x in trained],
        "greedy": [greedy] * count,
        "turns": [len(t.turns) for t in trajectories],
        "length": [t.num_tokens for t in trajectories],
        "version": [min(t.versions, default=None) for t in trajectories],
        "logprob": [_mean(_engine_logprobs(t)) for t in trajectories],
        "entropy": [_mean(_engine_entropy(t)) for t in trajectories],
        "advantage": [_mean(x.advantages if x else None) for x in trained],
        "covariance": [_mean(x.covariances if x else None) for x in trained],
    }


def token_columns(
    trajectories: Sequence[Trajectory],
    trained: Sequence[TrainedTokens | None],
    text_of: Callable[[int], str],
) -> dict[str, list[Any]]:
    """Return the further columns of a part with tokens; ``text_of`` decodes a token."""
    sequences = [sequence_tokens(t) for t in trajectories]
    of_update = ("old_logprobs", "old_entropy", "logprobs", "token_entropy", "advantages", "covariances")
    return {
        "prompt_ids": [s.prompt_ids for s in sequences],
        "response_ids": [s.response_ids for s in sequences],
        "own": [s.own for s in sequences],
        "turn_lengths": [[len(turn.completion.token_ids) for turn in t.turns] for t in trajectories],
        "turn_rewards": [[turn.reward for turn in t.turns] for t in trajectories],
        "token_texts": [[_text(text_of(i)) for i in _own_ids(t)] for t in trajectories],
        "engine_logprobs": [_engine_logprobs(t) for t in trajectories],
        "engine_entropy": [_engine_entropy(t) for t in trajectories],
        **{name: [getattr(x, name) if x else None for x in trained] for name in of_update},
        "columns": [[{"name": k, "values": v} for k, v in x.columns.items()] if x else None for x in trained],
    }


def _own_ids(trajectory: Trajectory) -> Iterator[int]:
    return (i for turn in trajectory.turns for i in turn.completion.token_ids)


def _engine_logprobs(trajectory: Trajectory) -> list[float]:
    return [x for turn in trajectory.turns for x in turn.completion.logprobs]


def _engine_entropy(trajectory: Trajectory) -> list[float] | None:
    parts = [turn.completion.entropy for turn in trajectory.turns]
    return None if None in parts else [x for part in parts for x in part or ()]


def _mean(values: Sequence[float] | Floats | None) -> float | None:
    return None if values is None or not len(values) else float(np.mean(values))


def _text(text: str | None) -> str | None:
    """Return what UTF-8 can hold: an environment may give half a character."""
    return None if text is None else text.encode(errors="replace").decode()
