"""The figures of a report: one idea each, with the names of the arms at their lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from ecrl.analysis.law import MIN_POINTS
from ecrl.analysis.stats import Interval
from ecrl.report.curves import BANDS, LEARNING, curves
from ecrl.report.data import Comparison, Plane, ceiling_of
from ecrl.report.drawing import MUTED, Picture, colour, draw_svg, label, line_style, shortened
from ecrl.report.runs import REWARD, Arm


def draw(comparison: Comparison, first: Sequence[Picture] = ()) -> list[Picture]:
    """Draw every figure that the metrics allow, section by section; ``first`` are drawn already."""
    drawn = curves(comparison)
    of_all = [_pass_at_k(comparison, task) for task in comparison.tasks if len(comparison.ks(task)) > 1]
    of_all += [_gains(comparison)] if len(comparison.arms) > 1 else []
    learning = [picture for picture in drawn if picture.section == LEARNING]
    others = [picture for picture in drawn if picture.section != LEARNING]
    return _apart([*first, *learning, *_plane(comparison), *of_all, *others])


def _pass_at_k(comparison: Comparison, task: str) -> Picture:
    ks = comparison.ks(task)
    names = [f"val/{task}/pass@{k}" for k in ks]
    start = [comparison.before_rl(name) for name in names]
    lines: list[tuple[str, int | None, list[Interval | None]]]
    lines = [("before RL", None, start)] if all(start) else []
    lines += [
        (_name(comparison, arm), i, [comparison.final(arm, name) for name in names])
        for i, arm in comparison.numbered
    ]
    rows = [
        [name, k, of.mean, of.low, of.high, of.n]
        for name, _, found in lines
        for k, of in zip(ks, found, strict=True)
        if of
    ]

    def plot(axes: Axes) -> None:
        ends: list[tuple[float, str, int | None]] = []
        for name, i, found in lines:
            kept = [(k, of) for k, of in zip(ks, found, strict=True) if of]
            if not kept:
                continue
            x, means = [k for k, _ in kept], [of.mean for _, of in kept]
            if i is None:
                axes.plot(x, means, color=MUTED, linestyle=(0, (2, 2)), lw=1.3)
            else:
                axes.plot(x, means, color=colour(i), linestyle=line_style(i), marker="o", ms=4)
                if len(comparison.arms) <= BANDS:
                    low, high = [of.low for _, of in kept], [of.high for _, of in kept]
                    axes.fill_between(x, low, high, color=colour(i), alpha=0.16, lw=0)
            ends.append((means[-1], name, i))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(ks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("k, number of answers to a problem")
        axes.set_xlim(ks[0] / 1.05, ks[-1] * 1.05)  # room for half of a marker
        axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
        label(axes, ends)

    name, title = f"pass_at_k_{task}", f"pass@k at the end, {task}"
    note = f"val/{task}/pass@k at the end of training; dashed: before RL."
    svg = draw_svg(name, title, "share solved in k tries", plot, len(lines))
    header = ["arm", "k", "mean", "low", "high", "seeds"]
    return Picture(name, title, note, LEARNING, {"": svg}, header, rows)


def _plane(comparison: Comparison) -> list[Picture]:
    """Draw the law's figure; none where no arm has enough points, as the law's table says."""
    reward = comparison.law_reward()
    every = [(i, arm, comparison.plane(arm, reward)) for i, arm in comparison.numbered]
    planes = [(i, arm, plane) for i, arm, plane in every if plane.most >= MIN_POINTS]
    few = [
        f"{'' if comparison.alone else f'{arm.name}: '}{p.most}" for _, arm, p in every if p.most < MIN_POINTS
    ]
    if not planes:
        return []
    top = max((float(p.entropy.max()) for _, _, p in planes if len(p.entropy)), default=1.0)
    rows = [row for _, arm, plane in planes for row in _numbers(arm.name, plane)]

    def plot(axes: Axes) -> None:
        ends: list[tuple[float, str, int | None]] = []
        for place, (i, arm, plane) in enumerate(planes, start=1):
            axes.scatter(plane.entropy, plane.reward, s=9, color=colour(i), alpha=0.4, lw=0)
            if not plane.laws:
                continue
            a, b = _coefficients(plane)
            for h, style, width in (
                (np.linspace(plane.entropy.min(), plane.entropy.max(), 60), line_style(i), 1.8),
                (np.linspace(0, plane.entropy.min(), 30), ":", 1.3),
            ):
                axes.plot(h, b - a * np.exp(h), color=colour(i), linestyle=style, lw=width)
            ceiling = ceiling_of(plane.laws)
            x = -0.02 * top * place
            error = [[ceiling.mean - ceiling.low], [ceiling.high - ceiling.mean]]
            if np.isfinite(error).all():
                axes.errorbar(x, ceiling.mean, error, color=colour(i), lw=1.2, capsize=2.5)
            axes.plot(x, ceiling.mean, "D", color=colour(i), ms=5, zorder=5)
            name = "ceiling" if comparison.alone else arm.name
            ends.append((ceiling.mean, f"{ceiling.mean:.3f} {name}", i))
        axes.set_xlim(top * 1.04, -0.02 * top * (len(planes) + 1))  # training goes from left to right
        axes.axvline(0, color=MUTED, lw=0.8)
        axes.set_xlabel("policy entropy H, nats a token (training goes to the right)")
        label(axes, ends)

    fits = "of the fit" if comparison.alone else "over seeds; side by side for legibility"
    coefficients = "." if comparison.alone else " to each seed, drawn with the mean coefficients."
    note = (
        f"R = {reward}; R = −a·exp(H) + b fitted{coefficients} Dotted beyond the data. "
        f"Diamonds: ceilings −a + b, R at H = 0, with intervals {fits}."
    )
    if few:
        note = f"Too few points ({', '.join(few)}); a law takes at least {MIN_POINTS}. {note}"
    title = "Entropy and reward: law and ceiling"
    svg = draw_svg("entropy_reward", title, "R", plot, len(planes))
    header = ["arm", "kind", "entropy", "reward", "low", "high", "a", "b"]
    return [Picture("entropy_reward", title, note.strip(), LEARNING, {"": svg}, header, rows)]


def _coefficients(plane: Plane) -> tuple[float, float]:
    a, b = (float(np.mean([getattr(law, x) for law in plane.laws.values()])) for x in "ab")
    return a, b


def _numbers(name: str, plane: Plane) -> list[list[Any]]:
    """Return the rows of an arm's points and ceiling."""
    points = zip(plane.entropy, plane.reward, strict=True)
    rows: list[list[Any]] = [[name, "point", h, r, "", "", "", ""] for h, r in points]
    if plane.laws:
        ceiling = ceiling_of(plane.laws)
        rows.append([name, "ceiling", 0.0, ceiling.mean, ceiling.low, ceiling.high, *_coefficients(plane)])
    return rows


def _gains(comparison: Comparison) -> Picture:
    names = [f"val/{task}/{x}" for task in comparison.tasks for x in _validated(comparison, task)] or [REWARD]
    names = [*comparison.means, *names]
    others = list(enumerate(comparison.arms))[1:]
    found = [
        (row, name, i, arm, gain)
        for row, name in enumerate(names)
        for i, arm in others
        if (gain := comparison.gain(arm, name))
    ]

    def plot(axes: Axes) -> None:
        ticks = []
        for row, _, i, arm, gain in found:
            y = -row * (len(others) + 1) - i - 0.5
            ticks.append((y, shortened(arm.name), i))
            if np.isfinite(gain.half):
                axes.plot([gain.low, gain.high], [y, y], color=colour(i), linestyle=line_style(i), lw=2)
            axes.plot(gain.mean, y, "o", color=colour(i), ms=5)
        for row, name in enumerate(names):
            at = (0.01, -row * (len(others) + 1) - 0.5)
            metric = name.removeprefix("val/")
            axes.text(*at, metric, va="center", weight="bold", transform=axes.get_yaxis_transform())
        axes.axvline(0, color=MUTED, lw=1)
        axes.set_yticks([y for y, _, _ in ticks], [name for _, name, _ in ticks])
        for tick, (_, _, i) in zip(axes.get_yticklabels(), ticks, strict=True):
            tick.set_color(colour(i))
        axes.set_ylim(-len(names) * (len(others) + 1), 0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("difference of the means")

    base = comparison.arms[0].name
    title = f"Paired differences to {base}"
    note = f"Final figure minus that of {base}, seed by seed; mean and t interval over seeds."
    left = 0.2 + 0.086 * max(len(shortened(arm.name)) for _, arm in others)
    svg = draw_svg("differences", title, "", plot, len(names) * (len(others) + 1), left)
    rows = [[arm.name, name, gain.mean, gain.low, gain.high, gain.n] for _, name, _, arm, gain in found]
    header = ["arm", "metric", "mean", "low", "high", "seeds"]
    return Picture("differences", title, note, LEARNING, {"": svg}, header, rows)


def _name(comparison: Comparison, arm: Arm) -> str:
    return "at the end" if comparison.alone else arm.name


def _validated(comparison: Comparison, task: str) -> list[str]:
    found = [f"{kind}@{k}" for kind in ("avg", "pass") for k in comparison.ks(task, kind)[-1:]]
    return [*found, *(["greedy"] if f"val/{task}/greedy" in comparison.names else [])]


def _file(name: str) -> str:
    """Return a file name for a metric, short enough for any file system."""
    return "".join(c if c.isalnum() else "_" for c in name.removeprefix("val/")).strip("_")[:60]


def _apart(pictures: list[Picture]) -> list[Picture]:
    """Give pictures file names, numbered where they would be equal on a file system that ignores case."""
    taken: set[str] = set()
    for i, drawn in enumerate(pictures):
        base = _file(drawn.name)
        names = (base, *(f"{base}_{n}" for n in range(2, len(pictures) + 1)))
        name = next(n for n in names if n.casefold() not in taken)
        taken.add(name.casefold())
        pictures[i] = replace(drawn, name=name)
    return pictures
