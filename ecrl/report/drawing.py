"""The look of a figure: style, colours, names at lines; an SVG in the reader's light or dark."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from textwrap import fill
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from ecrl.analysis.figures import PLAIN_TEXT
from ecrl.report.csv_files import write_csv

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
#: Dashes in points: drawn, left out, …; they change when all colours are used.
DASHES: tuple[tuple[float, ...], ...] = ((), (4, 1.5), (1, 1.2), (6, 1.5, 1, 1.5), (2.5, 1))
_STYLE: Any = PLAIN_TEXT | {
    "font.family": "sans-serif",
    "font.sans-serif": ["Inter", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 12.5,
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
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "axes.formatter.useoffset": False,
    "lines.linewidth": 1.8,
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Picture:
    """A drawn figure and its numbers.

    Attributes:
        name: file name without ending.
        title: what it shows.
        note: how to read it.
        section: heading that it stands under.
        svgs: the image over each of its x axes, by name of the axis; the first is the one to begin with.
        header: names of the columns of its numbers.
        rows: the numbers that are drawn.
    """

    name: str
    title: str
    note: str
    section: str
    svgs: Mapping[str, str]
    header: Sequence[str]
    rows: Sequence[Sequence[Any]]

    def save(self, folder: Path) -> None:
        """Write ``NAME.svg``, ``NAME_AXIS.svg`` for each other x axis, and ``NAME.csv``."""
        for i, (axis, svg) in enumerate(self.svgs.items()):
            ending = f"_{axis}" if i else ""
            (folder / f"{self.name}{ending}.svg").write_text(svg, encoding="utf-8", errors="replace")
        write_csv(folder / f"{self.name}.csv", self.header, self.rows)


def uri(svg: str) -> str:
    """Return an SVG as a ``data:`` URI."""
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode(errors="replace")).decode()


def colour(index: int) -> str:
    """Return the colour of an arm on a white page."""
    return PALETTE[index % len(PALETTE)][0]


def dashes(index: int) -> tuple[float, ...]:
    """Return the dashes of an arm; none for a solid line."""
    return DASHES[index // len(PALETTE) % len(DASHES)]


def line_style(index: int) -> Any:
    """Return the line style of an arm."""
    return (0, dashes(index)) if dashes(index) else "-"


def label(axes: Axes, ends: Sequence[tuple[float, str, int | None]]) -> None:
    """Write names with a sample of their lines right of the axes, at the heights of the lines' ends.

    They are moved apart where they would overlap. The axes' limits and scale must be final.

    Args:
        axes: already drawn on.
        ends: (y of the line's end, name, index of the arm or None).
    """
    if not ends:
        return
    figure = axes.get_figure(root=True)
    assert figure is not None
    width, height = figure.get_size_inches()
    room = 0.4 + 0.086 * max(len(shortened(name)) for _, name, _ in ends)
    figure.subplots_adjust(right=1 - room / width)
    to_axes = axes.transScale + axes.transLimits
    heights = sorted((float(to_axes.transform((1.0, y))[1]), name, i) for y, name, i in ends)
    places = apart([at for at, _, _ in heights], 14 / 72 / (height * axes.get_position().height))
    for place, (_, name, i) in zip(places, heights, strict=True):
        shade = MUTED if i is None else colour(i)
        at = figure.dpi_scale_trans + ScaledTranslation(1, place, axes.transAxes)  # type: ignore[arg-type]
        style: Any = (0, (2, 2)) if i is None else line_style(i)
        axes.add_artist(Line2D([0.08, 0.28], [0, 0], color=shade, ls=style, transform=at, clip_on=False))
        write_beside(axes, shortened(name), place, gap=24, size=10, shade=shade, bold=i is not None)


def apart(heights: Sequence[float], step: float) -> list[float]:
    """Move ascending heights in [0, 1] apart by ``step``, around their mean but not above the axes."""
    places: list[float] = []
    for height in heights:
        places.append(max(height, places[-1] + step) if places else height)
    back = min((sum(places) - sum(heights)) / len(places), max(places[0], 0.0))
    return [place - max(back, places[-1] - 1) for place in places]


def shortened(name: str) -> str:
    """Return a name that fits beside a figure; its end tells runs apart as often as its beginning."""
    return name if len(name) <= 24 else f"{name[:12]}…{name[-11:]}"


def draw_svg(
    name: str, title: str, unit: str, plot: Callable[[Axes], None], lines: int = 1, left: float = 0.76
) -> str:
    """Draw on one pair of axes.

    Args:
        name: no two images of a page have the same.
        title: stands above the axes.
        unit: of the vertical axis.
        plot: draws; ``label`` makes room at the right.
        lines: number of names beside the axes, which need height.
        left: room for the vertical axis, in inches.
    """
    with rc_context({**_STYLE, "svg.hashsalt": name}):
        width, height = 5.2, max(3.2, 0.9 + 0.205 * lines)
        shown = fill(title, 48)
        top = 0.2 + 0.2 * (shown.count("\n") + 1)
        figure = Figure(figsize=(width, height))
        figure.subplots_adjust(left / width, 0.54 / height, 1 - 0.12 / width, 1 - top / height)
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        plot(axes)
        axes.set_title(shown)
        axes.set_ylabel(unit)
        svg = io.StringIO()
        figure.savefig(svg, format="svg", transparent=True, metadata={"Date": None})
    return _in_the_dark(re.sub(r' d="[^"]*"', _rounded, svg.getvalue()))


def _rounded(path: re.Match[str]) -> str:
    """Round a path's coordinates to a hundredth of a point."""
    return re.sub(r"(\.\d\d)\d+", r"\1", path[0])


def _in_the_dark(svg: str) -> str:
    """Give an SVG the dark shades that its viewer takes where the reader's setting is dark."""
    rules = "".join(
        f'[style*="{what}: {light}"]{{{what}:{dark}!important}}'
        for light, dark in _DARK.items()
        if light in svg
        for what in ("fill", "stroke")
    )
    head, tag, rest = svg.partition("<defs>")
    return f"{head}<style>@media(prefers-color-scheme:dark){{{rules}}}</style>{tag}{rest}"


def write_beside(
    axes: Axes, text: str, place: float, *, gap: float, size: float, shade: str, bold: bool
) -> None:
    """Write a text right of the axes.

    Args:
        axes: already drawn on.
        text: what to write.
        place: its height, as a share of the axes'.
        gap: between the axes and the text, points.
        size: of the letters, points.
        shade: their colour.
        bold: whether they are bold.
    """
    axes.annotate(
        text,
        (1, place),
        (gap, 0),
        xycoords="axes fraction",
        textcoords="offset points",
        color=shade,
        va="center",
        fontsize=size,
        fontweight="bold" if bold else "normal",
        annotation_clip=False,
    )
