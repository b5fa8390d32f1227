"""torchrun and SLURM start the same run as `ecrl train` by itself: here two nodes of one process each."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.runs import assert_same_run
from tests.support.tiny import TINY

NODES = ["trainer.accelerator=cpu", "trainer.devices=1", "trainer.num_nodes=2", "iterations=2"]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def torchrun(port: int) -> list[tuple[list[str], dict[str, str]]]:
    """Words before ``ecrl train …`` and environment of each node."""
    words = ["-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    words += [f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=test", "-m"]
    return [(words, {})] * 2


def slurm(port: int) -> list[tuple[list[str], dict[str, str]]]:
    """What `srun` sets for each of two tasks."""
    shared = {
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NAME": "train",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_LOCALID": "0",
        "MASTER_PORT": str(port),
    }
    return [(["-m"], shared | {"SLURM_PROCID": str(i), "SLURM_NODEID": str(i)}) for i in range(2)]


@pytest.fixture(scope="module")
def base(tiny_model: Path) -> list[str]:
    return [*TINY, f"model.path={tiny_model}", "eval.every=2", "eval.problems=3", "eval.k=2"]


@pytest.fixture(scope="module")
def own(base: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("own") / "run"
    words = [*base, *NODES, "trainer.devices=2", "trainer.num_nodes=1", f"run_dir={run_dir}"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-m", "ecrl", "train", *words], check=True, timeout=200, env=environment)
    return run_dir


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [torchrun, slurm], ids=lambda f: f.__name__)
def test_the_same_run(launcher, base: list[str], own: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    run_dir = tmp_path / "run"
    train = ["ecrl", "train", *base, *NODES, f"run_dir={run_dir}"]
    nodes = [
        subprocess.Popen(
            [sys.executable, *words, *train],
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words, environment in launcher(free_port())
    ]
    try:
        outputs = [node.communicate(timeout=200)[0] for node in nodes]
    finally:
        for node in nodes:
            node.kill()
    assert [node.returncode for node in nodes] == [0, 0], outputs
    assert sum("Finished" in output for output in outputs) == 1  # one speaks for all
    assert_same_run(own, run_dir)


@pytest.mark.slow
def test_evaluation_in_two_processes_is_that_of_one(own: Path, tmp_path: Path) -> None:
    words = [str(own), "eval.sets={own: {}, wide: {k: 3, temperature: 0.7, max_new_tokens: 5}}"]
    results = []
    for devices in (1, 2):
        output = tmp_path / f"{devices}.json"
        command = [
            sys.executable,
            "-m",
            "ecrl",
            "eval",
            *words,
            f"trainer.devices={devices}",
            f"output={output}",
        ]
        done = subprocess.run(command, check=True, timeout=200, text=True, capture_output=True)
        assert done.stdout.count("standard error") == 1
        results.append(json.loads(output.read_text()))
    for kind in ("metrics", "standard_errors"):
        assert results[0][kind] == pytest.approx(results[1][kind], rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [torchrun, slurm], ids=lambda f: f.__name__)
def test_another_number_of_processes_is_one_line(launcher, base: list[str]) -> None:  # type: ignore[no-untyped-def]
    environment = launcher(0)[0][1] or {"RANK": "0", "WORLD_SIZE": "2"}
    command = [sys.executable, "-m", "ecrl", "train", *base, *NODES, "trainer.devices=2"]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "2 processes were started, but trainer.devices=2 × trainer.num_nodes=2 is 4" in done.stderr


def test_a_process_leaves_at_once_but_in_order() -> None:
    program = (
        "import atexit, threading, time; from ecrl.distributed.launch import exit_without_finalizing; "
        "atexit.register(print, 'registered'); threading.Thread(target=time.sleep, args=(600,)).start(); "
        "print('said'); exit_without_finalizing(3)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=100)
    assert (ended.returncode, ended.stdout.split()) == (3, ["said", "registered"]), ended.stderr
