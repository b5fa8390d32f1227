"""Figures of the entropy law. They use no pyplot state, so a training run can draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ecrl.analysis import Floats
from ecrl.analysis.law import Law

#: Settings for figures that show names given by the user: a dollar sign does not start a formula.
PLAIN_TEXT: Any = {"text.parse_math": False}
_COLOURS = [f"C{number}" for number in range(10)]  # matplotlib's cycle


@dataclass(frozen=True)
class Cloud:
    """Points of the H–R plane and the law fitted to them.

    Attributes:
        label: text in the legend.
        entropy: H ``[n]``, nats.
        reward: R ``[n]``.
        law: the fit; None draws only the points.
    """

    label: str
    entropy: Floats
    reward: Floats
    law: Law | None = None


@rc_context(PLAIN_TEXT)
def hr_figure(clouds: Sequence[Cloud], *, reward: str = "reward", title: str = "") -> Figure:
    """Draw reward over entropy: points, fitted curves with bands, ceilings.

    A curve is dotted below the lowest measured entropy. The band is the curve's t interval, and the bar
    at H = 0 is the ceiling's bootstrap interval. If there is only one cloud, a dashed line shows its
    ceiling.

    Args:
        clouds: the points and laws to draw.
        reward: label of the vertical axis.
        title: title of the figure.
    """
    figure = Figure(figsize=(6.4, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.add_subplot()
    handles: list[Artist] = []
    for number, cloud in enumerate(clouds):
        colour = _COLOURS[number % len(_COLOURS)]
        handles.append(axis.scatter(cloud.entropy, cloud.reward, s=14, color=colour, alpha=0.7))
        if cloud.law is not None:
            _draw(axis, cloud, cloud.law, colour)
    labels = [cloud.label for cloud in clouds]
    if len(clouds) == 1 and clouds[0].law is not None:
        ceiling = clouds[0].law.ceiling
        handles.append(axis.axhline(ceiling, color=_COLOURS[0], linestyle="--"))
        labels.append(f"ceiling {ceiling:.3f}")
    axis.set(xlabel="policy entropy H, nats a token", ylabel=reward, title=title)
    axis.set_xlim(left=-0.02 * axis.get_xlim()[1])
    axis.grid(alpha=0.3)
    # Handles and labels are passed explicitly: matplotlib leaves out labels that begin with an underscore.
    axis.legend(handles, labels, frameon=False, fontsize=8, loc="lower left")
    return figure


def _draw(axis: Axes, cloud: Cloud, law: Law, colour: str) -> None:
    lowest, highest = cloud.entropy.min(), cloud.entropy.max()
    for start, end, style in ((lowest, highest, "-"), (0.0, lowest, ":")):
        entropy = np.linspace(start, end, 100)
        low, high = law.band(entropy)
        axis.plot(entropy, law.predict(entropy), style, color=colour)
        axis.fill_between(entropy, low, high, color=colour, alpha=0.15, linewidth=0)
    axis.plot([0, 0], law.ceiling_interval, color=colour, linewidth=3, alpha=0.6)
