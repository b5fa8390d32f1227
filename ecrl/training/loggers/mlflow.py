"""``logger=[mlflow]``: MLflow, https://mlflow.org."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.loggers import MLFlowLogger

from ecrl.errors import UsageError
from ecrl.training.loggers.base import RunLogger, keep_id, known_id

if TYPE_CHECKING:
    from matplotlib.figure import Figure


_SPELT = str.maketrans({"@": "_at_", "%": "_pct"})


class Mlflow(RunLogger, MLFlowLogger):
    """Numbers and the configuration; texts and figures as artifacts. A resumed run goes on in the same run.

    In the names of metrics ``@`` is written ``_at_`` and ``%`` ``_pct``, since MLflow takes neither.

    Args:
        experiment: where the run is.
        name: of the run; None takes that of its folder.
        tracking_uri: of the server or store; None takes ``MLFLOW_TRACKING_URI``, or else MLflow's default.
        run_dir: the run's folder.
        done: number of iterations that are logged already.
    """

    package = "mlflow"

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Refuse a store that the installed MLflow does not open."""
        import mlflow
        from mlflow import environment_variables
        from mlflow.store.db.db_types import DATABASE_ENGINES

        uri = str(settings.get("tracking_uri") or mlflow.get_tracking_uri())
        scheme = uri.partition(":")[0].partition("+")[0] if "://" in uri else "file"
        files = "MLFLOW_ALLOW_FILE_STORE=true with logger.mlflow.tracking_uri=file:./mlruns"
        server = "a server, logger.mlflow.tracking_uri=http://HOST:5000"
        if scheme in DATABASE_ENGINES and find_spec("sqlalchemy") is None:
            raise UsageError(
                f"logger=[mlflow]: {uri} is a database, which mlflow-skinny cannot open. Take the full "
                f"package (pip install mlflow), {server}, or {files}."
            )
        allowed = getattr(environment_variables, "MLFLOW_ALLOW_FILE_STORE", None)  # older ones do not ask
        if scheme == "file" and allowed is not None and not allowed.get():
            raise UsageError(
                f"logger=[mlflow]: MLflow opens {uri}, a folder, only with MLFLOW_ALLOW_FILE_STORE=true in "
                f"the environment. Set it, or take {server}, or sqlite:///mlflow.db with the full package."
            )

    def __init__(
        self,
        *,
        experiment: str = "ecrl",
        name: str | None = None,
        tracking_uri: str | None = None,
        run_dir: Path,
        done: int,
    ) -> None:
        import mlflow

        self._resumed = known_id(run_dir, "mlflow") if done else None
        super().__init__(
            experiment,
            run_name=name or run_dir.name,
            tracking_uri=tracking_uri or mlflow.get_tracking_uri(),
            run_id=self._resumed,
        )
        keep_id(run_dir, "mlflow", str(self.run_id))
        self.experiment.update_run(self.run_id, status="RUNNING")

    def log_hyperparams(self, params: Any) -> None:
        """Log the configuration once: MLflow lets no parameter change."""
        if self._resumed is None:
            super().log_hyperparams(params)

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Log numbers."""
        super().log_metrics({name.translate(_SPELT): value for name, value in metrics.items()}, step)

    def add_text(self, name: str, markdown: str, iteration: int) -> None:
        """Log a text as the artifact ``NAME/ITERATION.md``."""
        self.experiment.log_text(self.run_id, markdown, f"{name}/{iteration}.md")

    def add_figure(self, name: str, figure: Figure, iteration: int) -> None:
        """Log a figure as the artifact ``NAME/ITERATION.png``."""
        self.experiment.log_figure(self.run_id, figure, f"{name}/{iteration}.png")

    def finalize(self, status: str = "success") -> None:
        """Leave the run open: Lightning calls this also after the first validation."""

    def end(self, failed: bool) -> None:
        """Say how the run ended."""
        self.experiment.set_terminated(self.run_id, "FAILED" if failed else "FINISHED")
