"""The figures of a report: one idea each, with the names of the arms at their lines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, NullLocator, ScalarFormatter

from ecrl.analysis.stats import Interval, interval
from ecrl.report.data import CONFIDENCE, Comparison
from ecrl.report.drawing import MUTED, Picture, colour, label, line_style, picture
from ecrl.report.runs import ENTROPY, REWARD


def draw(comparison: Comparison) -> list[Picture]:
    """Draw every figure that the metrics allow."""
    pictures = [_curve(comparison, name, title, unit) for name, title, unit in _curves(comparison)]
    pictures += [_pass_at_k(comparison, task) for task in comparison.tasks if len(comparison.ks(task)) > 1]
    pictures.insert(0, _plane(comparison))
    return _apart([*pictures, *([_gains(comparison)] if len(comparison.arms) > 1 else [])])


def _curves(comparison: Comparison) -> list[tuple[str, str, str]]:
    found = [(ENTROPY, "Policy entropy", "nats a token"), (REWARD, "Training reward", "mean reward")]
    found += [(mean, "Validation avg@k, mean of the sets", "share solved") for mean in comparison.means]
    for task in comparison.tasks:
        for kind in ("avg", "pass"):
            for k in comparison.ks(task, kind)[-1:]:
                found.append((f"val/{task}/{kind}@{k}", f"Validation {kind}@{k}, {task}", "share solved"))
    found += [
        ("cov/mean", "Token covariance, mean", "cov(log π, A), nats"),
        ("cov/top_2%", "Token covariance, mean of the top 2 %", "cov(log π, A), nats"),
        ("rollout/length", "Response length", "tokens"),
    ]
    return [row for row in found if row[0] in comparison.names]


def _curve(comparison: Comparison, name: str, title: str, unit: str) -> Picture:
    def plot(axes: Axes) -> None:
        ends: list[tuple[float, str, int | None]] = []
        for i, arm in enumerate(comparison.arms):
            curve = comparison.curve(arm, name)
            if curve is None:
                continue
            marker = "o" if len(curve.iteration) <= 30 else None
            axes.plot(
                curve.iteration,
                curve.band.mean,
                color=colour(i),
                linestyle=line_style(i),
                marker=marker,
                ms=3,
            )
            axes.fill_between(
                curve.iteration, curve.band.low, curve.band.high, color=colour(i), alpha=0.16, lw=0
            )
            ends.append((float(curve.band.mean[-1]), arm.name, i))
        axes.set_xlabel("iteration")
        axes.set_xlim(0, comparison.iterations)
        if name in (ENTROPY, REWARD) or name.startswith("val/"):
            axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
        label(axes, ends)

    as_is = name.startswith("val/") or comparison.width == 1
    smoothing = "" if as_is else f" Trailing mean over {comparison.width} iterations."
    return picture(_file(name), title, unit, f"{name}.{smoothing}", plot)


def _pass_at_k(comparison: Comparison, task: str) -> Picture:
    ks = comparison.ks(task)
    names = [f"val/{task}/pass@{k}" for k in ks]

    def plot(axes: Axes) -> None:
        start = [comparison.starts(name) for name in names]
        ends: list[tuple[float, str, int | None]] = []
        if all(start):
            means = [s.mean for s in start if s]
            axes.plot(ks, means, color=MUTED, linestyle=(0, (2, 2)), lw=1.3)
            ends.append((means[-1], "before RL", None))
        for i, arm in enumerate(comparison.arms):
            finals = [comparison.final(arm, name) for name in names]
            found = [(k, f) for k, f in zip(ks, finals, strict=True) if f]
            if not found:
                continue
            x = [k for k, _ in found]
            axes.plot(
                x, [f.mean for _, f in found], color=colour(i), linestyle=line_style(i), marker="o", ms=4
            )
            low, high = ([getattr(f, end) for _, f in found] for end in ("low", "high"))
            axes.fill_between(x, low, high, color=colour(i), alpha=0.16, lw=0)
            ends.append((found[-1][1].mean, arm.name, i))
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(ks))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(ScalarFormatter())
        axes.set_xlabel("k")
        axes.set_xlim(ks[0], ks[-1])
        axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
        label(axes, ends)

    title = f"pass@k at the end, {task}"
    note = f"val/{task}/pass@k at the end of training; dashed: the same policies before RL."
    return picture(_file(f"pass_at_k_{task}"), title, "share solved in k tries", note, plot)


def _plane(comparison: Comparison) -> Picture:
    reward = comparison.law_reward()

    def plot(axes: Axes) -> None:
        ends: list[tuple[float, str, int | None]] = []
        planes = [comparison.plane(arm, reward) for arm in comparison.arms]
        top = max((float(p.entropy.max()) for p in planes if len(p.entropy)), default=1.0)
        for i, (arm, plane) in enumerate(zip(comparison.arms, planes, strict=True)):
            axes.scatter(plane.entropy, plane.reward, s=9, color=colour(i), alpha=0.4, lw=0)
            if not plane.laws:
                continue
            a, b = (np.mean([getattr(law, x) for law in plane.laws.values()]) for x in "ab")
            for h, style, width in (
                (np.linspace(plane.entropy.min(), plane.entropy.max(), 60), line_style(i), 1.8),
                (np.linspace(0, plane.entropy.min(), 30), ":", 1.3),
            ):
                axes.plot(h, b - a * np.exp(h), color=colour(i), linestyle=style, lw=width)
            ceiling = ceiling_of(plane.laws)
            error = [[ceiling.mean - ceiling.low], [ceiling.high - ceiling.mean]]
            if np.isfinite(error).all():
                axes.errorbar(
                    -0.02 * top * (i + 1),
                    ceiling.mean,
                    error,
                    color=colour(i),
                    lw=1.2,
                    capsize=2.5,
                    clip_on=False,
                )
            axes.plot(
                -0.02 * top * (i + 1), ceiling.mean, "D", color=colour(i), ms=5, clip_on=False, zorder=5
            )
            ends.append((ceiling.mean, f"{arm.name}  {ceiling.mean:.3f}", i))
        axes.set_xlim(top * 1.04, -0.02 * top * (len(planes) + 1))  # training goes from left to right
        axes.axvline(0, color=MUTED, lw=0.8)
        axes.set_xlabel("policy entropy H, nats a token   (training goes to the right)")
        label(axes, ends)

    note = (
        f"R = {reward}, each seed's points; R = −a·exp(H) + b fitted to each seed, drawn with the mean "
        "coefficients, dotted beyond the data. Diamonds: ceilings −a + b, R at H = 0, with intervals over "
        "seeds; side by side for legibility."
    )
    return picture("entropy_reward", "Entropy and reward: laws and ceilings", "R", note, plot)


def _gains(comparison: Comparison) -> Picture:
    names = [f"val/{task}/{x}" for task in comparison.tasks for x in _validated(comparison, task)] or [REWARD]
    names = [*comparison.means, *names]
    count = len(comparison.arms)

    def plot(axes: Axes) -> None:
        for row, name in enumerate(names):
            for i, arm in enumerate(comparison.arms[1:], start=1):
                gain = comparison.gain(arm, name)
                if gain is None:
                    continue
                y = -row - 0.5 + 0.8 * (0.5 - i / count)
                if np.isfinite(gain.half):
                    axes.plot([gain.low, gain.high], [y, y], color=colour(i), lw=2)
                axes.plot(gain.mean, y, "o", color=colour(i), ms=6)
                axes.annotate(
                    arm.name,
                    (gain.mean if np.isnan(gain.half) else gain.high, y),
                    (7, 0),
                    textcoords="offset points",
                    color=colour(i),
                    va="center",
                    fontsize=9,
                    annotation_clip=False,
                )
        axes.axvline(0, color=MUTED, lw=1)
        axes.set_yticks([-row - 0.5 for row in range(len(names))], [n.removeprefix("val/") for n in names])
        axes.set_ylim(-len(names), 0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("difference in the share solved")

    base = comparison.arms[0].name
    note = f"Final figure minus that of {base}, seed by seed; mean and t interval over seeds."
    return picture("differences", f"Paired differences to {base}", "", note, plot)


def _validated(comparison: Comparison, task: str) -> list[str]:
    found = [f"{kind}@{k}" for kind in ("avg", "pass") for k in comparison.ks(task, kind)[-1:]]
    return [*found, *(["greedy"] if f"val/{task}/greedy" in comparison.names else [])]


def ceiling_of(laws: dict[int, Any]) -> Interval:
    """Return the interval of the ceiling over seeds; for one seed, the interval of its own fit."""
    if len(laws) > 1:
        return interval([law.ceiling for law in laws.values()], CONFIDENCE)
    (law,) = laws.values()
    low, high = law.ceiling_interval
    return Interval(law.ceiling, low, high, 1)


def _file(name: str) -> str:
    """Return a file name for a metric, short enough for any file system."""
    return "".join(c if c.isalnum() else "_" for c in name.removeprefix("val/")).strip("_")[:60]


def _apart(pictures: list[Picture]) -> list[Picture]:
    """Number the files whose names would be equal on a file system that ignores case."""
    taken: set[str] = set()
    for i, drawn in enumerate(pictures):
        names = (drawn.name, *(f"{drawn.name}_{n}" for n in range(2, len(pictures) + 1)))
        name = next(n for n in names if n.casefold() not in taken)
        taken.add(name.casefold())
        pictures[i] = replace(drawn, name=name)
    return pictures
