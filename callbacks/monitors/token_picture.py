"""A picture of completions in TensorBoard, each token coloured by its covariance and by its entropy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PatchCollection
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, findfont, get_font
from matplotlib.patches import Rectangle
from torch import Tensor

from ecrl.algorithm.covariance import token_covariance
from ecrl.callbacks.monitors.leading_tokens import visible
from ecrl.callbacks.monitors.periodic import PeriodicMonitor
from ecrl.training.observer import PlanObserver

if TYPE_CHECKING:
    from ecrl.algorithm.loss_plan import LossPlan
    from ecrl.training.module import PolicyModule

LONGEST = 200  # tokens of a completion
WIDTH = 64  # characters of a line
# A character's width in pixels must be whole, since text is drawn that way; else it drifts from the boxes.
DPI = 100
CHARACTER, LINE = 0.07, 0.18  # inches
FONT = "DejaVu Sans Mono"  # matplotlib brings it
ALPHA = 0.7  # the darkest colours leave the text legible
FONT_SIZE = CHARACTER * 72 / 0.602  # points; a character is 0.602 of its size wide


class TokenPicture(PeriodicMonitor, PlanObserver):
    """Draws a few completions of a rollout's first minibatch, spread over it.

    Args:
        every: iterations between pictures; None takes ``log.samples_every``.
        count: completions in a picture; None takes ``log.samples``.
    """

    def __init__(self, *, every: int | None = None, count: int | None = None) -> None:
        super().__init__(every=every)
        self._count = count

    def on_plan(self, module: PolicyModule, plan: LossPlan, fresh: bool) -> None:
        """Draw when it is time, on the process that writes."""
        count = module.config.log.samples if self._count is None else self._count
        due = fresh and count > 0 and self.is_due(module, module.iteration + 1)
        if not due or not module.process_group.is_first:
            return
        tokens = plan.tokens
        cov = token_covariance(tokens.logprobs, tokens.advantages)
        step = max(tokens.num_sequences // count, 1)
        samples = []
        for sequence in range(0, tokens.num_sequences, step)[:count]:
            index = (tokens.sequence_ids == sequence).nonzero()[:, 0]
            shown = index[:LONGEST]
            title = f"advantage {float(tokens.advantages[index].mean()):+.2f}, {len(index)} tokens"
            texts = [drawable(str(module.tokenizer.decode([t]))) for t in tokens.token_ids[shown].tolist()]
            samples.append(Sample(title, texts, cov[shown].tolist(), tokens.entropy[shown].tolist()))
        module.recorder.figure("covariance/completions", draw(samples, _limit(cov), _limit(tokens.entropy)))


@dataclass(frozen=True)
class Sample:
    """A completion, or its beginning, by token.

    Attributes:
        title: one line above it.
        texts: what is written.
        covariance: of each token.
        entropy: of each token, nats.
    """

    title: str
    texts: list[str]
    covariance: list[float]
    entropy: list[float]


def _limit(values: Tensor) -> float:
    """Where colours end: a hundredth of the tokens lies beyond, so that a few do not hide all others."""
    rising = values.abs().sort().values
    return max(float(rising[int(0.99 * (len(rising) - 1))]), 1e-9)


def draw(samples: Sequence[Sample], most_covariance: float, most_entropy: float) -> Figure:
    """Draw the samples twice, side by side; colours reach up to the given numbers."""
    lines = sum(2 + sum(map(len, s.texts)) // WIDTH + 1 for s in samples)
    width, height = WIDTH * CHARACTER, lines * LINE
    margin, legend = 0.15, 0.7  # inches
    size = 2 * width + 3 * margin, height + legend
    figure = Figure(figsize=size, dpi=DPI)
    columns = [
        ("covariance", "coolwarm", Normalize(-most_covariance, most_covariance)),
        ("entropy, nats", "YlOrRd", Normalize(0, most_entropy)),
    ]
    for number, (label, colors, norm) in enumerate(columns):
        left = (margin + number * (width + margin)) / size[0]
        axes = figure.add_axes((left, 0, width / size[0], height / size[1]))
        axes.set(xlim=(0, WIDTH), ylim=(lines, 0))
        axes.axis("off")
        values = [s.entropy if number else s.covariance for s in samples]
        _write(axes, samples, values, ScalarMappable(norm, colormaps[colors]))
        bar = figure.add_axes((left, 1 - 0.3 / size[1], width / size[0], 0.1 / size[1]))
        scale = ScalarMappable(norm, colormaps[colors])
        figure.colorbar(scale, cax=bar, orientation="horizontal", alpha=ALPHA)
        bar.set_title(label, fontsize="small", pad=2)
        bar.tick_params(labelsize="x-small")
    return figure


def _write(
    axes: Axes, samples: Sequence[Sample], values: Sequence[Sequence[float]], colors: ScalarMappable
) -> None:
    """Write all samples into axes whose unit is a character and a line."""
    top = 0
    for sample, numbers in zip(samples, values, strict=True):
        axes.text(0, top + 0.8, sample.title, fontsize=FONT_SIZE, color="gray")
        boxes, faces, start = [], [], 0
        for text, color in zip(sample.texts, colors.to_rgba(np.asarray(numbers), alpha=ALPHA), strict=True):
            for line, column, length in pieces(start, len(text)):
                boxes.append(Rectangle((column, top + 1 + line), length, 1))
                faces.append(color)
            start += len(text)
        axes.add_collection(PatchCollection(boxes, facecolors=faces, edgecolors="white", linewidths=0.5))
        whole = "".join(sample.texts)
        for line in range(len(whole) // WIDTH + 1):
            axes.text(
                0,
                top + 1.75 + line,
                whole[line * WIDTH : (line + 1) * WIDTH],
                fontsize=FONT_SIZE,
                family=FONT,
                parse_math=False,
            )
        top += 2 + len(whole) // WIDTH + 1


def pieces(start: int, length: int) -> Iterator[tuple[int, int, int]]:
    """Cut characters ``start`` … ``start + length`` at the ends of lines: line, column and length of each."""
    end = start + length
    while start < end:
        line, column = divmod(start, WIDTH)
        part = min(end - start, WIDTH - column)
        yield line, column, part
        start += part


def drawable(text: str) -> str:
    """Show white space, and a box for what the font has no character for, or for nothing at all."""
    known = _known()
    return "".join(c if ord(c) in known else "□" for c in visible(text)) or "□"


@cache
def _known() -> frozenset[int]:
    return frozenset(get_font(findfont(FontProperties(family=FONT))).get_charmap())
