"""The curves of a report: one metric each, over iterations, tokens or hours."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import EngFormatter

from ecrl.report.clocks import CLOCKS, clocks, spent_before_by, spent_by
from ecrl.report.data import Comparison, Curve
from ecrl.report.drawing import Picture, colour, draw_svg, label, line_style
from ecrl.report.runs import ENTROPY, REWARD, Arm

#: A line is drawn with at most this many points, the last among them.
_POINTS = 150
#: With more arms than this, bands would hide the lines.
BANDS = 4
LEARNING, UPDATE, RESPONSES, COVARIANCE = "Learning", "The update", "Responses", "Token covariance"
_NATS, _SHARE = "nats a token", "share of tokens"
_REWARDS = [
    (LEARNING, ENTROPY, "Policy entropy", _NATS),
    (LEARNING, REWARD, "Training reward", "mean reward"),
]
_OTHERS = [
    (UPDATE, "policy/grad_norm", "Norm of the gradient, before clipping", "norm"),
    (UPDATE, "policy/kl_behaviour", "KL of the updated policy to that of the rollout", _NATS),
    (UPDATE, "mismatch/kl", "KL of the engine's policy to the trainer's", _NATS),
    (UPDATE, "policy/ratio", "Ratio π/π_old, mean over tokens", "ratio"),
    (UPDATE, "policy/clip_high", "Tokens clipped at the upper bound", _SHARE),
    (UPDATE, "policy/clip_low", "Tokens clipped at the lower bound", _SHARE),
    (RESPONSES, "rollout/length", "Response length", "tokens"),
    (RESPONSES, "rollout/truncated", "Responses cut off at the token limit", "share of responses"),
    (COVARIANCE, "cov/mean", "Token covariance, mean", "cov(log π, A), nats"),
    (COVARIANCE, "cov/top_2%", "Token covariance, mean of the top 2 %", "cov(log π, A), nats"),
]
#: Metrics that may span powers of ten.
_WIDE = ("policy/grad_norm", "policy/kl_behaviour", "mismatch/kl")


def curves(comparison: Comparison) -> list[Picture]:
    """Draw every curve of the page that the metrics allow; of those that are 0 throughout there is none."""
    return [_picture(comparison, *row) for row in shown(comparison) if not is_zero(comparison, row[1])]


def shown(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Return section, metric, title and unit of the curves."""
    found = _REWARDS + [
        (LEARNING, mean, "Validation avg@k, mean of the sets", "share solved") for mean in comparison.means
    ]
    for task in comparison.tasks:
        for kind in ("avg", "pass"):
            for k in comparison.ks(task, kind)[-1:]:
                name, title = f"val/{task}/{kind}@{k}", f"Validation {kind}@{k}, {task}"
                found.append((LEARNING, name, title, "share solved"))
    return [row for row in [*found, *_OTHERS] if row[1] in comparison.names]


def is_zero(comparison: Comparison, name: str) -> bool:
    """Whether a metric is 0 in all runs."""
    return not any(comparison.measured(run, name)[1].any() for run in comparison.runs)


def _picture(comparison: Comparison, section: str, name: str, title: str, unit: str) -> Picture:
    found = [(i, arm, comparison.curve(arm, name)) for i, arm in comparison.numbered]
    lines = [(i, arm, _thinned(curve)) for i, arm, curve in found if curve is not None]
    axes = clocks(comparison.arms)

    def svg(clock: str) -> str:
        def plot(axes: Axes) -> None:
            _plot(axes, comparison, lines, clock, name)

        return draw_svg(f"{name} {clock}", title, unit, plot, len(lines))

    rows = []
    for _, arm, curve in lines:
        at, b = [spent_by(arm, clock, curve.iteration) for clock in axes], curve.band
        rows += [[arm.name, *point] for point in zip(*at, b.mean, b.low, b.high, b.n, strict=True)]
    as_is = name.startswith("val/") or comparison.width == 1
    note = f"{name}." if as_is else f"{name}, trailing mean over {comparison.width} iterations."
    header = ["arm", *axes, "mean", "low", "high", "seeds"]
    return Picture(name, title, note, section, {clock: svg(clock) for clock in axes}, header, rows)


def _plot(
    axes: Axes, comparison: Comparison, lines: list[tuple[int, Arm, Curve]], clock: str, name: str
) -> None:
    ends: list[tuple[float, str, int | None]] = []
    last = max(float(spent_by(arm, clock, comparison.iterations)) for arm in comparison.arms)
    unit, scale = ("minutes", 60) if clock == "hours" and last < 1 else ("hours", 1)
    for i, arm, curve in lines:
        x, b = scale * spent_by(arm, clock, curve.iteration), curve.band
        marker = "o" if len(x) <= 30 else None
        axes.plot(x, b.mean, color=colour(i), linestyle=line_style(i), marker=marker, ms=3)
        if len(lines) <= BANDS:
            axes.fill_between(x, b.low, b.high, color=colour(i), alpha=0.16, lw=0)
        ends.append((float(b.mean[-1]), arm.name, i))
    axes.set_xlabel(CLOCKS[clock].replace("hours", unit))
    first, end = scale * min(spent_before_by(arm, clock) for arm in comparison.arms), scale * last
    room = 0.012 * (end - first)  # for half of a marker
    axes.set_xlim(first - room, end + room)
    if clock == "tokens":
        axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    y = np.concatenate([curve.band.mean for _, _, curve in lines])
    if name in _WIDE and y.min() > 0 and y.max() > 50 * np.median(y):
        axes.set_yscale("log")
    elif name in (ENTROPY, REWARD) or name.startswith("val/"):
        axes.set_ylim(bottom=max(axes.get_ylim()[0], 0))
    if len(comparison.arms) > 1:
        label(axes, ends)


def _thinned(curve: Curve) -> Curve:
    """Return every n-th point, counted from the last."""
    step = -(-len(curve.iteration) // _POINTS)
    kept = np.arange(len(curve.iteration))[::-step][::-1]
    b = curve.band
    return Curve(curve.iteration[kept], type(b)(b.mean[kept], b.low[kept], b.high[kept], b.n[kept]))
