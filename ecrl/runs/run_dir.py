"""The folder of a run: checked before anything starts, made, and removed again if the run did not begin."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from omegaconf import OmegaConf

from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.runs.checkpoints import choose_checkpoint, iteration_of
from ecrl.runs.commands import Command, save_command
from ecrl.runs.error_files import ERRORS
from ecrl.runs.os_errors import check_writable, writing


def check_run_dir(config: Config) -> None:
    """Refuse a new folder that exists already, or a run that cannot be resumed or forked.

    Raises:
        UsageError: says what to do.
    """
    load, best = config.checkpoint.load, config.checkpoint.best
    if config.resume:
        for folder in (Path(config.resume), Path(config.resume) / "checkpoints"):
            check_writable(folder, "resume")
        # Said before a base is made for nothing.
        done = iteration_of(choose_checkpoint(Path(config.resume), load, best))
        if done >= config.iterations:
            raise UsageError(
                f"{config.resume} has completed {done} iterations; iterations={config.iterations} asks for "
                "no more. `iterations` is the total: set it higher to go on."
            )
        return
    if config.fork:
        choose_checkpoint(Path(config.fork), load, best)
    if config.run_dir:
        check_new(Path(config.run_dir))
        check_writable(Path(config.run_dir), "run_dir")


def check_new(run_dir: Path) -> None:
    """Refuse a folder for a new run that exists already.

    Raises:
        UsageError: says what to do.
    """
    if run_dir.exists() and not _never_began(run_dir):
        way = "; it holds no checkpoint to resume"
        if _checkpoints(run_dir):
            way = f", or resume it with resume={run_dir}"
        raise UsageError(
            f"run_dir={str(run_dir)!r} exists already and nothing is overwritten; choose another{way}."
        )


def open_run_dir(config: Config, command: Sequence[str] | None = None, iteration: int = 0) -> Path:
    """Make the folder of a new run, or take that of a resumed one, and save the command in it.

    Args:
        config: the whole configuration.
        command: words after ``ecrl train``; None if the run is made from Python.
        iteration: of the checkpoint that is resumed; 0 for a new run.

    Raises:
        UsageError: the folder exists already, or cannot be made.
    """
    run_dir = Path(config.resume) if config.resume else _make(config)
    if command is not None:
        save_command(run_dir, Command(iteration, list(command)))
    return run_dir


def _make(config: Config) -> Path:
    """Make the folder of a new run, and write its configuration.

    Raises:
        UsageError: it exists already, or cannot be made.
    """
    stamp = time.strftime("%Y%m%d-%H%M%S")
    default = Path("runs") / "-".join([stamp, *config.strategy, f"seed{config.seed}"])
    run_dir = Path(config.run_dir) if config.run_dir else default
    with writing(run_dir, "run_dir"):
        run_dir.mkdir(parents=True, exist_ok=_never_began(run_dir))
        (run_dir / "checkpoints").mkdir()
    OmegaConf.save(OmegaConf.structured(config), run_dir / "config.yaml")
    return run_dir


@contextmanager
def gone_unless_begun(run_dir: Path) -> Iterator[None]:
    """Remove the folder again if the block fails before it holds a row of metrics or a checkpoint.

    Such a run cannot be resumed, and while its folder is there it cannot be started again. Files about errors
    stay; a folder with nothing else can be started in.
    """
    try:
        yield
    except BaseException:
        if not (run_dir / "metrics.jsonl").exists() and not _checkpoints(run_dir):
            _clear(run_dir)
        raise


def _clear(run_dir: Path) -> None:
    """Remove all but files about errors, and the folder if there are none."""
    if not (run_dir / ERRORS).exists():
        shutil.rmtree(run_dir, ignore_errors=True)
        return
    for path in list(run_dir.iterdir()):
        if path.is_dir() and path.name != ERRORS:
            shutil.rmtree(path, ignore_errors=True)
        elif path.is_file():
            path.unlink()


def _never_began(run_dir: Path) -> bool:
    """Whether the folder holds nothing but files about errors."""
    return run_dir.is_dir() and [path.name for path in run_dir.iterdir()] == [ERRORS]


def _checkpoints(run_dir: Path) -> list[Path]:
    return list((run_dir / "checkpoints").glob("*"))
