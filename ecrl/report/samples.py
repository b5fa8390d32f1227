"""Samples: what the policy wrote at the start, where its entropy fell fastest, and at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecrl.analysis.points import smooth
from ecrl.errors import UsageError
from ecrl.report.data import Comparison
from ecrl.report.runs import ENTROPY, Run
from ecrl.runs.rollouts import read_rollouts, read_table, saved_rollouts

_ARMS, _PROBLEMS = 4, 3  # with samples, at most
_FIRST, _LAST = 300, 150  # tokens that are shown of a long response
_COLUMNS = ("problem", "prompt", "response", "reward", "truncated", "entropy", "length")
#: Columns with an entropy for each token, the best first: at its update, at the rollout, by the engine.
_ENTROPIES = ("token_entropy", "old_entropy", "engine_entropy")


@dataclass(frozen=True)
class Token:
    """A token of a response.

    Attributes:
        text: as it is written.
        entropy: nats; None where it is not known.
        covariance: nats; None where the response did not train.
        done: what strategies did to it, in words.
        marked: whether it is underlined.
    """

    text: str
    entropy: float | None
    covariance: float | None
    done: str = ""
    marked: bool = False


@dataclass(frozen=True)
class Sample:
    """One response.

    Attributes:
        prompt: what the policy read first; empty where it is that of the sample before.
        response: the policy's text, with its middle left out where it is long.
        tokens: the response token by token, in two parts where its middle is left out; empty without
            ``log.rollout_tokens=true``.
        facts: reward, length and more, in words.
    """

    prompt: str
    response: str
    tokens: list[list[Token]]
    facts: str


@dataclass(frozen=True)
class Moment:
    """Samples of one iteration of a run.

    Attributes:
        arm: name of the run's arm.
        title: which moment of training it is.
        samples: responses, those of a problem together.
    """

    arm: str
    title: str
    samples: list[Sample]


def moments(comparison: Comparison) -> tuple[list[Moment], list[str]]:
    """Return samples of the first run of each of the first arms, where rollouts are on disk.

    Returns:
        The samples, and a sentence for each part that cannot be read and is left out.
    """
    found, notes = [], []
    for arm in comparison.arms[:_ARMS]:
        run = next((run for run in arm.runs.values() if saved_rollouts(run.path)), None)
        if run is None:
            continue
        for title, iteration in _moments(comparison, run).items():
            name = "This run" if comparison.alone else f"{arm.name}, seed {run.seed}"
            try:
                found.append(Moment(name, f"{title}: {_when(run, iteration)}", _samples(run, iteration)))
            except UsageError as error:
                notes.append(f"Samples of iteration {iteration} are left out: {str(error).rstrip('.')}.")
    return found, notes


def _when(run: Run, iteration: int) -> str:
    """Name an iteration by the axis of the curves, and by the fork's own count, which names its files."""
    return f"iteration {iteration + run.before}" + (f" ({iteration} of the fork)" if run.before else "")


def _moments(comparison: Comparison, run: Run) -> dict[str, int]:
    """Return the iterations to look at, as the run counts, each once; they have a part."""
    saved = np.array(saved_rollouts(run.path))
    t, v = comparison.measured(run, ENTROPY)
    falls = np.diff(smooth(v, comparison.width))
    fastest = (t[1:][falls.argmin()] if len(falls) else t[-1]) - run.before
    wanted = {
        "At the start": saved[0],
        "Where entropy fell fastest": saved[np.abs(saved - fastest).argmin()],
        "At the end": saved[-1],
    }
    iterations = list(wanted.values())
    return {title: int(i) for n, (title, i) in enumerate(wanted.items()) if i not in iterations[:n]}


def _samples(run: Run, iteration: int) -> list[Sample]:
    """Return the best and the worst response to a few problems, first those with unequal rewards."""
    rows = read_rollouts(run.path, iteration, columns=_COLUMNS)
    groups: dict[int, list[int]] = {}
    for number, row in enumerate(rows):
        groups.setdefault(row["problem"], []).append(number)
    rewards = {problem: [rows[n]["reward"] for n in group] for problem, group in groups.items()}
    problems = sorted(groups, key=lambda problem: min(rewards[problem]) == max(rewards[problem]))[:_PROBLEMS]
    chosen = {}  # number of a row: the prompt that is shown with it
    for problem in problems:
        best, worst = (pick(groups[problem], key=lambda n: rows[n]["reward"]) for pick in (max, min))
        chosen[best] = rows[best]["prompt"] or ""
        if rows[best]["reward"] != rows[worst]["reward"]:
            chosen[worst] = ""
    # Of all tokens only those that are shown become Python's objects.
    columns = ["iteration", "token_texts", *_ENTROPIES, "covariances"]
    tokens = read_table(run.path, iteration, columns=columns).take(list(chosen)).to_pylist()
    return [
        _sample(rows[n], of, rewards[rows[n]["problem"]], prompt)
        for (n, prompt), of in zip(chosen.items(), tokens, strict=True)
    ]


def _sample(row: Mapping[str, Any], tokens: Mapping[str, Any], group: Sequence[float], prompt: str) -> Sample:
    facts = [f"reward {row['reward']:g}, mean of its {len(group)} answers {np.mean(group):.3g}"]
    facts += [f"{row['length']} tokens", *(["cut off"] if row["truncated"] else [])]
    facts += [f"entropy {row['entropy']:.3g} nats a token"] if row["entropy"] is not None else []
    texts = tokens.get("token_texts") or []
    entropy = next((tokens[name] for name in _ENTROPIES if tokens.get(name)), None)
    columns = (texts, entropy or [None] * len(texts), tokens.get("covariances") or [None] * len(texts))
    every = [Token(*values) for values in zip(*columns, strict=True)]
    return Sample(prompt, _cut(row["response"] or ""), _parts(every), ", ".join(facts))


def _parts(tokens: list[Token]) -> list[list[Token]]:
    if len(tokens) <= _FIRST + _LAST:
        return [tokens] if tokens else []
    return [tokens[:_FIRST], tokens[-_LAST:]]


def _cut(text: str) -> str:
    """Leave out the middle of a long text; a token is about four characters."""
    first, last = 4 * _FIRST, 4 * _LAST
    return text if len(text) <= first + last else f"{text[:first]} […] {text[-last:]}"
