"""Scatter plot of the measured over the predicted change of entropy, one point per iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure

from ecrl.analysis.theory import Agreement


def scatter(points: Sequence[Mapping[str, float]], fits: Mapping[str, Agreement]) -> Figure:
    """Draw one panel for each prediction.

    Args:
        points: one for each iteration, in order; each holds ``measured`` and every prediction, nats.
        fits: agreement of each prediction with the measurement, by name of the prediction.
    """
    figure = Figure(figsize=(4.4 * len(fits), 4), layout="constrained")
    panels = figure.subplots(1, len(fits), squeeze=False)[0]
    y = np.asarray([p["measured"] for p in points])
    for axes, (name, fit) in zip(panels, fits.items(), strict=True):
        x = np.asarray([p[name] for p in points])
        dots = axes.scatter(x, y, c=np.arange(1, len(points) + 1), s=14, cmap="viridis")
        ends = np.asarray([x.min(), x.max()])
        axes.plot(ends, y.mean() + fit.slope * (ends - x.mean()), color="gray", label="least squares")
        if name == "by_logits":
            axes.plot(ends, ends, ":", color="black", label="measured = predicted")
        axes.set_title(f"{name}: r = {fit.correlation:.3f}, slope {fit.slope:.3g}", fontsize="medium")
        axes.set(xlabel="predicted ΔH, nats", ylabel="measured ΔH, nats")
        axes.legend(fontsize="small")
    figure.colorbar(dots, ax=list(panels), label="iterations with an update, in order")
    return figure
