"""Statistics of repeated answers to the same problems: avg@k, pass@k, maj@k."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import comb

import numpy as np
from numpy.typing import NDArray


def pass_at_k(num_samples: int, num_correct: int, k: int) -> float:
    """Estimate the probability that one of ``k`` answers is right, unbiased: ``1 − C(n−c, k) / C(n, k)``.

    https://arxiv.org/abs/2107.03374

    Args:
        num_samples: n, number of sampled answers.
        num_correct: c, number of right ones among them.
        k: number of attempts, at most n.
    """
    return 1.0 - comb(num_samples - num_correct, k) / comb(num_samples, k)


def majority_correct(answers: Sequence[str | None], correct: Sequence[bool]) -> float:
    """Return 1 if the most frequent answer is right, else 0; for a tie, the mean over the tied answers.

    Args:
        answers: extracted answers to one problem; None if none could be extracted.
        correct: whether each answer is right.
    """
    votes = Counter(answer for answer in answers if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    right = {answer: ok for answer, ok in zip(answers, correct, strict=True)}
    winners = [float(right[answer]) for answer, count in votes.items() if count == most]
    return sum(winners) / len(winners)


def summarise(rewards: NDArray[np.float64], answers: Sequence[Sequence[str | None]]) -> dict[str, float]:
    """Summarise ``k`` answers to each of ``P`` problems.

    Args:
        rewards: ``[P, k]``; an answer is right if its reward is at least 1.
        answers: ``[P][k]`` extracted answers.

    Returns:
        ``avg@k`` (mean reward), ``pass@j`` for j = 1, 2, 4, … k, and ``maj@k``.
    """
    k = rewards.shape[1]
    correct = rewards >= 1.0
    result = {f"avg@{k}": float(rewards.mean())}
    for j in sorted({2**i for i in range(k.bit_length()) if 2**i <= k} | {k}):
        result[f"pass@{j}"] = float(np.mean([pass_at_k(k, int(row.sum()), j) for row in correct]))
    votes = [majority_correct(a, c.tolist()) for a, c in zip(answers, correct, strict=True)]
    result[f"maj@{k}"] = float(np.mean(votes))
    return result
