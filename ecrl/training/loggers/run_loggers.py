"""The loggers of ``logger=[…]``: checked before the run, opened at its start, written to beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from lightning.pytorch.loggers import Logger
from omegaconf import OmegaConf

from ecrl.config.schema import Config
from ecrl.config.targets import build, require_target, resolve
from ecrl.errors import UsageError
from ecrl.metrics import Record
from ecrl.runs.versions import version_of_module
from ecrl.training.background import Background
from ecrl.training.loggers.base import RunLogger

MOST_PENDING = 8  # writes of an iteration to a logger


def check_loggers(config: Config) -> None:
    """Refuse a logger that is none, whose package is missing, or that cannot work here; nothing is opened.

    Raises:
        UsageError: says what to install or to write.
    """
    for name, node in config.logger.items():
        kind = _kind(name, node)
        if not issubclass(kind, RunLogger):
            continue
        if kind.package is not None and version_of_module(kind.package) is None:
            raise UsageError(
                f"logger=[{name}] needs {kind.package}, which is not installed: pip install {kind.package}, "
                f"or leave {name} out."
            )
        kind.check(node)


def open_loggers(config: Config, run_dir: Path, done: int) -> dict[str, Logger]:
    """Open the loggers in config order, by name.

    Args:
        config: the whole configuration, which they log.
        run_dir: the run's folder.
        done: number of iterations that they have already.

    Raises:
        UsageError: one cannot be opened.
    """
    loggers = {name: _open(name, node, run_dir, done) for name, node in config.logger.items()}
    settings: Any = OmegaConf.to_container(OmegaConf.structured(config))
    for logger in loggers.values():
        logger.log_hyperparams(settings)
    return loggers


class RunLoggers:
    """Writes to loggers in a thread of its own, so that training waits neither for figures nor for a network.

    An error is raised by a later ``write`` or by ``wait``. As a context it closes them at its end.

    Args:
        loggers: none in a process that is not the first.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = loggers
        self._background = Background(MOST_PENDING)

    def write(self, record: Record, iteration: int) -> None:
        """Log an iteration later, in order."""
        for logger in self._loggers:
            self._background.submit(_write, logger, record, iteration)

    def wait(self) -> None:
        """Wait until all is logged."""
        self._background.wait()

    def __enter__(self) -> RunLoggers:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Log what is left, and close; an error of the block hides one of the loggers."""
        try:
            self._background.close(raises=error is None)
        finally:
            for logger in self._loggers:
                if isinstance(logger, RunLogger):
                    logger.end(failed=error is not None)


def _kind(name: str, node: Any) -> type[Logger]:
    require_target("logger", name, node, "Lightning logger")
    kind = resolve(node["_target_"], f"logger.{name}")
    if not isinstance(kind, type) or not issubclass(kind, Logger):
        raise UsageError(
            f"logger.{name}._target_={node['_target_']} is no Lightning logger "
            "(lightning.pytorch.loggers.Logger)."
        )
    return kind


def _open(name: str, node: Mapping[str, Any], run_dir: Path, done: int) -> Logger:
    passed = {"run_dir": run_dir, "done": done} if issubclass(_kind(name, node), RunLogger) else {}
    try:
        logger: Logger = build(node, **passed)
    except UsageError as error:
        raise UsageError(f"logger.{name}: {error}") from None
    return logger


def _write(logger: Logger, record: Record, iteration: int) -> None:
    logger.log_metrics(record.numbers, step=iteration)
    if isinstance(logger, RunLogger):
        for name, values in record.histograms.items():
            logger.add_histogram(name, values, iteration)
        for name, markdown in record.texts.items():
            logger.add_text(name, markdown, iteration)
        for name, figure in record.figures.items():
            logger.add_figure(name, figure, iteration)
