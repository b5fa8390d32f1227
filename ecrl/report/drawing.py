"""The look of a figure: style, colours, names at lines. SVG for the page, PNG for everything else."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ecrl.analysis.figures import PLAIN_TEXT

INK, MUTED, GRID = "#1b1f24", "#5b6471", "#e3e6ea"
#: (light, dark) of the baseline, then of the other arms; colour-blind readers can tell them apart.
PALETTE = (
    ("#59636e", "#aeb8c4"),
    ("#0072b2", "#5bb0ec"),
    ("#d55e00", "#ff8f4d"),
    ("#009e73", "#35c79b"),
    ("#aa3377", "#ea8fc6"),
    ("#a87900", "#e8bd3a"),
    ("#4a9fd4", "#9bd5f7"),
)
_DARK = {INK: "#e8ebef", MUTED: "#a3adb9", GRID: "#313842"} | dict(PALETTE)
_STYLES = ("-", (0, (4, 1.5)), (0, (1, 1.2)))
_STYLE: Any = PLAIN_TEXT | {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.titlepad": 10,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 9,
    "ytick.labelsize": 9,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure.

    Attributes:
        name: file name without ending.
        title: what it shows.
        note: how to read it.
        svg: image for the page, in light and dark.
        png: image for everything else.
    """

    name: str
    title: str
    note: str
    svg: str
    png: bytes

    @property
    def uri(self) -> str:
        """The SVG as a ``data:`` URI."""
        return "data:image/svg+xml;base64," + base64.b64encode(self.svg.encode()).decode()

    def save(self, folder: Path) -> None:
        """Write the PNG."""
        (folder / f"{self.name}.png").write_bytes(self.png)


def colour(index: int) -> str:
    """Return the colour of an arm on a white page."""
    return PALETTE[index % len(PALETTE)][0]


def line_style(index: int) -> Any:
    """Return the line style of an arm; it changes when all colours are used."""
    return _STYLES[index // len(PALETTE) % len(_STYLES)]


def label(axes: Axes, ends: Sequence[tuple[float, str, int | None]]) -> None:
    """Write names at the right ends of their lines, moved apart where they would overlap.

    Args:
        axes: already drawn on.
        ends: (y of the line's end, name, index of the arm or None).
    """
    if not ends:
        return
    ordered = sorted(ends, key=lambda end: end[0])
    low, high = axes.get_ylim()
    places: list[float] = []
    for y, _, _ in ordered:
        places.append(max(y, places[-1] + (high - low) * 0.065) if places else y)
    # The names only moved up: shift all of them back to the mean of the lines' ends.
    shift = float(np.mean(places) - np.mean([y for y, _, _ in ordered]))
    for place, (_, text, i) in zip(places, ordered, strict=True):
        axes.annotate(
            text,
            (1, place - shift),
            (7, 0),
            xycoords=axes.get_yaxis_transform(),
            textcoords="offset points",
            color=MUTED if i is None else colour(i),
            va="center",
            fontsize=9.5,
            fontweight="normal" if i is None else "bold",
            annotation_clip=False,
        )


def picture(name: str, title: str, unit: str, note: str, plot: Callable[[Axes], None]) -> Picture:
    """Draw on one pair of axes; see ``Picture`` for the other arguments."""
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        figure = Figure(figsize=(5.6, 3.5))
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        plot(axes)
        axes.set_title(title)
        axes.set_ylabel(unit)
        svg, png = io.StringIO(), io.BytesIO()
        tight: dict[str, Any] = {"bbox_inches": "tight", "pad_inches": 0.08}
        figure.savefig(png, format="png", dpi=160, facecolor="white", **tight)
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None}, **tight)
    return Picture(name, title, note, _themed(svg.getvalue()), png.getvalue())


def _themed(svg: str) -> str:
    """Let an SVG follow the reader's light or dark setting."""
    names = {light: f"--c{i}" for i, light in enumerate(_DARK)}
    for light, name in names.items():
        svg = svg.replace(light, f"var({name})")
    light, dark = (
        ";".join(f"{name}:{shade}" for name, shade in zip(names.values(), shades, strict=True))
        for shades in (_DARK.keys(), _DARK.values())
    )
    style = f"<style>svg{{{light}}}@media(prefers-color-scheme:dark){{svg{{{dark}}}}}</style>"
    head, tag, rest = svg.partition("<defs>")
    return head + style + tag + rest
