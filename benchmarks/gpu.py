"""All measurements on a GPU, in one script without network: one device, under 9 minutes.

    python benchmarks/gpu.py --output docs/results/gpu
    python benchmarks/gpu.py --smoke --output /tmp/gpu    # a tiny model, also on a CPU, to check the script

Qwen2 architectures with random weights: throughput and peak memory of an update, with padded rows, packed
rows and shared prompts, and with the plain, the tiled and the Triton LM head; throughput of the `hf` engine;
an iteration beside TRL's. A measurement that fails is noted in its table and does not stop the others; the
JSON and Markdown files are rewritten after each. Updates and generation need only torch and transformers.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from gpu_work import (
    LOAD,
    MODELS,
    TINY_LOAD,
    TINY_MODELS,
    Load,
    Model,
    build_lm,
    build_policy,
    check_kernels,
    clean,
    device,
    device_name,
    generation,
    lm_head,
    make_batch,
    median_and_range,
    synchronize,
    update,
)

BUDGET = 450.0  # seconds after which no measurement is started
LIMIT = 120.0  # seconds that one framework's iterations may take


# ------------------------------------------------------------------ one iteration beside TRL


def run_ecrl(path: str, load: Load) -> list[float]:
    from ecrl.config.compose import build_config
    from ecrl.runs.metrics_file import read_metrics
    from ecrl.training.run import train

    precision = "bf16-mixed" if device().type == "cuda" else "32-true"
    with tempfile.TemporaryDirectory() as folder:
        config = build_config(
            [
                f"model.path={path}", f"iterations={load.iterations}", f"run_dir={folder}/run",
                f"trainer.precision={precision}", "strategy=[]", "eval.every=0",
                "objective.filters.drop_zero_variance=false", f"rollout.prompts={load.groups}",
                f"rollout.group_size={load.copies}", f"rollout.max_new_tokens={load.new_tokens}",
                f"update.row_tokens={load.row_tokens}", "update.minibatches=2", "update.lr=1e-6",
                "checkpoint.every=1000", "log.progress=false",
            ]
        )  # fmt: skip
        rows = read_metrics(train(config, lambda line: None).run_dir / "metrics.jsonl")
    return [row["time/total"] for row in rows]


def run_trl(path: str, load: Load) -> list[float]:
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    from ecrl.envs.safe_calls import make as make_env

    env: Any = make_env("ecrl/Countdown-v0", "train", {})
    prompts = [env.reset(seed=index)[0] for index in range(load.groups * load.iterations)]
    ticks: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ticks.append(time.perf_counter())

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step % 2 == 0:
                synchronize()
                ticks.append(time.perf_counter())

    cuda = device().type == "cuda"
    with tempfile.TemporaryDirectory() as folder:
        GRPOTrainer(
            model=path,
            reward_funcs=lambda completions, **_: [float(len(c) % 2) for c in completions],
            train_dataset=Dataset.from_dict({"prompt": prompts}),
            processing_class=AutoTokenizer.from_pretrained(path),
            callbacks=[Clock()],
            args=GRPOConfig(
                output_dir=folder, max_steps=2 * load.iterations, learning_rate=1e-6,
                per_device_train_batch_size=load.groups * load.copies // 2, steps_per_generation=2,
                num_generations=load.copies, max_completion_length=load.new_tokens, beta=0.0,
                loss_type="dapo", shuffle_dataset=False, gradient_checkpointing=False, bf16=cuda,
                use_cpu=not cuda, model_init_kwargs={"dtype": "float32"}, save_strategy="no",
                logging_strategy="no", report_to="none", disable_tqdm=True, weight_decay=0.0,
            ),
        ).train()  # fmt: skip
    return np.diff(ticks).tolist()


def run_worker(framework: str, model: Model, load: Load) -> list[float]:
    """Return the seconds of each iteration of a framework, from the same random weights."""
    from ecrl.policy.tiny_model import build_tokenizer

    with tempfile.TemporaryDirectory() as path:
        build_lm(model).save_pretrained(path)
        build_tokenizer().save_pretrained(path)
        return {"ecrl": run_ecrl, "trl": run_trl}[framework](path, load)


def iteration(framework: str, smoke: bool) -> dict[str, str]:
    """Run a framework in a fresh process; its first iteration does not count."""
    command = [sys.executable, __file__, "--worker", framework] + ["--smoke"] * smoke
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=LIMIT)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr else "no message")
    return {"seconds per iteration": median_and_range(json.loads(done.stdout.strip().splitlines()[-1])[1:])}


# ------------------------------------------------------------------ report


def versions() -> dict[str, str]:
    found = {}
    for package in ("torch", "triton", "transformers", "lightning", "trl"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return {"python": platform.python_version(), **found}


class Report:
    """Tables by name; written to disk after each row."""

    def __init__(self, folder: Path, smoke: bool) -> None:
        self.folder, self.smoke, self.start = folder, smoke, time.perf_counter()
        self.tables: dict[str, list[dict[str, str]]] = {}
        folder.mkdir(parents=True, exist_ok=True)

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.perf_counter() - self.start

    def add(self, table: str, label: dict[str, str], function: Callable[[], dict[str, str]]) -> bool:
        """Measure one row; if it fails, note the error in the table and return False."""
        result: dict[str, str]
        try:
            result = function() if self.seconds < BUDGET else {"failed": "out of time"}
        except Exception as error:  # of any kind, so that the other measurements are still made
            lines = str(error).strip().splitlines() or [""]
            result = {"failed": f"{type(error).__name__}: {lines[0][:150]}"}
        clean()
        self.tables.setdefault(table, []).append({**label, **result})
        print(f"{table}: {label} {result}", flush=True)
        self.write()
        return "failed" not in result

    def write(self) -> None:
        """Write the rows so far."""
        facts = {
            "device": device_name(), "date": date.today().isoformat(), "smoke": self.smoke,
            "versions": versions(), "seconds": round(self.seconds),
        }  # fmt: skip
        (self.folder / "gpu.json").write_text(json.dumps({**facts, "tables": self.tables}, indent=1) + "\n")
        about = ", ".join(f"{k} {v}" for k, v in versions().items())
        parts = [f"{device_name()}, {facts['date']}; {about}{'; SMOKE TEST' * self.smoke}."]
        parts += [f"### {name}\n\n{markdown(rows)}" for name, rows in self.tables.items()]
        (self.folder / "gpu.md").write_text("\n\n".join(parts) + "\n")


def markdown(rows: list[dict[str, str]]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row.get(c, "").replace("|", "/") for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def measure_model(report: Report, name: str, model: Model, load: Load, best: str) -> None:
    """Measure all updates and the generation of one model."""
    own, shared = make_batch(model, load, shared=False), make_batch(model, load, shared=True)
    other = [which for which in ("tiles", "plain") if which != best]
    row = load.row_tokens
    cases: list[tuple[str, Any, int, str, str]] = [
        ("padded rows", own, 0, best, "sdpa"),
        ("packed rows", own, row, best, "sdpa"),
        ("shared prompts", shared, row, best, "sdpa"),
        *(("shared prompts", shared, row, which, "sdpa") for which in other),
        ("shared prompts", shared, row, best, "flex_attention"),
    ]
    for packing, batch, row_tokens, which, attention in cases:

        def measure(batch: Any = batch, row_tokens: int = row_tokens, attention: str = attention) -> Any:
            policy = build_policy(model, attention)
            return update(policy, model, load, batch, row_tokens)

        with lm_head(which):
            label = {"model": name, "packing": packing, "LM head": which, "attention": attention}
            report.add("Update", label, measure)
    policy_label = {"model": name, "engine": "hf"}
    report.add("Generation", policy_label, lambda: generation(build_policy(model, "sdpa"), load, shared))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("docs/results/gpu"))
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, on whatever device there is")
    parser.add_argument("--worker", choices=["ecrl", "trl"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    models, load = (TINY_MODELS, TINY_LOAD) if arguments.smoke else (MODELS, LOAD)
    if arguments.worker:
        print(json.dumps(run_worker(arguments.worker, next(iter(models.values())), load)))
        return
    if device().type == "cpu" and not arguments.smoke:
        raise SystemExit("There is no GPU here; --smoke runs the same on a tiny model.")
    report = Report(arguments.output, arguments.smoke)
    kernels_agree = report.add("Triton kernels", {"check": "beside the tiles"}, check_kernels)
    best = "triton" if kernels_agree else "tiles"
    for name, model in models.items():
        measure_model(report, name, model, load, best)
    name, model = next(iter(models.items()))
    for framework in ("ecrl", "trl"):
        label = {"model": name, "framework": framework}
        report.add("Iteration", label, lambda f=framework: iteration(f, arguments.smoke))
    print(f"\n{(arguments.output / 'gpu.md').read_text()}")


if __name__ == "__main__":
    main()
