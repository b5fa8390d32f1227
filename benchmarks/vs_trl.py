"""Iterations per second and learning beside TRL's GRPOTrainer: same model, problems and settings.

Each run is a separate process; the two frameworks take turns, so that a slow minute affects both.

    python benchmarks/vs_trl.py --pairs 5 --iterations 40 --output docs/results/vs_trl.json
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
from pathlib import Path
from typing import Any

import numpy as np

PROMPTS, GROUP, MINIBATCHES, LIMIT, LR = 64, 8, 4, 16, 1e-4
SKIPPED = 3  # first iterations, in which both fill caches


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


def measure(framework: str, base: str, seed: int, iterations: int) -> dict[str, list[float]]:
    """Run one framework in a fresh process."""
    command = [sys.executable, __file__, "--worker", framework, "--base", base]
    command += ["--seed", str(seed), "--iterations", str(iterations)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=1800)
    if result.returncode:
        raise SystemExit(f"{framework} failed:\n{result.stderr[-3000:]}")
    last: dict[str, list[float]] = json.loads(result.stdout.strip().splitlines()[-1])
    return last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=40)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--worker", choices=["ecrl", "trl"])
    parser.add_argument("--base")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.worker:
        run = {"ecrl": run_ecrl, "trl": run_trl}[arguments.worker]
        print(json.dumps(run(arguments.base, arguments.seed, arguments.iterations)))
        return
    base = base_model()
    pairs = []
    for seed in range(arguments.pairs):
        order = ("ecrl", "trl") if seed % 2 == 0 else ("trl", "ecrl")
        pair = {name: measure(name, base, 100 + seed, arguments.iterations) for name in order}
        pairs.append(pair)
        rates = {name: 1 / statistics.median(pair[name]["seconds"][SKIPPED:]) for name in pair}
        print(
            f"seed {100 + seed}: " + ", ".join(f"{n} {r:.2f} it/s" for n, r in sorted(rates.items())),
            flush=True,
        )
    report(pairs)
    if arguments.output:
        arguments.output.write_text(json.dumps(pairs) + "\n")


def report(pairs: list[dict[str, dict[str, list[float]]]]) -> None:
    """Print the medians of both, the range of their ratio, and the rewards at the end."""
    rate = {n: [1 / statistics.median(p[n]["seconds"][SKIPPED:]) for p in pairs] for n in ("ecrl", "trl")}
    ratios = [a / b for a, b in zip(rate["ecrl"], rate["trl"], strict=True)]
    for name, rates in rate.items():
        print(f"{name}: median {statistics.median(rates):.2f} it/s, range {min(rates):.2f}–{max(rates):.2f}")
    print(f"ratio: median {statistics.median(ratios):.2f}, range {min(ratios):.2f}–{max(ratios):.2f}")
    for name in ("ecrl", "trl"):
        last = [float(np.mean(p[name]["reward"][-10:])) for p in pairs]
        deviation = statistics.stdev(last) if len(last) > 1 else float("nan")
        print(
            f"{name}: reward of the last 10 iterations {statistics.mean(last):.3f} ± {deviation:.3f} (s.d.)"
        )


if __name__ == "__main__":
    main()
