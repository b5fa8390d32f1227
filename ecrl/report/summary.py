"""The text at the head of a report: what happened, what the seeds separate, what the runs cannot say."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from ecrl.analysis.points import smooth
from ecrl.analysis.stats import Interval, interval
from ecrl.report.atlas import Place, sentences
from ecrl.report.clocks import clocks, spent_before_by, spent_by
from ecrl.report.data import CONFIDENCE, FINAL, Comparison
from ecrl.report.runs import ENTROPY, REWARD, Arm, Run
from ecrl.runs.checkpoints import best_iteration
from ecrl.runs.metrics_file import legible, read_summary

#: Entropy below this share of its start counts as collapsed.
COLLAPSED = 0.1
_NAMED = 6  # arms in one sentence


def summary(comparison: Comparison, places: Sequence[Place]) -> Mapping[str, list[str]]:
    """Return sentences by heading; ``places`` are those of the atlas, if there is one."""
    if len(comparison.arms) == 1:
        return {"What happened": _story(comparison, comparison.arms[0])}
    found = {"What happened to the baseline": _story(comparison, comparison.arms[0])}
    if places:
        return found | {"What the seeds separate": sentences(places)}
    found |= {
        "What the seeds separate": _separated(comparison),
        "What they do not": _not_separated(comparison),
        "What one seed shows": _one_seed(comparison),
        "What these runs cannot say": _limits(comparison),
    }
    return {heading: said for heading, said in found.items() if said}


def _story(comparison: Comparison, arm: Arm) -> list[str]:
    said = [f"Training reward {_change(comparison, arm, REWARD)}."]
    for task in comparison.tasks:
        kinds = [f"{kind}@{k}" for kind in ("avg", "pass") for k in comparison.ks(task, kind)[-1:]]
        changes = [f"{kind} {_change(comparison, arm, f'val/{task}/{kind}')}" for kind in kinds]
        best = _best(comparison, arm, f"val/{task}/{kinds[0]}") if kinds else ""
        said.append(f"Validation on {task}: {', '.join(changes)}{best}.")
    said.append(f"Entropy {_change(comparison, arm, ENTROPY)} nats a token; {_collapse(comparison, arm)}.")
    if (cut := comparison.final(arm, "rollout/truncated")) is not None:
        many = f"{cut.mean:.1%}" if cut.mean >= 0.001 else "Fewer than 0.1%"
        share = f"{many} of the responses were" if cut.mean else "No response was"
        said.append(f"{share} cut off at the token limit at the end.")
    said += [_cost(comparison, arm)]
    if run := comparison.alone:
        said += _checkpoint(run) + _ending(run)
    return said


def _change(comparison: Comparison, arm: Arm, name: str) -> str:
    """Return from where to where a metric went."""
    starts = [x for run in arm.runs.values() if math.isfinite(x := comparison.start(run, name))]
    end = comparison.final(arm, name)
    if end is None or not starts:
        return f"ended at {_number(end)}" if end else "was not measured at the end"
    start = interval(starts, CONFIDENCE)
    verb = "stayed at" if _number(start) == _number(end) else "rose" if end.mean > start.mean else "fell"
    return (
        f"{verb} {_number(end)}" if verb == "stayed at" else f"{verb} from {_number(start)} to {_number(end)}"
    )


def _number(of: Interval) -> str:
    """Return three figures, with half of the interval."""
    digits = 3 if of.mean == 0 else max(2 - math.floor(math.log10(abs(of.mean))), 0)
    spread = "" if math.isnan(of.half) else f" ± {of.half:.{digits}f}"
    return f"{of.mean:.{digits}f}{spread}"


def _best(comparison: Comparison, arm: Arm, name: str) -> str:
    found = [comparison.measured(run, name) for run in arm.runs.values()]
    places = [(float(v.max()), str(t[v.argmax()])) for t, v in found if len(v)]
    if not places:
        return ""
    best = _number(interval([value for value, _ in places], CONFIDENCE))
    return f"; the best {name.rpartition('/')[2]} was {best}, at iteration {_several([t for _, t in places])}"


def _collapse(comparison: Comparison, arm: Arm) -> str:
    """Say when the trailing mean of entropy first fell under ``COLLAPSED`` of its start."""
    when = []
    for run in arm.runs.values():
        t, v = comparison.measured(run, ENTROPY)
        low = np.flatnonzero(smooth(v, comparison.width) < COLLAPSED * comparison.start(run, ENTROPY))
        when += [str(t[low[0]])] if len(low) else []
    if not when:
        return f"it never fell under {COLLAPSED:.0%} of its start"
    some = "" if len(when) == len(arm.runs) else f" (of {len(when)} of {len(arm.runs)} seeds)"
    return f"it first fell under {COLLAPSED:.0%} of its start at iteration {_several(when)}{some}"


def _cost(comparison: Comparison, arm: Arm) -> str:
    """Say how long the compared iterations took, and how many tokens were drawn."""
    shows = {"hours": _duration, "tokens": _tokens}
    own = {
        clock: float(spent_by(arm, clock, comparison.iterations)) - spent_before_by(arm, clock)
        for clock in clocks([arm])
    }
    parts = [shows[clock](own[clock]) for clock in own if clock in shows]
    each = "" if len(arm.runs) == 1 else " a run"
    took = f" took {' and '.join(reversed(parts))}{each}" if parts else " were made"
    return f"{own['iterations']:.0f} iterations{took}."


def _duration(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{hours * 60:.0f} minutes" if hours >= 1 / 30 else f"{hours * 3600:.0f} seconds"


def _tokens(count: float) -> str:
    scale, unit = next(
        ((s, u) for s, u in ((1e9, " billion"), (1e6, " million"), (1, "")) if count >= s), (1, "")
    )
    return f"{count / scale:,.{2 if unit else 0}f}{unit} response tokens"


def _checkpoint(run: Run) -> list[str]:
    metric = run.settings.get("checkpoint.best")
    best = best_iteration(run.path, metric)
    folder = f"{legible(run.path)}/checkpoints/{best}"
    return [f"The best checkpoint by {metric} is {folder}."] if best is not None else []


def _ending(run: Run) -> list[str]:
    ended = read_summary(run.path)
    if ended is None:
        return ["The run wrote no summary: it goes on, or was cut off."]
    return [f"It was stopped by {ended['stopped_by']}."] if ended["stopped_by"] else []


def _judged(comparison: Comparison) -> list[str]:
    """Return the metrics that arms are judged by."""
    found = [ENTROPY, *comparison.means]
    for task in comparison.tasks:
        found += [
            f"val/{task}/{kind}@{k}" for kind in ("avg", "pass") for k in comparison.ks(task, kind)[-1:]
        ]
    return found if len(found) > 1 else [ENTROPY, REWARD]


def _gains(comparison: Comparison, name: str) -> list[tuple[Arm, Interval]]:
    """Return the paired differences to the baseline that have an interval."""
    gains = [(arm, comparison.gain(arm, name)) for arm in comparison.arms[1:]]
    return [(arm, gain) for arm, gain in gains if gain is not None and gain.n > 1]


def _one_seed(comparison: Comparison) -> list[str]:
    """Return the differences of the arms that share but one seed with the baseline."""
    base, *others = comparison.arms
    said = []
    for arm in others:
        found = {name: comparison.gain(arm, name) for name in _judged(comparison)}
        shown = [
            f"{_short(name)} {comparison.finals(arm, name)[seed]:.3f} ({of.mean:+.3f})"
            for name, of in found.items()
            if of is not None and of.n == 1
            for seed in sorted(set(comparison.finals(arm, name)) & set(comparison.finals(base, name)))
        ]
        if shown:
            said.append(f"{arm.name}, at the end (and against {base.name}): {', '.join(shown)}.")
    return said


def _separated(comparison: Comparison) -> list[str]:
    said = []
    base = comparison.arms[0].name
    for name in _judged(comparison):
        for word, sign in (("Higher", 1), ("Lower", -1)):
            found = [
                f"{arm.name} ({g.mean:+.3f} [{g.low:+.3f}, {g.high:+.3f}])"
                for arm, g in sorted(_gains(comparison, name), key=lambda pair: -abs(pair[1].mean))
                if g.excludes_zero and g.mean * sign > 0
            ]
            if found:
                said.append(f"{word} {_short(name)} than {base}: {_several(found)}.")
    return said


def _not_separated(comparison: Comparison) -> list[str]:
    said = []
    for name in _judged(comparison):
        gains = _gains(comparison, name)
        level = [arm.name for arm, gain in gains if not gain.excludes_zero]
        if level:
            who = "all arms" if len(level) == len(comparison.arms) - 1 > 1 else _several(level)
            said.append(f"No difference beyond the spread in {_short(name)}: {who}.")
    return said


def _limits(comparison: Comparison) -> list[str]:
    base, *others = comparison.arms
    shared = {arm.name: len(set(arm.runs) & set(base.runs)) for arm in others}
    said = [
        f"{_several(names)}: {what} in common with {base.name}, {so}."
        for n, what, so in (
            (1, "one seed", "so differences may be chance, and nothing here says how large chance is"),
            (0, "no seed", "so there are no differences seed by seed"),
        )
        if (names := [name for name, count in shared.items() if count == n])
    ]
    seeds = min((count for count in shared.values() if count > 1), default=0)
    return said + (_of_intervals(comparison, seeds) if seeds else [])


def _of_intervals(comparison: Comparison, seeds: int) -> list[str]:
    """Say what intervals over so many seeds, or more, can show."""
    t = float(stats.t.ppf(0.5 + CONFIDENCE / 2, seeds - 1))
    halves = {n: [g.half for _, g in _gains(comparison, n)] for n in _judged(comparison)}
    sizes = [f"{np.median(h):.2g} in {_short(n)}" for n, h in halves.items() if h]
    tests = sum(map(len, halves.values()))
    return [
        f"With {seeds} seeds an interval is {t:.1f} standard errors to either side: differences below about "
        f"{_listed(sizes)} would not show.",
        f"Of these {tests} intervals, {tests * (1 - CONFIDENCE):.1f} would exclude 0 by chance.",
        f"A final figure is a mean over the last {FINAL:.0%} of {comparison.iterations} iterations; ceilings "
        "extrapolate to H = 0.",
    ]


def _short(name: str) -> str:
    return {ENTROPY: "entropy (nats)", REWARD: "training reward"}.get(name, name.removeprefix("val/"))


def _several(items: Sequence[str]) -> str:
    """Join, and count those beyond the first few."""
    rest = len(items) - _NAMED
    return ", ".join(items) if rest <= 0 else f"{', '.join(items[:_NAMED])} and {rest} more"


def _listed(items: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(items[:-1]), items[-1]]))
