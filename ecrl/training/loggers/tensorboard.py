"""``logger=[tensorboard]``, the default: TensorBoard, in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import TensorBoardLogger
from torch import Tensor
from torch.utils.tensorboard.summary import scalar

from ecrl.training.glossary import OVERVIEW, meaning
from ecrl.training.loggers.base import RunLogger

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LAYOUT = {
    "overview": {name.partition("/")[2]: ["Multiline", [f"{name}$"]] for name in OVERVIEW},
    "entropy": {
        "policy entropy": ["Multiline", ["policy/entropy$"]],
        "strategy coefficients": ["Multiline", ["strategy/.*/coefficient"]],
        "strategy fractions": ["Multiline", ["strategy/.*/fraction"]],
    },
    "law": {
        "predicted ceiling": ["Margin", ["law/ceiling", "law/ceiling_low", "law/ceiling_high"]],
        "spent and reached": ["Multiline", ["law/entropy_spent", "law/gain_reached"]],
    },
    "covariance": {
        "mean": ["Multiline", ["cov/mean"]],
        "quantiles": ["Multiline", ["cov/q.*"]],
        "top shares": ["Multiline", ["cov/top_.*"]],
        "by accuracy of the prompt": ["Multiline", ["cov/accuracy_.*"]],
        "of responses, by accuracy": ["Multiline", ["cov/group/.*"]],
    },
    "dynamics": {
        "measured, predicted": ["Multiline", ["dynamics/measured", "dynamics/by_logits"]],
        "correlation": ["Multiline", ["dynamics/correlation_.*"]],
        "slope": ["Multiline", ["dynamics/slope_.*"]],
    },
    "reward": {
        "training": ["Multiline", ["rollout/reward$"]],
        "validation": ["Multiline", ["val/.*/avg@.*", "val/.*/greedy", "val/.*/maj@.*"]],
        "pass@k": ["Multiline", ["val/.*/pass@.*"]],
        "length": ["Multiline", ["rollout/length$", "val/.*/length"]],
    },
    "update": {
        "ratio": ["Multiline", ["policy/ratio"]],
        "clipped": ["Multiline", ["policy/clip_.*"]],
        "KL to the behaviour policy": ["Multiline", ["policy/kl_behaviour"]],
        "gradient norm": ["Multiline", ["policy/grad_norm"]],
        "engine against trainer": ["Multiline", ["mismatch/.*"]],
    },
    "time": {
        "seconds an iteration": ["Multiline", ["time/(?!.*_idle).*"]],
        "idle share": ["Multiline", ["time/.*_idle"]],
        "tokens a second": ["Multiline", ["throughput/.*"]],
    },
}


class TensorBoard(RunLogger, TensorBoardLogger):
    """Numbers with their meaning, texts, figures, histograms, the configuration, and charts that join curves.

    Args:
        run_dir: the run's folder; the events are in ``tensorboard`` in it.
        done: number of iterations that are logged already; what is later is hidden.
    """

    def __init__(self, *, run_dir: Path, done: int) -> None:
        purge = done + 1 if done else None
        super().__init__(run_dir, name="", version="tensorboard", default_hp_metric=False, purge_step=purge)
        self._described: set[str] = set()
        self.experiment.add_custom_scalars(LAYOUT)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers, and the most important ones once more under names of their own."""
        overview = {name: metrics[source] for name, source in OVERVIEW.items() if source in metrics}
        for name, value in (dict(metrics) | overview).items():
            self._add_scalar(name, value, step)

    def add_text(self, name: str, markdown: str, iteration: int) -> None:
        """Log a Markdown text."""
        self.experiment.add_text(name, markdown, iteration)

    def add_figure(self, name: str, figure: Figure, iteration: int) -> None:
        """Log a figure as an image."""
        self.experiment.add_figure(name, figure, iteration)

    def add_histogram(self, name: str, values: Tensor, iteration: int) -> None:
        """Log the distribution of values ``[N]``."""
        self.experiment.add_histogram(name, values, iteration)

    def end(self, failed: bool) -> None:
        """Close the file."""
        self.experiment.close()

    def _add_scalar(self, name: str, value: float, iteration: int | None) -> None:
        """Write a number; the first of a name carries its meaning, which TensorBoard shows."""
        board: Any = self.experiment
        summary = scalar(name, value)  # type: ignore[no-untyped-call]
        if name not in self._described:
            self._described.add(name)
            summary.value[0].metadata.summary_description = meaning(name) or ""
        board._get_file_writer().add_summary(summary, iteration)  # as its add_scalar does
