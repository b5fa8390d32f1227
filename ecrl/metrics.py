"""What an iteration reports: weighted means, histograms, texts and figures under one name each."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class Record:
    """The report of one iteration.

    Attributes:
        numbers: by name; sorted.
        histograms: values ``[N]`` by name.
        texts: Markdown by name.
        figures: by name.
    """

    numbers: dict[str, float] = field(default_factory=dict)
    histograms: dict[str, Tensor] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    figures: dict[str, Figure] = field(default_factory=dict)


class MetricsRecorder:
    """Collects what happens within one iteration, and hands it over at its end."""

    def __init__(self) -> None:
        self._clear()

    def _clear(self) -> None:
        self._sums: dict[str, tuple[float, float]] = {}
        self._seconds: dict[str, float] = defaultdict(float)
        self._histograms: dict[str, Tensor] = {}
        self._texts: dict[str, str] = {}
        self._figures: dict[str, Figure] = {}

    def record(self, name: str, value: float, weight: float = 1.0) -> None:
        """Add a value; the iteration's number is the mean of all its values by weight."""
        total, weights = self._sums.get(name, (0.0, 0.0))
        self._sums[name] = (total + float(value) * weight, weights + weight)

    def histogram(self, name: str, values: Tensor) -> None:
        """Keep a distribution ``[N]``; the last one of an iteration counts."""
        self._histograms[name] = values.detach().float().cpu()

    def text(self, name: str, markdown: str) -> None:
        """Keep a text; the last one of an iteration counts."""
        self._texts[name] = markdown

    def figure(self, name: str, figure: Figure) -> None:
        """Keep a figure; the last one of an iteration counts."""
        self._figures[name] = figure

    @contextmanager
    def timer(self, part: str) -> Iterator[None]:
        """Add the block's wall time in seconds to ``time/<part>``, less that of timers within it."""
        start = time.perf_counter()
        inner_before = sum(self._seconds.values())
        try:
            yield
        finally:
            inner = sum(self._seconds.values()) - inner_before
            self._seconds[part] += time.perf_counter() - start - inner

    def add_seconds(self, part: str, seconds: float) -> None:
        """Add to ``time/<part>`` what was measured elsewhere."""
        self._seconds[part] += seconds

    def seconds(self) -> dict[str, float]:
        """Return the wall time so far, by part."""
        return dict(self._seconds)

    def flush(self) -> Record:
        """Return the iteration's report and start anew."""
        numbers = {name: total / weight for name, (total, weight) in self._sums.items() if weight}
        numbers |= {f"time/{part}": seconds for part, seconds in self._seconds.items()}
        record = Record(dict(sorted(numbers.items())), self._histograms, self._texts, self._figures)
        self._clear()
        return record
