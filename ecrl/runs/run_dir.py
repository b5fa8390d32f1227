"""The folder that a run writes: looked at before anything starts, made, and taken away if nothing began."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf

from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.runs.os_errors import check_writable


def check_run_dir(config: Config) -> None:
    """Refuse a folder that exists already, or one to go on in that takes no files.

    Raises:
        UsageError: says what to do.
    """
    if config.resume:
        for folder in (Path(config.resume), Path(config.resume) / "checkpoints"):
            check_writable(folder, "resume")
    elif config.run_dir:
        run_dir = Path(config.run_dir)
        if run_dir.exists():
            way = "; it holds no checkpoint to go on from"
            if _checkpoints(run_dir):
                way = f", or go on with resume={run_dir}"
            raise UsageError(
                f"run_dir={config.run_dir!r} exists already and nothing is overwritten; choose another{way}."
            )
        check_writable(run_dir, "run_dir")


def create_run_dir(config: Config) -> Path:
    """Make the run directory.

    Raises:
        UsageError: it exists already, or cannot be made.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    default = Path("runs") / "-".join([stamp, *config.strategy, f"seed{config.seed}"])
    run_dir = Path(config.run_dir) if config.run_dir else default
    try:
        run_dir.mkdir(parents=True)
        (run_dir / "checkpoints").mkdir()
    except OSError as error:
        raise UsageError(f"run_dir={str(run_dir)!r} cannot be created: {error}.") from None
    OmegaConf.save(OmegaConf.structured(config), run_dir / "config.yaml")
    return run_dir


@contextmanager
def gone_unless_begun(run_dir: Path) -> Iterator[None]:
    """Take the folder away again if the block fails before it holds a row of metrics or a checkpoint.

    Such a run can neither be resumed nor, while its folder is there, started again.
    """
    try:
        yield
    except BaseException:
        if not (run_dir / "metrics.jsonl").exists() and not _checkpoints(run_dir):
            shutil.rmtree(run_dir, ignore_errors=True)
        raise


def _checkpoints(run_dir: Path) -> list[Path]:
    return list((run_dir / "checkpoints").glob("*"))
