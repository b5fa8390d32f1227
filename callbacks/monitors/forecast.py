"""What the entropy law says, while the run goes on, of where it will end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, cast

import lightning as L

from ecrl.analysis.figures import Cloud, hr_figure
from ecrl.analysis.law import Law
from ecrl.analysis.points import ENTROPY, Points, pair
from ecrl.analysis.series import from_rows
from ecrl.callbacks.monitors.periodic import PeriodicMonitor
from ecrl.errors import UsageError
from ecrl.runs.metrics_file import read_metrics

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule


class ForecastMonitor(PeriodicMonitor):
    """Fits R = −a·exp(H) + b to the run so far and records ``law/…``, with the H–R plot.

    R is the validation's avg@k (of several sets their mean, ``val/mean/avg@k``), or the training reward where
    nothing is validated. The monitor keeps no state, because it reads the history on disk; so a resumed run
    records the same.

    https://arxiv.org/abs/2505.22617

    Args:
        every: iterations between fits; None takes ``log.samples_every``. They come one iteration late
            (1, 1 + every, …): a validation is paired with the entropy of the next rollout.
    """

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Fit, record and draw, when it is time and the points allow it."""
        module = cast("PolicyModule", pl_module)
        if not trainer.is_global_zero or not self.is_due(module, module.iteration - 1):
            return
        if module.run_dir is None:
            return
        path = module.run_dir / "metrics.jsonl"
        now = {"iteration": module.iteration, ENTROPY: module.policy_entropy}
        try:
            points = pair(from_rows([*read_metrics(path), now], path))
            law = points.law()
        except (UsageError, ValueError):  # too few points yet, or the entropy does not change
            return
        for name, value in _numbers(points, law):
            if math.isfinite(value):
                module.recorder.record(f"law/{name}", value)
        cloud = Cloud("the run so far", points.entropy, points.reward, law)
        module.recorder.figure("law/H-R", hr_figure([cloud], reward=points.reward_name))


def _numbers(points: Points, law: Law) -> Iterator[tuple[str, float]]:
    """What is recorded; shares are of the way from the first point to H = 0 and to the ceiling."""
    yield "a", law.a
    yield "b", law.b
    yield "r2", law.r2
    yield "rmse", law.rmse
    yield "ceiling", law.ceiling
    yield "ceiling_low", law.ceiling_interval[0]
    yield "ceiling_high", law.ceiling_interval[1]
    h, r = points.entropy, points.reward
    yield "entropy_spent", float(1 - h[-1] / h[0]) if h[0] else math.nan
    gain = law.ceiling - r[0]
    yield "gain_reached", float((r[-1] - r[0]) / gain) if gain > 0 else math.nan
