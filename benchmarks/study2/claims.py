"""The verdict on each claim of docs/results/study2/protocol.md, from the packed figures.

"Not separated" is a verdict too: the figures neither meet what the protocol asks of a claim that holds nor
what it asks of one that is refuted.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecrl.analysis.law import fit_law, forecast
from ecrl.analysis.stats import Interval, interval
from study2.endpoints import ARMS, Difference, against_first, compare
from study2.packed import Run, Runs, Values, at_the_end, measured, of_seeds, points

HOLDS, REFUTED, NEITHER = "holds", "refuted", "not separated"
BASELINE = "grpo"
WEAK, STRONG = ("bonus", "reference"), ("clip_cov", "kl_cov")
T = TypeVar("T")
#: Entropy and avg@16 of a run's validations.
Curve = tuple[NDArray[np.float64], NDArray[np.float64]]
#: Parameters of the models whose laws are compared, by arm; the largest is the main comparison's.
SIZES = {"small": 214_144, "medium": 468_672, BASELINE: 821_504}


class Verdict(NamedTuple):
    """What became of a claim.

    Attributes:
        claim: its number and words.
        figure: what was measured.
        verdict: ``HOLDS``, ``REFUTED`` or ``NEITHER``.
    """

    claim: str
    figure: str
    verdict: str


def verdicts(parts: Mapping[str, Runs]) -> Iterator[Verdict]:
    """Judge every claim whose runs are there, given the runs of each part of the study."""
    main = parts["main"]
    yield from of_the_baseline(main[BASELINE])
    for arm in (BASELINE, "on_policy"):
        yield covariance_drives(arm, main[arm])
    if "law" in parts:
        yield one_curve({BASELINE: main[BASELINE]} | dict(parts["law"]))
    if "sizes" in parts:
        yield larger_model({BASELINE: main[BASELINE]} | dict(parts["sizes"]))
    if "easier" in parts:
        yield other_data({BASELINE: main[BASELINE]} | dict(parts["easier"]))
    yield from of_the_arms(main)
    if "ablation" in parts:
        yield which_tokens({arm: main[arm] for arm in STRONG} | dict(parts["ablation"]))


def of_the_baseline(runs: Mapping[int, Run]) -> Iterator[Verdict]:
    """Judge what the paper says of plain GRPO."""
    left = of_seeds(runs, lambda run: at_the_end("entropy")(run) / measured(run, "entropy")[0])
    yield judged(
        "1 entropy collapses: its share left at the end",
        left,
        holds=np.mean(list(left.values())) < 1 / 3,
        refuted=max(left.values()) > 0.5,
    )
    late = of_seeds(runs, late_gain)
    yield judged(
        "2 performance saturates: gain of the second half over that of the first", late, below=(0.2, 0.5)
    )
    fits = of_seeds(runs, or_nan(lambda run: fit_law(*points(run)).r2))
    yield judged("3 the law R = −a·exp(H) + b: R²", fits, above=(0.8, 0.5))
    for share in (0.15, 0.36):
        errors = of_seeds(runs, or_nan(lambda run, share=share: forecast(*points(run), share).rmse))
        yield judged(
            f"4 a law from the first {share:.0%} predicts the rest: RMSE", errors, below=(0.02, 0.05)
        )
    top = of_seeds(runs, concentration)
    yield judged("8 covariance of the top 2 % over the mean, least fifth of the run", top, above=(10, 3))


def judged(
    claim: str,
    values: Values,
    *,
    holds: bool = False,
    refuted: bool = False,
    above: tuple[float, float] | None = None,
    below: tuple[float, float] | None = None,
) -> Verdict:
    """Judge by two conditions, or by bounds of the mean: (where the claim holds, where it is refuted).

    Where both conditions are met, the claim is refuted; where a seed has no value, it is neither.
    """
    lacking = [str(seed) for seed, value in values.items() if not np.isfinite(value)]
    if lacking or not values:
        return Verdict(claim, f"not measurable in seed {', '.join(lacking) or 'any'}", NEITHER)
    of = interval(list(values.values()))
    if above:
        holds, refuted = of.mean >= above[0], of.mean < above[1]
    if below:
        holds, refuted = of.mean <= below[0], of.mean > below[1]
    return Verdict(claim, str_interval(of), REFUTED if refuted else HOLDS if holds else NEITHER)


def or_nan(measure: Callable[[T], float]) -> Callable[[T], float]:
    """Measure NaN where the law cannot be fitted, as where entropy hardly moves."""

    def measured_or_nan(of: T) -> float:
        try:
            return measure(of)
        except ValueError:
            return math.nan

    return measured_or_nan


def str_interval(of: Interval) -> str:
    """Write a mean with its interval."""
    return f"{of.mean:.3g} [{of.low:.3g}, {of.high:.3g}]"


def late_gain(run: Run) -> float:
    """Return the gain of avg@16 in the second half of a run over that in the first half.

    Its value at half time is the mean of the fifth of the iterations around it.
    """
    half, width = 0.5 * run["iteration"][-1], 0.1 * run["iteration"][-1]
    middle = float(np.nanmean(run["avg"][abs(run["iteration"] - half) <= width]))
    first = float(measured(run, "avg")[0])
    return (at_the_end("avg")(run) - middle) / (middle - first)


def correlation(run: Run) -> float:
    """Return the correlation of an iteration's covariance with the entropy lost to the next iteration."""
    covariance, lost = run["covariance"][:-1], -np.diff(run["entropy"])
    # An iteration in which no group trains has no covariance.
    kept = np.isfinite(covariance) & np.isfinite(lost)
    return float(np.corrcoef(covariance[kept], lost[kept])[0, 1])


def covariance_drives(arm: str, runs: Mapping[int, Run]) -> Verdict:
    """Judge whether a batch's covariance tells how much entropy its update costs."""
    r = of_seeds(runs, correlation)
    claim = f"9 covariance of a batch drives the fall of entropy: r over iterations, {arm}"
    return judged(claim, r, holds=min(r.values()) > 0, refuted=max(r.values()) < 0)


def concentration(run: Run) -> float:
    """Return the covariance of the top 2 % of tokens over that of all, in the fifth where it is least."""
    fifths = np.array_split(np.arange(len(run["iteration"])), 5)
    return min(float(np.nanmean(run["covariance_top"][i]) / np.nanmean(run["covariance"][i])) for i in fifths)


def rmse(curves: list[Curve], *, shared: bool) -> float:
    """Return the RMSE of the law over the points of several runs, with one curve or a curve each."""
    if shared:
        return fit_law(*(np.concatenate(side) for side in zip(*curves, strict=True))).rmse
    squares = [(fit_law(*curve).predict(curve[0]) - curve[1]) ** 2 for curve in curves]
    return float(np.sqrt(np.concatenate(squares).mean()))


def one_for_all(runs: Runs) -> dict[int, float]:
    """Return, for each seed that all arms have, the RMSE of one curve over that of a curve an arm."""
    seeds = set.intersection(*(set(of) for of in runs.values()))
    curves = {seed: [points(of[seed]) for of in runs.values()] for seed in sorted(seeds)}
    ratio = or_nan(lambda found: rmse(found, shared=True) / rmse(found, shared=False))
    return {seed: ratio(found) for seed, found in curves.items()}


def one_curve(runs: Runs) -> Verdict:
    """Judge whether a and b depend on the algorithm."""
    claim = f"5 one curve for {', '.join(runs)}: its RMSE over that of separate ones"
    return judged(claim, one_for_all(runs), below=(1.5, 2.0))


def larger_model(runs: Runs) -> Verdict:
    """Judge whether the largest model's curve follows from those of the two smaller ones."""
    seeds = sorted(set.intersection(*(set(runs[name]) for name in SIZES)))
    errors = {seed: or_nan(predicted)([points(runs[name][seed]) for name in SIZES]) for seed in seeds}
    return judged("6 the largest model's curve from two smaller ones: RMSE", errors, below=(0.05, 0.1))


def predicted(curves: list[Curve]) -> float:
    """Return the RMSE of the largest model's points around the curve that the two smaller ones imply."""
    *smaller, (entropy, reward) = curves
    laws = [fit_law(*curve) for curve in smaller]
    a, b = (beyond([getattr(law, name) for law in laws]) for name in "ab")
    return float(np.sqrt(((b - a * np.exp(entropy) - reward) ** 2).mean()))


def beyond(values: list[float]) -> float:
    """Return where the line through the two smaller models' values, over ln(size), meets the largest."""
    *known, size = np.log(list(SIZES.values()))
    slope, intercept = np.polyfit(known, values, 1)
    return float(slope * size + intercept)


def other_data(runs: Runs) -> Verdict:
    """Judge whether a and b depend on the data."""
    ratio = {seed: 1 / value for seed, value in one_for_all(runs).items()}
    claim = f"7 a and b depend on the data ({', '.join(runs)}): RMSE of separate curves over that of one"
    return judged(claim, ratio, below=(2 / 3, 0.95))


def of_the_arms(runs: Runs) -> Iterator[Verdict]:
    """Judge what the arms of the main comparison are said to do."""
    avg, entropy = (against_first(runs, at_the_end(name), ARMS) for name in ("avg", "entropy"))
    yield both("10 entropy bonus and reference KL fall short: avg@16 less GRPO's", avg, WEAK, hoped=False)
    yield both("11 Clip-Cov and KL-Cov hold entropy: entropy less GRPO's", entropy, STRONG)
    yield both("12 Clip-Cov and KL-Cov reach more: avg@16 less GRPO's", avg, STRONG)
    better = max(STRONG, key=lambda arm: avg[arm].interval.mean)
    beside = against(runs, "on_policy", better)
    as_good = avg["on_policy"].above and not (beside.below or beside.above)
    yield Verdict(
        "13 strictly on-policy GRPO is as good a cure: avg@16 less GRPO's, and less the better of the two",
        f"{avg['on_policy']}; {beside}",
        HOLDS if as_good else REFUTED if avg["on_policy"].below else NEITHER,
    )
    spent = against(runs, "budget", "kl_cov")
    yield Verdict("15 a budget spends entropy better than a constant: avg@16 less KL-Cov's", *of_one(spent))


def against(runs: Runs, arm: str, other: str) -> Difference:
    """Compare the avg@16 of two arms at the end."""
    values = [of_seeds(runs[name], at_the_end("avg")) for name in (arm, other)]
    return compare({arm: (values[0], values[1])})[arm]


def of_one(found: Difference) -> tuple[str, str]:
    """Return figure and verdict of a claim that one arm lies above another."""
    return str(found), HOLDS if found.above else REFUTED if found.below else NEITHER


def both(
    claim: str, found: Mapping[str, Difference], arms: tuple[str, ...], *, hoped: bool = True
) -> Verdict:
    """Judge a claim about two arms: both lie above the first; or, if not hoped for, neither does."""
    figure = "; ".join(f"{arm} {found[arm]}" for arm in arms)
    if not hoped:
        return Verdict(claim, figure, REFUTED if any(found[arm].above for arm in arms) else HOLDS)
    if all(found[arm].above for arm in arms):
        return Verdict(claim, figure, HOLDS)
    return Verdict(claim, figure, REFUTED if any(found[arm].below for arm in arms) else NEITHER)


def which_tokens(runs: Runs) -> Verdict:
    """Judge whether the tokens of highest covariance do what the same share of others does not."""
    measures: Mapping[str, Callable[[Run], float]] = {n: at_the_end(n) for n in ("entropy", "avg")}
    pairs = {
        f"{name}, {arm} less {other}": (
            of_seeds(runs[arm], measure),
            of_seeds(runs[f"{arm}_{other}"], measure),
        )
        for name, measure in measures.items()
        for arm in STRONG
        for other in ("random", "lowest")
    }
    found = compare(pairs)
    more = {
        arm: all(
            any(found[f"{name}, {arm} less {other}"].above for name in measures)
            for other in ("random", "lowest")
        )
        for arm in STRONG
    }
    as_much = [
        all(found[f"{name}, {arm} less random"].interval.mean <= 0 for name in measures) for arm in STRONG
    ]
    figure = "; ".join(f"{name} {difference}" for name, difference in found.items())
    verdict = HOLDS if all(more.values()) else REFUTED if any(as_much) else NEITHER
    return Verdict("14 which tokens are restrained matters", figure, verdict)
