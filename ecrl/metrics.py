"""The metrics of one iteration: weighted means, histograms, texts and figures, each under a name."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from ecrl.timeline import add_span

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Record:
    """The metrics of one iteration, by name.

    Attributes:
        numbers: sorted by name.
        histograms: the values ``[N]`` of each distribution.
        texts: Markdown.
        figures: matplotlib figures.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Tensor] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)


class MetricsRecorder:
    """Collects the metrics of one iteration and returns them at its end."""

    def __init__(self) -> None:
        self.current: str | None = None  # part that the innermost timer measures now
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}
        self._seconds: dict[str, float] = defaultdict(float)
        self._histograms: dict[str, Tensor] = {}
        self._texts: dict[str, str] = {}
        self._figures: dict[str, Figure] = {}

    def record(self, name: str, value: float, weight: float = 1.0) -> None:
        """Add a value; the metric is the weighted mean of all values of the iteration."""
        total, weights = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (total + float(value) * weight, weights + weight)

    def histogram(self, name: str, values: Tensor) -> None:
        """Keep a distribution ``[N]``; a later one of the same iteration replaces it."""
        self._histograms[name] = values.detach().float().cpu()

    def text(self, name: str, markdown: str) -> None:
        """Keep a text; a later one of the same iteration replaces it."""
        self._texts[name] = markdown

    def figure(self, name: str, figure: Figure) -> None:
        """Keep a figure; a later one of the same iteration replaces it."""
        self._figures[name] = figure

    @contextmanager
    def timer(self, part: str) -> Iterator[None]:
        """Add the block's wall time in seconds to ``time/<part>``, without the time of nested timers."""
        start = time.perf_counter()
        inner_before = sum(self._seconds.values())
        outer, self.current = self.current, part
        try:
            yield
        finally:
            self.current = outer
            inner = sum(self._seconds.values()) - inner_before
            end = time.perf_counter()
            self._seconds[part] += end - start - inner
            add_span(part, start, end)

    def add_seconds(self, part: str, seconds: float) -> None:
        """Add seconds that were measured elsewhere to ``time/<part>``."""
        self._seconds[part] += seconds

    def seconds(self) -> dict[str, float]:
        """Return the wall time of the iteration so far in seconds, by part."""
        return dict(self._seconds)

    def flush(self) -> Record:
        """Return the metrics of the iteration and forget them."""
        numbers = {name: total / weight for name, (total, weight) in self._sums.items() if weight}
        numbers |= {f"time/{part}": seconds for part, seconds in self._seconds.items()}
        record = Record(dict(sorted(numbers.items())), self._histograms, self._texts, self._figures)
        self._clear()
        return record
