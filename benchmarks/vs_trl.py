"""Iterations per second and learning beside TRL's GRPOTrainer: same model, problems and settings.

Each run is a separate process. The two take turns, and each comes first in every other pair, so that
a slow minute affects both. On two idle cores the default takes about ten minutes.

    python benchmarks/vs_trl.py --output docs/results/vs_trl.json
    OMP_NUM_THREADS=1 python benchmarks/vs_trl.py --cpu      # on a machine that does other work as well
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

PROMPTS, GROUP, MINIBATCHES, LIMIT, LR = 64, 8, 4, 16, 1e-4
SKIPPED = 3  # first iterations, in which both fill caches
LAST = 10  # iterations that the final reward is a mean of


def base_model() -> str:
    """Return the directory of the tiny base model, which is warmed up once for all runs."""
    from ecrl.config.compose import build_config
    from ecrl.training.warmup import cached_base

    return str(cached_base(build_config(["strategy=[]"])))


def run_ecrl(base: str, seed: int, iterations: int) -> dict[str, list[float]]:
    from ecrl.config.compose import build_config
    from ecrl.runs.metrics_file import read_metrics
    from ecrl.training.run import train

    with tempfile.TemporaryDirectory() as folder:
        config = build_config(
            [
                f"model.path={base}", f"seed={seed}", f"iterations={iterations}", f"run_dir={folder}/run",
                "strategy=[]", "eval.every=0", "objective.filters.drop_zero_variance=false",
                f"rollout.prompts={PROMPTS}", f"rollout.group_size={GROUP}",
                f"rollout.max_new_tokens={LIMIT}", f"update.minibatches={MINIBATCHES}", f"update.lr={LR}",
                "checkpoint.every=1000", "log.progress=false",
            ]
        )  # fmt: skip
        rows = read_metrics(train(config, lambda line: None).run_dir / "metrics.jsonl")
    return {
        "seconds": [row["time/total"] for row in rows],
        "reward": [row["rollout/reward"] for row in rows],
        "entropy": [row["policy/entropy"] for row in rows],
    }


def run_trl(base: str, seed: int, iterations: int) -> dict[str, list[float]]:
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from ecrl.envs.safe_calls import make as make_env
    from ecrl.rollout.problem_order import problem_seed

    env: Any = make_env("ecrl/Countdown-v0", "train", {})
    problems: dict[str, Any] = {}
    prompts = []
    for index in range(PROMPTS * iterations):
        prompt, info = env.reset(seed=problem_seed(seed, "train", index))
        problems[prompt] = info["problem"]
        prompts.append(prompt)

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        score = env.unwrapped.score
        return [score(problems[p], c).reward for p, c in zip(prompts, completions, strict=True)]

    ticks = [time.perf_counter()]
    rewards: list[float] = []
    entropies: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ticks[0] = time.perf_counter()

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "reward" in logs and state.global_step % MINIBATCHES == 0:
                ticks.append(time.perf_counter())
                rewards.append(logs["reward"])
                entropies.append(logs.get("entropy", float("nan")))

    with tempfile.TemporaryDirectory() as folder:
        trainer = GRPOTrainer(
            model=base,
            reward_funcs=reward,
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=AutoTokenizer.from_pretrained(base),
            callbacks=[Clock()],
            args=GRPOConfig(
                output_dir=folder, seed=seed, max_steps=MINIBATCHES * iterations, learning_rate=LR,
                lr_scheduler_type="constant", per_device_train_batch_size=PROMPTS * GROUP // MINIBATCHES,
                steps_per_generation=MINIBATCHES, num_generations=GROUP, max_completion_length=LIMIT,
                temperature=1.0, beta=0.0, epsilon=0.2, loss_type="dapo", shuffle_dataset=False,
                gradient_checkpointing=False, bf16=False, use_cpu=True, logging_steps=MINIBATCHES,
                save_strategy="no", report_to="none", disable_tqdm=True, weight_decay=0.0,
            ),
        )  # fmt: skip
        trainer.train()
    return {"seconds": np.diff(ticks).tolist(), "reward": rewards, "entropy": entropies}


def measure(framework: str, base: str, seed: int, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Run one framework in a fresh process."""
    command = [sys.executable, __file__, "--worker", framework, "--base", base]
    command += ["--seed", str(seed), "--iterations", str(arguments.iterations)]
    command += ["--cpu"] if arguments.cpu else []
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    if result.returncode:
        raise SystemExit(f"{framework} failed:\n{result.stderr[-3000:]}")
    last: dict[str, list[float]] = json.loads(result.stdout.strip().splitlines()[-1])
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pairs", type=int, default=6)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--cpu", action="store_true", help="CPU time, which other jobs disturb less")
    parser.add_argument("--output", type=Path, help="file for each iteration's seconds, reward and entropy")
    parser.add_argument("--worker", choices=["ecrl", "trl"], help=argparse.SUPPRESS)
    parser.add_argument("--base", help=argparse.SUPPRESS)
    parser.add_argument("--seed", type=int, default=0, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        if arguments.cpu:
            time.perf_counter = time.process_time  # both frameworks are timed by it
        run = {"ecrl": run_ecrl, "trl": run_trl}[arguments.worker]
        print(json.dumps(run(arguments.base, arguments.seed, arguments.iterations)))
        return
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "lightning", "trl"))
    what = "CPU time" if arguments.cpu else "wall time"
    print(f"{time.strftime('%Y-%m-%d')}; {packages}; {os.cpu_count()} cores; {what}\n")
    base = base_model()
    print("| seed | ecrl, it/s | TRL, it/s | ratio |\n|---|---|---|---|", flush=True)
    pairs = []
    for number in range(arguments.pairs):
        order = ("ecrl", "trl") if number % 2 == 0 else ("trl", "ecrl")
        pair = {name: measure(name, base, 100 + number, arguments) for name in order}
        pairs.append(pair)
        ecrl, trl = rate(pair["ecrl"]), rate(pair["trl"])
        print(f"| {100 + number} | {ecrl:.2f} | {trl:.2f} | {ecrl / trl:.2f} |", flush=True)
    report(pairs)
    if arguments.output:
        arguments.output.write_text(json.dumps(pairs) + "\n")


def rate(run: dict[str, list[float]]) -> float:
    """Iterations a second, those that draw figures included."""
    return 1 / statistics.mean(run["seconds"][SKIPPED:])


def report(pairs: list[dict[str, dict[str, list[float]]]]) -> None:
    """Print medians and the range of the ratio, then both learning curves and how far apart they end."""
    ecrl, trl = ([rate(pair[name]) for pair in pairs] for name in ("ecrl", "trl"))
    ratios = [a / b for a, b in zip(ecrl, trl, strict=True)]
    print(
        f"| **median** | **{statistics.median(ecrl):.2f}** | **{statistics.median(trl):.2f}** "
        f"| **{statistics.median(ratios):.2f}** ({min(ratios):.2f} – {max(ratios):.2f}) |\n"
    )
    iterations = min(len(pair[name]["reward"]) for pair in pairs for name in pair)
    ends = range(LAST, iterations + 1, LAST)
    print("| mean over iterations | " + " | ".join(f"{end - LAST + 1}–{end}" for end in ends) + " |")
    print("|---" * (1 + len(ends)) + "|")
    for name in ("ecrl", "trl"):
        for what in ("reward", "entropy"):
            means = [np.mean([np.mean(p[name][what][end - LAST : end]) for p in pairs]) for end in ends]
            print(f"| {name}, {what} | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    last = [[float(np.mean(p[name]["reward"][-LAST:])) for p in pairs] for name in ("ecrl", "trl")]
    differences = [a - b for a, b in zip(*last, strict=True)]
    print(f"\nreward of the last {LAST} iterations, ecrl − TRL: {statistics.mean(differences):+.3f}", end="")
    if len(differences) > 1:
        error = statistics.stdev(differences) / len(differences) ** 0.5
        print(f" ± {error:.3f} (standard error over {len(differences)} seeds)", end="")
    print()


if __name__ == "__main__":
    main()
