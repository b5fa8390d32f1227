"""The atlas: many methods on one plane, entropy kept against what was gained, and a row for each.

Arms are grouped by what the seeds separate from the baseline; within a group nothing is ranked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import PercentFormatter

from ecrl.analysis.stats import Interval, differences_to_first
from ecrl.config.groups import options
from ecrl.config.keys import key_of
from ecrl.config.methods import Method, find_method
from ecrl.report.data import CONFIDENCE, FINAL, Comparison
from ecrl.report.drawing import INK, MUTED, PALETTE, Picture, apart, draw_svg, shortened, write_beside
from ecrl.report.runs import ENTROPY, REWARD, Arm
from ecrl.report.tables import Table
from ecrl.runs.commands import read_commands

SECTION = "The atlas"
_HIGHER, _LEVEL, _LOWER = "higher", "not separated", "lower"
_SHADES = {_HIGHER: PALETTE[3][0], _LEVEL: MUTED, _LOWER: PALETTE[2][0]}


@dataclass(frozen=True)
class Place:
    """An arm of the atlas; every figure is by seed.

    Attributes:
        arm: the arm.
        number: its number in the figures; 0 is the baseline.
        kept: the final entropy as a share of that at the start.
        gained: the final figure minus that before RL, by kind, such as ``avg@16``.
        against: its difference to the baseline by kind; empty for the baseline, or with one seed.
        seconds: of an iteration without validation, mean over iterations.
    """

    arm: Arm
    number: int
    kept: dict[int, float]
    gained: dict[str, dict[int, float]]
    against: dict[str, Interval]
    seconds: dict[int, float]

    def verdict(self, kind: str) -> str:
        """Whether it is higher or lower than the baseline, or neither is shown."""
        difference = self.against.get(kind)
        if difference is None or not difference.excludes_zero:
            return _LEVEL
        return _HIGHER if difference.mean > 0 else _LOWER


def atlas(comparison: Comparison) -> list[Place]:
    """Return the arms: the baseline, then those above it, those not separated from it, and those below."""
    kinds = _kinds(comparison)
    kept = [_kept(comparison, arm) for arm in comparison.arms]
    gained = [
        {kind: _gained(comparison, arm, names) for kind, names in kinds.items()} for arm in comparison.arms
    ]
    differences = {kind: _differences([g[kind] for g in gained]) for kind in kinds}
    places = [
        Place(arm, 0, k, g, {kind: found[i] for kind, found in differences.items() if i in found}, _cost(arm))
        for i, (arm, k, g) in enumerate(zip(comparison.arms, kept, gained, strict=True))
    ]
    first, order = next(iter(kinds)), [_HIGHER, _LEVEL, _LOWER]
    base, *others = places
    others.sort(key=lambda p: (order.index(p.verdict(first)), -_mean(p.gained[first])))
    return [Place(**{**vars(p), "number": i}) for i, p in enumerate([base, *others])]


def _kinds(comparison: Comparison) -> dict[str, list[str]]:
    """Return the metrics of each kind, one for each validation set; without any the training reward."""
    kinds: dict[str, list[str]] = {}
    for kind in ("avg", "pass"):
        names = [f"val/{t}/{kind}@{ks[-1]}" for t in comparison.tasks if (ks := comparison.ks(t, kind))]
        if names:
            k = {name.rpartition("@")[2] for name in names}
            kinds[f"{kind}@{k.pop() if len(k) == 1 else 'k'}"] = names
    return kinds or {"reward": [REWARD]}


def _kept(comparison: Comparison, arm: Arm) -> dict[int, float]:
    ends = comparison.finals(arm, ENTROPY)
    starts = {seed: comparison.start(arm.runs[seed], ENTROPY) for seed in ends}
    return {seed: end / starts[seed] for seed, end in ends.items() if starts[seed] > 0}


def _gained(comparison: Comparison, arm: Arm, names: Sequence[str]) -> dict[int, float]:
    by_name = [
        {s: end - comparison.start(arm.runs[s], name) for s, end in comparison.finals(arm, name).items()}
        for name in names
    ]
    gained = {s: float(np.mean([g.get(s, np.nan) for g in by_name])) for s in arm.runs}
    return {seed: x for seed, x in gained.items() if np.isfinite(x)}


def _differences(gained: Sequence[Mapping[int, float]]) -> dict[int, Interval]:
    """Return the difference of each arm to the first, by the arm's number."""
    seeds = sorted(set.intersection(*(set(g) for g in gained)))
    if len(seeds) < 2:
        return {}
    found = differences_to_first([[g[s] for s in seeds] for g in gained], CONFIDENCE)
    return dict(enumerate(found, start=1))


def _cost(arm: Arm) -> dict[int, float]:
    result: dict[int, float] = {}
    for seed, run in arm.runs.items():
        absent = np.full(len(run.iteration), np.nan)
        total = run.columns.get("time/total", absent) - np.nan_to_num(
            run.columns.get("time/validate", absent)
        )
        trained = total[(run.iteration > 0) & np.isfinite(total)]
        result |= {seed: float(trained.mean())} if len(trained) else {}
    return result


def pictures(places: Sequence[Place]) -> list[Picture]:
    """Draw the plane of entropy kept and what was gained, one for each kind."""
    kinds = places[0].gained
    return [_plane(places, kind) for kind in kinds if any(p.kept and p.gained[kind] for p in places)]


def _plane(places: Sequence[Place], kind: str) -> Picture:
    drawn = [(p, p.kept, p.gained[kind]) for p in places if p.kept and p.gained[kind]]

    def plot(axes: Axes) -> None:
        for p, kept, gained in drawn:
            shade, x, y = _shade(p, kind), _mean(kept), _mean(gained)
            reach = [
                np.array([[m - min(v.values())], [max(v.values()) - m]]) for m, v in ((x, kept), (y, gained))
            ]
            axes.errorbar(x, y, reach[1], reach[0], color=shade, lw=0.8, alpha=0.45)
            axes.plot(x, y, "D" if p.number == 0 else "o", color=shade, ms=4)
            axes.annotate(str(p.number), (x, y), (3, 3), textcoords="offset points", fontsize=8, color=shade)
        axes.axhline(_mean(places[0].gained[kind]), color=MUTED, lw=0.8, linestyle=(0, (2, 2)))
        axes.xaxis.set_major_formatter(PercentFormatter(1.0))
        axes.set_xlabel("entropy kept, share of its start")
        _names(axes, [(_mean(gained), p, _shade(p, kind)) for p, _, gained in drawn])

    title = f"Entropy kept and {kind} gained"
    note = (
        f"Bars: from the lowest to the highest seed. Dashed: the baseline. Coloured: {kind} differs from the "
        "baseline by more than the spread. Numbers: see the table."
    )
    rows = [
        [
            p.number,
            p.arm.name,
            _mean(v),
            min(v.values()),
            max(v.values()),
            _mean(g),
            min(g.values()),
            max(g.values()),
        ]
        for p, v, g in drawn
    ]
    header = ["number", "arm", "entropy_kept", "lowest", "highest", "gained", "lowest", "highest"]
    svg = draw_svg(f"atlas {kind}", title, f"{kind} gained", plot, round(0.75 * len(drawn)))
    return Picture(f"atlas_{kind}", title, note, SECTION, {"": svg}, header, rows)


def _names(axes: Axes, ends: Sequence[tuple[float, Place, str]]) -> None:
    """Write numbers and names right of the axes, by height."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    figure.subplots_adjust(
        right=1 - (0.4 + 0.068 * max(len(shortened(p.arm.name)) for _, p, _ in ends)) / width
    )
    ordered = sorted(ends, key=lambda end: end[0])
    heights = [float(axes.transLimits.transform((0.0, y))[1]) for y, _, _ in ordered]
    places = apart(heights, 10.5 / 72 / (height * axes.get_position().height))
    for place, (_, p, shade) in zip(places, ordered, strict=True):
        name = f"{p.number}  {shortened(p.arm.name)}"
        write_beside(axes, name, place, gap=8, size=8, shade=shade, bold=p.number == 0)


def _shade(place: Place, kind: str) -> str:
    return INK if place.number == 0 else _SHADES[place.verdict(kind)]


def table(places: Sequence[Place]) -> Table:
    """Return the table of the atlas: a row for each arm."""
    kinds = list(places[0].gained)
    base = places[0].arm.name
    header = ["arm", "number", "entropy kept"]
    for kind in kinds:
        header += [f"{kind} gained", f"to {base}", "which is"]
    rows, links = [], {}
    for r, p in enumerate(places):
        row = [p.arm.name, str(p.number), _spread(p.kept, ".0%")]
        for kind in kinds:
            of = p.against.get(kind)
            shown = f"{of.mean:+.3f} [{of.low:+.3f}, {of.high:+.3f}]" if of else "–"
            row += [_spread(p.gained[kind], "+.3f"), shown, p.verdict(kind) if of else "–"]
        rows.append([*row, f"{_mean(p.seconds):.2f}" if p.seconds else "–", str(len(p.arm.runs))])
        if named := chosen(p.arm):
            links[r, 0] = f"#method-{named[0]}"
    strong = {
        (r, 4 + 3 * c) for r, p in enumerate(places) for c, k in enumerate(kinds) if p.verdict(k) != _LEVEL
    }
    note = (
        f"Final figures (last {FINAL:.0%} of the iterations) against the start of the same run: mean "
        f"[lowest, highest seed]. To {base}: difference with an interval of {CONFIDENCE:.0%} for all arms "
        "together, its spread pooled over arms; bold where it excludes 0. First come the arms with a higher "
        f"{kinds[0]}, then those that are not separated, then the lower ones; the order within a group is "
        "not shown by the seeds. Seconds: an iteration without validation. A name leads to what the method "
        "does."
    )
    return Table("atlas", SECTION, [*header, "seconds", "seeds"], rows, note, strong, links=links)


def sentences(places: Sequence[Place]) -> list[str]:
    """Return how many arms the seeds separate from the baseline, a sentence for each kind."""
    base, *others = places
    found = []
    for kind in base.gained:
        verdicts = [p.verdict(kind) for p in others]
        counts = ", ".join(f"{verdicts.count(word)} {word}" for word in (_HIGHER, _LEVEL, _LOWER))
        found.append(f"{kind} gained, against {base.arm.name}: {counts}.")
    return found


def chosen(arm: Arm) -> list[str]:
    """Return the names of the strategies and the objective that an arm's command chose."""
    run = next(iter(arm.runs.values()))
    words = [word for command in read_commands(run.path)[:1] for word in command.words]
    known = {group: options(group, None) for group in ("strategy", "objective")}
    return [
        name
        for word in words
        if (group := key_of(word)) in known
        for name in re.split(r"[\[\],\s]+", word.partition("=")[2])
        if name in known[group]
    ]


def methods_of(places: Sequence[Place]) -> list[Method]:
    """Return the methods that the arms chose, by name."""
    return [find_method(name) for name in sorted({name for p in places for name in chosen(p.arm)})]


def _mean(by_seed: Mapping[int, float]) -> float:
    return float(np.mean(list(by_seed.values()))) if by_seed else float("nan")


def _spread(by_seed: Mapping[int, float], form: str) -> str:
    if not by_seed:
        return "–"
    values = by_seed.values()
    ends = f" [{min(values):{form}}, {max(values):{form}}]" if len(by_seed) > 1 else ""
    return f"{_mean(by_seed):{form}}{ends}"
