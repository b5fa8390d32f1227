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


def majority_correct(votes: Sequence[int | None], correct: Sequence[bool]) -> float:
    """Return how right the most frequent answer to a problem is: a tie counts as the mean of the tied
    answers.

    Completions without an answer vote too, for none: where they are the most frequent, the majority is wrong.

    Args:
        votes: class of equivalent answers of each completion; None without an answer.
        correct: whether each is right; the same for all of a class.
    """
    counts = Counter(votes)
    most = max(counts.values())
    right = {vote: ok for vote, ok in zip(votes, correct, strict=True)} | {None: False}
    winners = [float(right[vote]) for vote, count in counts.items() if count == most]
    return sum(winners) / len(winners)


def by_problem(
    rewards: NDArray[np.float64], votes: Sequence[Sequence[int | None]]
) -> dict[str, NDArray[np.float64]]:
    """Say of each of ``P`` problems how well ``k`` answers did.

    Args:
        rewards: ``[P, k]``; an answer is right if its reward is at least 1.
        votes: ``[P][k]`` classes of equivalent answers; None without an answer.

    Returns:
        ``[P]`` each: ``avg@k`` (mean reward), ``pass@j`` for j = 1, 2, 4, … k, and ``maj@k``.
    """
    k = rewards.shape[1]
    correct = rewards >= 1.0
    result = {f"avg@{k}": rewards.mean(1)}
    for j in sorted({2**i for i in range(k.bit_length()) if 2**i <= k} | {k}):
        result[f"pass@{j}"] = np.asarray([pass_at_k(k, int(row.sum()), j) for row in correct])
    majorities = [majority_correct(v, c.tolist()) for v, c in zip(votes, correct, strict=True)]
    result[f"maj@{k}"] = np.asarray(majorities)
    return result
