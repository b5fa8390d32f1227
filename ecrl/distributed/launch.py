"""Starts a run's processes where torchrun or SLURM did not."""

from __future__ import annotations

import atexit
import logging
import os
import re
import signal
import sys
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
from ecrl.errors import EcrlError, LostPeerError, SilentPeerError, UsageError

SHUTDOWN = 300  # seconds that processes get to finish their iteration after a signal, or after a failure
#: How gloo and NCCL say that another process is gone or hangs.
_SIGNS = (
    (re.compile(r"time(d |)out", re.IGNORECASE), SilentPeerError),
    (re.compile(r"connection (closed|reset) by peer|NCCL", re.IGNORECASE), LostPeerError),
)


def processes(config: Config) -> int:
    """Number of processes the run wants."""
    return config.trainer.devices * config.trainer.num_nodes


def launched() -> int:
    """Number of processes that torchrun or SLURM started this one among; 0 if neither did."""
    if "RANK" in os.environ and "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    # An interactive allocation sets SLURM's variables too, but starts nothing by itself.
    if "SLURM_PROCID" in os.environ and os.environ.get("SLURM_JOB_NAME") not in ("bash", "interactive"):
        return int(os.environ.get("SLURM_NTASKS", "1"))
    return 0


def is_first_process() -> bool:
    """Whether this process is the one that speaks, as far as its environment tells."""
    return int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0) == 0


def check_launch(config: Config) -> None:
    """Refuse a number of processes that does not fit the way they were started.

    Raises:
        UsageError: says both numbers.
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
            "GPU(s); lower it, or set trainer.accelerator=cpu."
        )


def launch(config: Config, arguments: Sequence[str]) -> int:
    """Run ``ecrl <arguments>`` in ``trainer.devices`` processes of this machine, and wait for them.

    Returns:
        The exit code: that of the process that failed first, or 128 plus the signal that stopped all.

    Raises:
        EcrlError: a process died without a word (killed, or crashed).
        KeyboardInterrupt: a second signal came before all had ended.
    """
    _quiet_agent()
    # On a machine of its own each process would otherwise start a thread for every core.
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
    try:
        run("-m", "ecrl", *arguments)
    except SignalException as stop:
        if isinstance(stop.__context__, SignalException):  # the second, while the processes were ending
            raise KeyboardInterrupt(int(stop.sigval)) from None
        return 128 + int(stop.sigval)
    except ChildFailedError as error:
        return _first_failure(error)
    finally:
        del os.environ["ECRL_LAUNCHER"]  # the next job of a sweep may need no launcher
    return 0


def end_with_launcher() -> None:
    """Let the kernel kill this process when its launcher dies, even by ``kill -9``."""
    if launcher := os.environ.get("ECRL_LAUNCHER"):
        end_with_parent(int(launcher))


def exit_without_finalizing(code: int) -> NoReturn:
    """End this process of a run at once, but for what is registered to happen at its exit.

    The interpreter's own way takes its time, and gloo's threads that let go of a tensor meanwhile abort
    the process: https://github.com/pytorch/pytorch/issues/190489.
    """
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


@contextmanager
def peers_named() -> Iterator[None]:
    """Say in a line what a broken or silent connection between processes means.

    Raises:
        LostPeerError: a collective failed within the block because another process is gone,
            or (``SilentPeerError``) hangs.
    """
    try:
        yield
    except RuntimeError as error:
        kind = next((k for sign, k in _SIGNS if sign.search(str(error))), None)
        if kind is None:
            raise
        what = str(error).splitlines()[0].split("] ")[-1].split(". ")[0]
        lost = kind(f"Process {os.environ.get('RANK', '0')} lost another one ({what}).")
        lost.said_elsewhere = "ECRL_LAUNCHER" in os.environ  # it sees which one, and why
        raise lost from None


def _first_failure(error: ChildFailedError) -> int:
    # Those that only noticed that a peer was gone are not the cause, nor is one that had to be killed
    # because it did not answer.
    codes = {f.exitcode for f in error.failures.values()}
    results = {LostPeerError.exit_code, SilentPeerError.exit_code}
    if SilentPeerError.exit_code in codes:
        results |= {code for code in codes if code < 0}
    causes = {r: f for r, f in error.failures.items() if f.exitcode not in results}
    if not causes:
        raise EcrlError(
            "A process of the run stopped answering within trainer.timeout. Go on from the last checkpoint "
            "with resume=RUN_DIR."
        )
    rank, failure = min(causes.items(), key=lambda item: item[1].timestamp)
    if failure.exitcode < 0:
        raise EcrlError(
            f"Process {rank} (pid {failure.pid}) was killed by {_signal_name(failure)}; the others were "
            "stopped. Go on from the last checkpoint with resume=RUN_DIR."
        )
    return failure.exitcode


def _signal_name(failure: ProcessFailure) -> str:
    try:
        return signal.Signals(-failure.exitcode).name
    except ValueError:
        return f"signal {-failure.exitcode}"


def _quiet_agent() -> None:
    """Silence the agent's own reports; what failed is said in one line instead."""
    for name in list(logging.root.manager.loggerDict):  # each of its modules sets a level of its own
        if name.startswith(("torch.distributed.elastic", "torch.distributed.launcher")):
            logging.getLogger(name).setLevel(logging.CRITICAL)
