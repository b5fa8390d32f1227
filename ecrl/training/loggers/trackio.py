"""``logger=[trackio]``: Trackio, https://huggingface.co/docs/trackio, which Lightning has no logger for."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
from lightning.pytorch.loggers import Logger
from torch import Tensor

from ecrl.training.loggers.base import RunLogger, keep_id, known_id

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Trackio(RunLogger, Logger):
    """Numbers, texts, figures, histograms and the configuration; a resumed run goes on in the same run.

    Args:
        project: where the run is.
        run_name: Trackio finds a run by it; None takes the folder's name and six random letters.
        group: of runs that belong together.
        space_id: a Hugging Face Space to log to; None logs to this machine, in ``TRACKIO_DIR``.
        run_dir: the run's folder.
        done: number of iterations that are logged already.
    """

    package = "trackio"

    def __init__(
        self,
        *,
        project: str = "ecrl",
        run_name: str | None = None,
        group: str | None = None,
        space_id: str | None = None,
        run_dir: Path,
        done: int,
    ) -> None:
        import trackio

        known = known_id(run_dir, "trackio") if done else None
        self._run = trackio.init(
            project,
            name=known or run_name or f"{run_dir.name}-{uuid4().hex[:6]}",
            group=group,
            space_id=space_id,
            resume="allow" if known else "never",
            embed=False,
        )
        keep_id(run_dir, "trackio", self._run.name)

    @property
    def name(self) -> str:
        """The project."""
        return str(self._run.project)

    @property
    def version(self) -> str:
        """The run's name."""
        return str(self._run.name)

    def log_hyperparams(self, params: Any) -> None:
        """Log the configuration, with the first numbers."""
        self._run.config.update(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        self._run.log(dict(metrics), step=step)

    def add_text(self, name: str, markdown: str, iteration: int) -> None:
        """Log a text."""
        import trackio

        self._run.log({name: trackio.Markdown(markdown)}, step=iteration)

    def add_figure(self, name: str, figure: Figure, iteration: int) -> None:
        """Log a figure as an image."""
        import trackio
        from matplotlib.backends.backend_agg import FigureCanvasAgg

        canvas: Any = FigureCanvasAgg(figure)
        canvas.draw()
        pixels = np.asarray(canvas.buffer_rgba())[..., :3].copy()
        self._run.log({name: trackio.Image(pixels)}, step=iteration)

    def add_histogram(self, name: str, values: Tensor, iteration: int) -> None:
        """Log the distribution of values ``[N]``."""
        import trackio

        self._run.log({name: trackio.Histogram(values.numpy())}, step=iteration)

    def end(self, failed: bool) -> None:
        """Write what is left."""
        self._run.finish()
