"""Starts the processes of a run, if torchrun or SLURM did not, and reports which one failed."""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn
from uuid import uuid4

import torch
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from ecrl.config.schema import Config
from ecrl.distributed.parent_death import end_with_parent
from ecrl.errors import SAID, EcrlError, LostPeerError, SilentPeerError, UsageError

SHUTDOWN = 300  # seconds in which processes may finish their iteration after a signal or a failure
#: Patterns in the messages of gloo and NCCL when another process hangs or is gone.
_PEER_ERRORS: tuple[tuple[re.Pattern[str], type[LostPeerError]], ...] = (
    (re.compile(r"time(d |)out", re.IGNORECASE), SilentPeerError),
    (re.compile(r"connection (closed|reset) by peer|NCCL", re.IGNORECASE), LostPeerError),
)


def processes(config: Config) -> int:
    """Return the number of processes that the configuration asks for."""
    return config.trainer.devices * config.trainer.num_nodes


def launched() -> int:
    """Return how many processes torchrun or SLURM started; 0 if neither started this one."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    # An interactive allocation also sets SLURM's variables, but does not start processes.
    if "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(os.environ.get("SLURM_NTASKS", "1"))
    return 0


def is_first_process() -> bool:
    """Whether this process prints for the whole run, judged by its environment variables."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0


def check_launch(config: Config) -> None:
    """Refuse a configured number of processes that does not fit how they were started.

    Raises:
        UsageError: another number was started, a launcher is needed, or there are too few GPUs.
    """
    wanted, started = processes(config), launched()
    if started and started != wanted:
        raise UsageError(
            f"{started} processes were started, but trainer.devices={config.trainer.devices} × "
            f"trainer.num_nodes={config.trainer.num_nodes} is {wanted}; make them equal."
        )
    if not started and config.trainer.num_nodes > 1:
        raise UsageError(
            f"trainer.num_nodes={config.trainer.num_nodes} needs a launcher on every node: srun, or torchrun "
            f"--nnodes={config.trainer.num_nodes} --nproc-per-node={config.trainer.devices} -m ecrl train …"
        )
    if config.trainer.accelerator == "gpu" and config.trainer.devices > torch.cuda.device_count():
        raise UsageError(
            f"trainer.devices={config.trainer.devices}, but this machine has {torch.cuda.device_count()} "
            "GPU(s); ask for no more than there are, or set trainer.accelerator=cpu."
        )


def launch(config: Config, arguments: Sequence[str]) -> int:
    """Run ``ecrl <arguments>`` in ``trainer.devices`` processes on this machine, and wait for them.

    Returns:
        The exit code: that of the process that failed first, or 128 plus the number of the signal that
        stopped all.

    Raises:
        EcrlError: a process was killed, crashed, or stopped answering, so it could not report why.
        KeyboardInterrupt: a second signal came before all processes had ended.
    """
    _silence_elastic_agent()
    # Otherwise each process would start one thread for every core.
    threads = max((os.cpu_count() or 1) // config.trainer.devices, 1)
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SHUTDOWN))
    os.environ["ECRL_LAUNCHER"] = str(os.getpid())
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=config.trainer.devices,
        run_id=uuid4().hex,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=0.2,
    )
    run: Any = elastic_launch(settings, sys.executable)
    said = tempfile.TemporaryDirectory(prefix="ecrl-said-")
    os.environ[SAID] = said.name
    try:
        run("-m", "ecrl", *arguments)
    except SignalException as stop:
        if isinstance(stop.__context__, SignalException):  # the second signal, while the processes ended
            raise KeyboardInterrupt(int(stop.sigval)) from None
        return 128 + int(stop.sigval)
    except ChildFailedError as error:
        return _first_failure(error)
    finally:
        said.cleanup()
        for name in ("ECRL_LAUNCHER", SAID):  # the next run of a sweep may not need a launcher
            del os.environ[name]
    return 0


def launched_by_ecrl() -> bool:
    """Whether ``launch`` started this process."""
    return "ECRL_LAUNCHER" in os.environ


def end_with_launcher() -> None:
    """Ask the kernel to kill this process when its launcher dies, even by ``kill -9``."""
    if launcher := os.environ.get("ECRL_LAUNCHER"):
        end_with_parent(int(launcher))


def exit_without_finalizing(code: int) -> NoReturn:
    """Run the registered exit functions, then end this process without finalizing the interpreter.

    If one of gloo's threads frees a tensor during finalization, the process aborts:
    https://github.com/pytorch/pytorch/issues/190489.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def peer_error(error: RuntimeError) -> type[LostPeerError] | None:
    """Return the kind of error with which a collective failed because of another process; None for others."""
    return next((kind for pattern, kind in _PEER_ERRORS if pattern.search(str(error))), None)


@contextmanager
def peers_named() -> Iterator[None]:
    """Turn an error of a collective into a one-line error if another process caused it.

    Raises:
        LostPeerError: a collective in the block failed because another process is gone.
        SilentPeerError: a collective in the block failed because another process hangs.
    """
    try:
        yield
    except RuntimeError as error:
        kind = peer_error(error)
        if kind is None:
            raise
        cause = str(error).splitlines()[0].split("] ")[-1].split(". ")[0]
        lost = kind(f"Process {os.environ.get('RANK', '0')} lost another process ({cause}).")
        lost.said_elsewhere = launched_by_ecrl()  # our launcher reports which one, and why
        raise lost from None


def _first_failure(error: ChildFailedError) -> int:
    """Return the exit code of the process that failed first and reported why.

    Raises:
        EcrlError: it could not report why; the message does.
    """
    # A process that only lost its peer is not the cause. Neither is one that was killed because it did
    # not answer.
    codes = {f.exitcode for f in error.failures.values()}
    consequences = {LostPeerError.exit_code, SilentPeerError.exit_code}
    if SilentPeerError.exit_code in codes:
        consequences |= {code for code in codes if code < 0}
    causes = {r: f for r, f in error.failures.items() if f.exitcode not in consequences}
    if not causes:
        raise EcrlError(
            "A process of the run stopped answering within trainer.timeout. Continue from the last "
            "checkpoint with resume=RUN_DIR."
        )
    rank, failure = min(causes.items(), key=lambda item: item[1].timestamp)
    if failure.exitcode < 0:
        raise EcrlError(
            f"Process {rank} (pid {failure.pid}) was killed by {_signal_name(failure)}; the others were "
            "stopped. Continue from the last checkpoint with resume=RUN_DIR."
        )
    return failure.exitcode


def _signal_name(failure: ProcessFailure) -> str:
    try:
        return signal.Signals(-failure.exitcode).name
    except ValueError:
        return f"signal {-failure.exitcode}"


def _silence_elastic_agent() -> None:
    """Silence torch's elastic agent; ``launch`` reports a failure in one line."""
    for name in list(logging.root.manager.loggerDict):  # each of its modules sets its own level
        if name.startswith(("torch.distributed.elastic", "torch.distributed.launcher")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
