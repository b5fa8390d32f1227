"""Metrics of a rollout and of a validation: numbers by metric name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ecrl.algorithm.advantages import zero_variance
from ecrl.config.schema import EnvConfig
from ecrl.rollout.batching import group_tensors
from ecrl.rollout.pass_at_k import summarise
from ecrl.rollout.trajectory import Trajectory
from ecrl.runs.metrics_file import VALIDATION_MEAN


def env_name(env: EnvConfig) -> str:
    """Return an environment's short name for metrics.

    It is the configured name, or that of its data set (``openai/gsm8k`` → ``gsm8k``), or that of its id
    (``ecrl/Countdown-v0`` → ``countdown``).
    """
    path = env.kwargs.get("path")
    found = env.name or (Path(str(path)).stem if path else env.id.split("/")[-1].rsplit("-v", 1)[0].lower())
    return re.sub(r"[^\w.-]+", "_", found)


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


def validation_metrics(
    sampled: Sequence[Trajectory], greedy: Sequence[Trajectory], name: str
) -> dict[str, float]:
    """Return ``val/<env>/…``: ``avg@k``, ``pass@j``, ``maj@k``, ``greedy``, ``length``, …; and the mean.

    A problem that the policy did not read, because its prompt is too long, counts as answered wrong;
    ``overlong_prompts`` counts them. ``env_errors`` counts the episodes in which the environment's code
    raised, if there are any.

    Args:
        sampled: k trajectories of each problem, those of a problem side by side.
        greedy: one greedy trajectory of each problem.
        name: short name of the environment.
    """
    k = 1 + max(t.sample_index for t in sampled)
    rewards = np.asarray([t.reward for t in sampled]).reshape(-1, k)
    votes = [[t.vote for t in sampled[i : i + k]] for i in range(0, len(sampled), k)]
    numbers = summarise(rewards, votes)
    numbers["greedy"] = float(np.mean([t.reward for t in greedy]))
    numbers["length"] = float(np.mean([t.num_tokens for t in sampled if t.turns] or [0]))
    numbers["overlong_prompts"] = float(sum(t.overlong for t in greedy))
    if failed := sum(t.failed for t in (*sampled, *greedy)):
        numbers["env_errors"] = float(failed)
    return {f"val/{name}/{key}": value for key, value in numbers.items()} | {
        VALIDATION_MEAN: numbers[f"avg@{k}"]
    }
