"""Answers a second through the verifier pool and the sandbox, beside plain loops.

    python benchmarks/verify.py --rounds 5

Every round measures all variants in turn; the table gives medians and the spread of the rounds.
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
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gymnasium as gym
from math_verify import parse, verify

sys.path.insert(0, str(Path(__file__).parent.parent))

from ecrl.envs.code import CodeEnv
from ecrl.envs.grading import grade
from ecrl.envs.pool import VerifierPool
from tests.envs.grading_table import PAIRS

ANSWERS = [(gold, response) for _, gold, response, _ in PAIRS if len(response) < 200]
PROGRAMS = 120
THREADS = 16


def rate(count: int, run: Callable[[], object]) -> float:
    """Items a second."""
    begin = time.perf_counter()
    run()
    return count / (time.perf_counter() - begin)


def math_verify_loop() -> float:
    """math-verify in a plain loop, without its signal-based limits."""

    def run() -> None:
        for gold, response in ANSWERS:
            gold_parsed = parse(f"${gold}$", parsing_timeout=None)
            verify(gold_parsed, parse(response, parsing_timeout=None), timeout_seconds=None)

    return rate(len(ANSWERS), run)


def plain_loop() -> float:
    """Our grader in a plain loop."""
    return rate(len(ANSWERS), lambda: [grade(*answer) for answer in ANSWERS])


def pooled(pool: VerifierPool) -> float:
    """Our grader through the pool, from several threads."""
    with ThreadPoolExecutor(THREADS) as threads:
        return rate(len(ANSWERS), lambda: list(threads.map(lambda a: pool.run(grade, *a), ANSWERS)))


def bare_programs() -> float:
    """One subprocess a program, without isolation, one after the other."""

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
    """Reset and step of arithmetic, seconds."""
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
        pools = {workers: VerifierPool(workers) for workers in (1, 2)}
        variants: dict[str, Callable[[], float]] = {
            "maths: math-verify, plain loop": math_verify_loop,
            "maths: ours, plain loop": plain_loop,
            "maths: ours, pool of 1": lambda: pooled(pools[1]),
            "maths: ours, pool of 2": lambda: pooled(pools[2]),
            "code: bare subprocesses, 1": bare_programs,
            "code: full isolation, 1": lambda: sandboxed(env, 1),
            "code: full isolation, 2": lambda: sandboxed(env, 2),
        }
        for measure in variants.values():
            measure()  # warm
        found = {name: [] for name in variants} | {"episodes": []}
        for _ in range(rounds):
            for name, measure in variants.items():
                found[name].append(measure())
            found["episodes"].append(episode_seconds())
        for pool in pools.values():
            pool.close()
    print("| what | a second | lowest – highest |\n|---|---|---|")
    for name in variants:
        values = found[name]
        print(f"| {name} | {statistics.median(values):.0f} | {min(values):.0f} – {max(values):.0f} |")
    episodes = [1e6 * s for s in found["episodes"]]
    low, high = min(episodes), max(episodes)
    print(f"\nReset and step of arithmetic: {statistics.median(episodes):.0f} µs ({low:.0f} – {high:.0f})")


if __name__ == "__main__":
    main()
