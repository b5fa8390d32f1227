"""Metrics of a rollout: numbers by metric name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ecrl.algorithm.advantages import zero_variance
from ecrl.rollout.batching import group_tensors
from ecrl.rollout.trajectory import Trajectory


def rollout_metrics(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return ``rollout/…``: reward, length, truncation, zero-variance groups; and ``env/…``."""
    rewards, groups = group_tensors(trajectories)
    lengths = np.asarray([t.num_tokens for t in trajectories], np.float64)
    numbers = {
        "rollout/reward": float(rewards.mean()),
        "rollout/reward_std": float(rewards.std(correction=0)),
        "rollout/length": float(lengths.mean()),
        "rollout/length_max": float(lengths.max()),
        "rollout/truncated": float(np.mean([t.truncated for t in trajectories])),
        "rollout/zero_variance": float(zero_variance(rewards, groups).float().mean()),
        "rollout/groups": float(len(set(groups.tolist()))),
        "rollout/completions": float(len(trajectories)),
        "rollout/tokens": float(lengths.sum()),
    }
    if (entropy := rollout_entropy(trajectories)) is not None:
        numbers["rollout/entropy"] = entropy
    for name in sorted({name for t in trajectories for name in t.metrics}):
        values = [t.metrics[name] for t in trajectories if name in t.metrics]
        numbers[f"env/{name}"] = float(np.mean(values))
    return numbers


def rollout_entropy(trajectories: Sequence[Trajectory]) -> float | None:
    """Entropy of all that was drawn, in nats: mean over each response, then over responses.

    https://arxiv.org/abs/2505.22617, eq. 1, there after the filter: that is ``policy/entropy``.

    Returns:
        The mean by the engine's own entropies; None where the engine gives none.
    """
    entropies = [[turn.completion.entropy for turn in t.turns] for t in trajectories]
    if any(turn is None for turns in entropies for turn in turns):
        return None
    return float(np.mean([np.mean([x for turn in turns for x in turn or []]) for turns in entropies]))
