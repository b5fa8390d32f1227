"""Answers per second through the verifier pool and the sandbox, beside plain loops.

    python benchmarks/verify.py --rounds 5

Every round measures all variants in turn; the table gives the median and the range over the rounds.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import gymnasium as gym
from math_verify import parse, verify

sys.path.insert(0, str(Path(__file__).parent.parent))

from ecrl.envs.code.env import CodeEnv
from ecrl.envs.grading import grade
from ecrl.envs.verifiers.pool import VerifierPool
from tests.support.grading_table import PAIRS

ANSWERS = [(gold, response) for _, gold, response, _ in PAIRS if len(response) < 200]
PROGRAMS = 120
THREADS = 16


def rate(count: int, run: Callable[[], object]) -> float:
    """Return the number of items per second."""
    begin = time.perf_counter()
    run()
    return count / (time.perf_counter() - begin)


def math_verify_loop() -> float:
    """math-verify in a plain loop, without its signal-based time limits."""

    def run() -> None:
        for gold, response in ANSWERS:
            gold_parsed = parse(f"${gold}$", parsing_timeout=None)
            verify(gold_parsed, parse(response, parsing_timeout=None), timeout_seconds=None)

    return rate(len(ANSWERS), run)


def grade_all() -> int:
    """Grade all answers in a plain loop; return how many are correct."""
    return sum(grade(*answer).correct for answer in ANSWERS)


def plain_loop() -> float:
    """Our grader in a plain loop, in a fresh process, because sympy's caches would speed up a used one."""
    from benchmarks.verify import grade_all as importable

    with warm_pool(1) as (pool, _):
        return rate(len(ANSWERS), lambda: pool.run(importable, timeout=600))


def pooled(workers: int) -> float:
    """Our grader with one call of the pool for each answer, from several threads."""
    with warm_pool(workers) as (pool, threads):
        return rate(len(ANSWERS), lambda: list(threads.map(lambda a: pool.run(grade, *a), ANSWERS)))


@contextmanager
def warm_pool(workers: int) -> Iterator[tuple[VerifierPool, ThreadPoolExecutor]]:
    """A new pool whose workers have started and loaded all modules."""
    from benchmarks.verify import grade_all as importable

    pool = VerifierPool(workers)
    pool.run(getattr, importable, "__name__")
    pool.run(grade, "1", "1")
    with ThreadPoolExecutor(THREADS) as threads:
        list(threads.map(lambda _: pool.run(time.sleep, 0.5), range(workers)))
        yield pool, threads
    pool.close()


def call_seconds() -> float:
    """Return the seconds of a call through the pool that does nothing, one at a time."""
    pool = VerifierPool(1)
    pool.run(abs, 1)
    found = rate(2000, lambda: [pool.run(abs, 1) for _ in range(2000)])
    pool.close()
    return 1 / found


def bare_programs() -> float:
    """One subprocess for each program, without isolation, one after the other."""

    def run() -> None:
        for number in range(PROGRAMS):
            subprocess.run(
                [sys.executable, "-I", "-S", "-c", f"print({number})"], check=True, capture_output=True
            )

    return rate(PROGRAMS, run)


def sandboxed(env: CodeEnv, threads: int) -> float:
    """Programs through Code-v0, with full isolation."""
    problem = env.reset(options={"index": 0})[1]["problem"]

    def one(number: int) -> float:
        return env.score(problem, f"# {number}\nprint(int(input()) * 2)").reward

    with ThreadPoolExecutor(threads) as workers:
        return rate(PROGRAMS, lambda: list(workers.map(one, range(PROGRAMS))))


def episode_seconds() -> float:
    """Return the seconds of a reset and a step of the arithmetic environment."""
    env = gym.make("ecrl/Arithmetic-v0", disable_env_checker=True).unwrapped
    seeds = itertools.count()

    def run() -> None:
        for _ in range(2000):
            env.reset(seed=next(seeds))
            env.step("1+1=2")

    return 1 / rate(2000, run)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    row = {"problem": "Double it.", "tests": {"inputs": ["4"], "outputs": ["8"]}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.jsonl")
        file.write_text(json.dumps(row))
        env = CodeEnv(path=str(file))
        variants: dict[str, Callable[[], float]] = {
            "maths: math-verify, plain loop": math_verify_loop,
            "maths: ours, plain loop": plain_loop,
            "maths: ours, pool of 1": lambda: pooled(1),
            "maths: ours, pool of 2": lambda: pooled(2),
            "code: bare subprocesses, 1": bare_programs,
            "code: full isolation, 1": lambda: sandboxed(env, 1),
            "code: full isolation, 2": lambda: sandboxed(env, 2),
        }
        for measure in variants.values():
            measure()  # a warm-up
        found = {name: [] for name in variants} | {"episodes": [], "calls": []}
        for _ in range(rounds):
            for name, measure in variants.items():
                found[name].append(measure())
            found["episodes"].append(episode_seconds())
            found["calls"].append(call_seconds())
    print("| what | per second | lowest – highest |\n|---|---|---|")
    for name in variants:
        values = found[name]
        print(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} – {max(values):.0f} |")
    print()
    for name, what in (("episodes", "Reset and step of arithmetic"), ("calls", "A call through the pool")):
        values = [1e6 * seconds for seconds in found[name]]
        print(f"{what}: {statistics.median(values):.0f} µs ({min(values):.0f} – {max(values):.0f})")


if __name__ == "__main__":
    main()
