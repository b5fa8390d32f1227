"""``logger=[wandb]``: Weights & Biases, https://docs.wandb.ai."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from lightning.pytorch.loggers import WandbLogger
from torch import Tensor

from ecrl.training.loggers.base import RunLogger, keep_id, known_id

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_X = "trainer/global_step"  # Lightning's name of the x axis, here the iteration


class Wandb(RunLogger, WandbLogger):
    """Numbers, texts, figures, histograms and the configuration; a resumed run goes on in the same run.

    The key is the machine's (``wandb login``, or ``WANDB_API_KEY``).

    Args:
        project: where the run is.
        name: of the run; None takes that of its folder.
        entity: user or team; None takes the key's own.
        group: of runs that belong together.
        tags: of the run.
        offline: keep all in the run's folder, for ``wandb sync``.
        run_dir: the run's folder.
        done: number of iterations that are logged already.
    """

    package = "wandb"

    def __init__(
        self,
        *,
        project: str = "ecrl",
        name: str | None = None,
        entity: str | None = None,
        group: str | None = None,
        tags: Sequence[str] = (),
        offline: bool = False,
        run_dir: Path,
        done: int,
    ) -> None:
        import wandb

        known = known_id(run_dir, "wandb") if done else None
        run = wandb.init(
            project=project,
            name=name or run_dir.name,
            entity=entity,
            group=group,
            tags=list(tags),
            id=known or uuid4().hex[:12],
            resume="allow",
            dir=run_dir,
            mode="offline" if offline else None,
            # Online it says where the run is; offline it has nothing to say that the run does not.
            settings=wandb.Settings(silent=offline or os.environ.get("WANDB_MODE") == "offline"),
        )
        run.define_metric(_X)
        run.define_metric("*", step_metric=_X, step_sync=True)
        keep_id(run_dir, "wandb", run.id)
        super().__init__(experiment=run, project=project, save_dir=run_dir)

    def add_text(self, name: str, markdown: str, iteration: int) -> None:
        """Log a text as a table of one cell."""
        self.log_text(name, columns=["markdown"], data=[[markdown]], step=iteration)

    def add_figure(self, name: str, figure: Figure, iteration: int) -> None:
        """Log a figure as an image."""
        self.log_image(name, [figure], step=iteration)

    def add_histogram(self, name: str, values: Tensor, iteration: int) -> None:
        """Log the distribution of values ``[N]``."""
        import wandb

        self.experiment.log({name: wandb.Histogram(values.numpy()), _X: iteration})

    def end(self, failed: bool) -> None:
        """Finish the run, so that the next one of this process begins its own."""
        self.experiment.finish(exit_code=int(failed))
