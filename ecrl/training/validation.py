"""Validation: the policy answers every set that is due, and each number comes with its standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import sqrt

import numpy as np
from numpy.typing import NDArray

from ecrl.config.eval_sets import VALIDATION_MEAN, ValidationSet
from ecrl.engines.base import Sampling
from ecrl.rollout.pass_at_k import by_problem
from ecrl.rollout.problem_order import ENDLESS
from ecrl.rollout.trajectory import Trajectory

#: Answers drawn at once, so that memory does not grow with the number of problems.
VAL_COMPLETIONS = 1024

#: What is counted over a set's problems, not averaged.
COUNTS = ("overlong_prompts", "env_errors")

#: Draws answers: set, numbers of its problems, answers to each, sampling.
Draw = Callable[[ValidationSet, Sequence[int], int, Sampling], list[Trajectory]]


@dataclass(frozen=True)
class Evaluation:
    """What a policy earned on validation sets.

    Attributes:
        metrics: ``val/<set>/…`` (``avg@k``, ``pass@j``, ``maj@k``, ``greedy``, ``length``), and
            ``val/mean/avg@k``, the mean over the sets of each one's avg@k. A problem that the policy does not
            read, because its prompt is too long, counts as answered wrong; ``overlong_prompts`` counts
            these. ``env_errors`` counts the episodes in which the environment's code raised, if there are
            any.
        standard_errors: of each metric but the counts, over the problems; NaN for a single problem.
    """

    metrics: dict[str, float]
    standard_errors: dict[str, float]


def due_sets(sets: Sequence[ValidationSet], iteration: int) -> list[ValidationSet]:
    """Return the sets to validate after an iteration; before the first one (0) all of them."""
    return [of for of in sets if not iteration or iteration % of.every == 0]


def number_of_problems(of: ValidationSet, size: int | None) -> int:
    """Return how many problems of a set are answered; ``size`` is None where there is no end."""
    return of.problems if isinstance(of.problems, int) else size or ENDLESS


def sampling_of(of: ValidationSet) -> Sampling:
    """Return how a set's answers are drawn."""
    return Sampling(of.temperature, of.top_p, of.max_new_tokens)


def chunks(problems: int, k: int) -> Iterator[range]:
    """Yield the numbers of the problems that are answered at once, ``k`` answers each."""
    size = max(VAL_COMPLETIONS // k, 1)
    return (range(i, min(i + size, problems)) for i in range(0, problems, size))


def evaluate(
    sets: Sequence[ValidationSet], sizes: Mapping[str, int | None], draw: Draw, mean: bool
) -> Evaluation:
    """Answer validation sets with the current policy.

    Args:
        sets: those that are due, one or more.
        sizes: number of problems of each set by its name; None where there is no end.
        draw: draws the answers.
        mean: whether these are all sets of the run, so that their mean is comparable over time.
    """
    metrics: dict[str, float] = {}
    errors: dict[str, float] = {}
    for of in sets:
        for name, values in _answer(of, number_of_problems(of, sizes[of.name]), draw).items():
            key, counted = f"val/{of.name}/{name}", name in COUNTS
            metrics[key] = float(values.sum() if counted else values.mean() if len(values) else 0)
            if not counted:
                errors[key] = standard_error(values)
        if not metrics[failed := f"val/{of.name}/env_errors"]:
            del metrics[failed]
    if mean:
        averages = [f"val/{of.name}/avg@{of.k}" for of in sets]
        metrics[VALIDATION_MEAN] = sum(metrics[name] for name in averages) / len(sets)
        errors[VALIDATION_MEAN] = sqrt(sum(errors[name] ** 2 for name in averages)) / len(sets)
    return Evaluation(metrics, errors)


def standard_error(values: NDArray[np.float64]) -> float:
    """Standard error of the mean of ``[P]`` values: by how much as many other problems would move it."""
    return float(values.std(ddof=1)) / sqrt(len(values)) if len(values) > 1 else float("nan")


def _answer(of: ValidationSet, problems: int, draw: Draw) -> dict[str, NDArray[np.float64]]:
    """Answer a set chunk by chunk; return the values by metric."""
    parts = [_values(*_draw_chunk(of, chunk, draw)) for chunk in chunks(problems, of.k)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _draw_chunk(
    of: ValidationSet, problems: Sequence[int], draw: Draw
) -> tuple[list[Trajectory], list[Trajectory]]:
    """Draw k answers to each problem, and a greedy one."""
    sampling = sampling_of(of)
    greedy = replace(sampling, temperature=0.0, top_p=1.0)
    sampled = draw(of, problems, of.k, sampling) if of.temperature else []
    once = draw(of, problems, 1, greedy)
    return sampled or once, once


def _values(sampled: Sequence[Trajectory], greedy: Sequence[Trajectory]) -> dict[str, NDArray[np.float64]]:
    """Values of a chunk's problems, from k answers to each, side by side, and a greedy one.

    Returns:
        ``[P]`` values, one for each problem; of ``length`` for those that the policy read, of ``env_errors``
        for each episode.
    """
    k = len(sampled) // len(greedy)
    rewards, lengths = (
        np.asarray(x, np.float64).reshape(-1, k)
        for x in ([t.reward for t in sampled], [t.num_tokens for t in sampled])
    )
    votes = [[t.vote for t in sampled[i : i + k]] for i in range(0, len(sampled), k)]
    values = by_problem(rewards, votes)
    values["greedy"] = np.asarray([t.reward for t in greedy], np.float64)
    values["length"] = lengths[[bool(t.turns) for t in sampled[::k]]].mean(1)
    values["overlong_prompts"] = np.asarray([t.overlong for t in greedy], np.float64)
    # Where the greedy answers are all, they are the sampled ones too.
    episodes = sampled if sampled is greedy else [*sampled, *greedy]
    values["env_errors"] = np.asarray([t.failed for t in episodes], np.float64)
    return values
