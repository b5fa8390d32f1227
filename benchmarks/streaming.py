"""Completed iterations an hour with two vLLM servers: rollouts in waves, streaming, and partial ones.

A task with a long tail: answers of 4 to 256 tokens, each scored by a verifier that takes 50 ms of one of
the machine's verifier processes. Two real servers on this machine's CPU, one trainer. In waves every
completion is there before any is verified, as before ecrl streamed. The ways take turns, and each comes
first in turn, so that a slow minute affects all; every pair has a seed of its own. Run it in vLLM's
environment:

    python benchmarks/streaming.py                 # five pairs, 25 minutes on two idle cores
    python benchmarks/streaming.py --quick         # one pair of few iterations: does it run?
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import gymnasium as gym
import httpx
import numpy as np

from ecrl.engines.base import Completion, Request
from ecrl.engines.vllm.server import VLLMServerEngine
from ecrl.envs.base import Problem, ReasoningEnv, Score
from ecrl.envs.verifiers.pool import shared_pool
from ecrl.hashing import stable_hash
from ecrl.runs.versions import version_of_module

PROMPTS, GROUP, MINIBATCHES = 8, 8, 2
SHORTEST, LONGEST = 4, 256  # tokens of an answer, with the one that ends it
VERIFIER = 0.05  # seconds
SKIPPED = 3  # first iterations of a run, in which caches fill
SERVERS = 2

_SERVER = "engine=vllm_server"
_AHEAD = ["strategy=[importance_correction]"]
WAYS = {
    "waves": ["engine._target_=streaming.InWaves", "rollout.staleness=1"],
    "streaming": ["rollout.staleness=1"],
    "streaming, K=2": ["rollout.staleness=2"],
    "partial, K=2": ["rollout.staleness=2", "rollout.partial=true"],
}


class TailEnv(ReasoningEnv):
    """Write ticks; the digit in the prompt says how many they tend to be. The reward is a coin."""

    concurrent: ClassVar[bool] = True

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw the digit k, from 0 to 6: 4·2^k ticks on the average."""
        return Problem(f"{rng.integers(10**6):06} {rng.integers(7)}\n", None)

    def score(self, problem: Problem, response: str) -> Score:
        """Let a verifier's process wait, then toss the coin."""
        shared_pool().run(time.sleep, VERIFIER)
        return Score(float(stable_hash(problem.prompt + response) % 2))

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write ticks; after the first ones each may be the last."""
        mean = SHORTEST * 2 ** int(problem.prompt[-2])
        extra = rng.geometric(1 / (mean - SHORTEST + 1)) - 1
        return "|" * min(SHORTEST - 1 + int(extra), LONGEST - 1)


gym.register("bench/Tail-v0", entry_point="streaming:TailEnv")


class InWaves(VLLMServerEngine):
    """Gives its completions when the last of them is there."""

    waves = True
    _asked = 0

    def submit(self, requests: Sequence[Request]) -> None:
        """See ``Engine.submit``."""
        super().submit(requests)
        self._asked += len(requests)

    def poll(self) -> list[tuple[int, Completion]]:
        """See ``Engine.poll``."""
        done: list[tuple[int, Completion]] = []
        while len(done) < self._asked:
            done += super().poll()
        self._asked = 0
        return done


def base_model() -> str:
    """Return the directory of the base model, which is warmed up once for all runs."""
    from ecrl.config.compose import build_config
    from ecrl.training.warmup import cached_base

    model = ["model.hidden_size=64", "model.layers=2", "model.heads=2"]  # vLLM's CPU kernels want heads of 32
    warmup = ["warmup.steps=150", "warmup.batch=32"]
    task = ["env.id=streaming:bench/Tail-v0", f"rollout.max_new_tokens={LONGEST}"]
    return str(cached_base(build_config([*model, *warmup, *task, "strategy=[]"])))


@contextmanager
def servers(model: str, folder: Path) -> Iterator[list[str]]:
    """Start the servers; yield their URLs, and end them."""
    processes, urls = [], []
    for number in range(SERVERS):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [sys.executable, "-m", "ecrl", "serve", f"model.path={model}", f"port={port}"]
        with (folder / f"server-{number}.log").open("w") as log:
            processes.append(
                subprocess.Popen(
                    [*command, "dtype=float32", "max_model_len=512"],
                    env=environment() | {"VLLM_CPU_KVCACHE_SPACE": "1"},
                    stdout=log,
                    stderr=log,
                )
            )
        urls.append(f"http://127.0.0.1:{port}")
    try:
        for process, url in zip(processes, urls, strict=True):
            wait_for(process, url, folder)
        yield urls
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(60)


def wait_for(process: subprocess.Popen[bytes], url: str, folder: Path) -> None:
    """Wait until a server answers."""
    while True:
        if process.poll() is not None:
            logs = "\n".join(path.read_text()[-1000:] for path in folder.glob("server-*.log"))
            raise SystemExit(f"a server ended by itself:\n{logs}")
        try:
            if httpx.get(f"{url}/health", timeout=2).status_code < 500:
                return
        except httpx.HTTPError:
            time.sleep(0.5)


def environment() -> dict[str, str]:
    """Return the environment of every process: one thread each, and this file's folder on the path."""
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }


def run(way: str, model: str, urls: Sequence[str], seed: int, iterations: int) -> list[dict[str, Any]]:
    """Train; return the rows of the iterations that count."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable, "-m", "ecrl", "train", f"model.path={model}", "env.id=streaming:bench/Tail-v0",
            f"seed={seed}", f"iterations={iterations + SKIPPED}", f"run_dir={folder}/run",
            f"rollout.prompts={PROMPTS}", f"rollout.group_size={GROUP}", f"rollout.max_new_tokens={LONGEST}",
            f"update.minibatches={MINIBATCHES}", "update.lr=1e-6", "eval.every=0",
            "objective.filters.drop_zero_variance=false", "checkpoint.every=1000", "log.progress=false",
            "trainer.accelerator=cpu", _SERVER, f"engine.urls=[{','.join(urls)}]", "engine.dtype=float32",
            *_AHEAD, *WAYS[way],
        ]  # fmt: skip
        result = subprocess.run(command, capture_output=True, text=True, env=environment())
        if result.returncode:
            raise SystemExit(f"{' '.join(command)} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
        lines = (Path(folder) / "run/metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines][-iterations:]


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Return iterations an hour, and what they were like."""
    names = ("rollout/length", "time/engine_idle", "time/trainer_idle", "time/sync", "time/update")
    seconds = sum(row["time/total"] for row in rows)
    return {"per_hour": 3600 * len(rows) / seconds} | {n: statistics.fmean(r[n] for r in rows) for n in names}


def spread(values: Sequence[float], form: str) -> str:
    """Write mean ± standard deviation."""
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):{form}} ± {deviation:{form}}"


def report(pairs: Sequence[dict[str, dict[str, float]]]) -> None:
    """Print a row for each way; gains are those of its pairs."""
    print("| rollouts | iterations an hour | gain | engine idle | trainer idle | tokens an answer |")
    print("|---|---|---|---|---|---|")
    for way in pairs[0]:
        gains = [pair[way]["per_hour"] / pair["waves"]["per_hour"] for pair in pairs if "waves" in pair]
        cells = [
            spread([pair[way]["per_hour"] for pair in pairs], ".0f"),
            spread(gains, ".2f") if gains else "–",
            *(
                f"{statistics.fmean(pair[way][name] for pair in pairs):.2f}"
                for name in ("time/engine_idle", "time/trainer_idle", "rollout/length")
            ),
        ]
        print(f"| {way} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5, help="repetitions, each with a seed of its own")
    parser.add_argument("--iterations", type=int, default=12, help="that count, of each run")
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=list(WAYS))
    parser.add_argument("--quick", action="store_true", help="one pair of two iterations")
    parser.add_argument("--output", type=Path, help="JSON file for all that was measured")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.pairs, arguments.iterations = 1, 2
    os.environ.setdefault("ECRL_SERVER_TOKEN", secrets.token_hex(16))
    found = version_of_module("vllm")
    print(f"vLLM {found}, {os.cpu_count()} cores, {arguments.iterations} iterations of each run")
    model, pairs = base_model(), list[dict[str, dict[str, float]]]()
    with tempfile.TemporaryDirectory() as folder, servers(model, Path(folder)) as urls:
        for seed in range(arguments.pairs):
            shift = seed % len(arguments.ways)
            order = arguments.ways[shift:] + arguments.ways[:shift]
            pair = {way: summary(run(way, model, urls, seed, arguments.iterations)) for way in order}
            pairs.append({way: pair[way] for way in arguments.ways})
            print(json.dumps(pairs[-1]), file=sys.stderr, flush=True)
            if arguments.output:
                arguments.output.write_text(json.dumps(pairs, indent=1) + "\n")
    report(pairs)


if __name__ == "__main__":
    sys.modules["streaming"] = sys.modules["__main__"]  # where the environment's id finds its class
    main()
