"""Seconds of each iteration of a framework, as JSON; `speed.py` runs it."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any

import numpy as np

from gpu_parts.report import device
from gpu_parts.work import LOAD, MODELS, TINY_LOAD, TINY_MODELS, Load, build_lm, synchronize


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


def main() -> None:
    from ecrl.policy.tiny_model import build_tokenizer

    framework, smoke = sys.argv[1], "--smoke" in sys.argv
    model, load = next(iter((TINY_MODELS if smoke else MODELS).values())), TINY_LOAD if smoke else LOAD
    with tempfile.TemporaryDirectory() as path:
        build_lm(model).save_pretrained(path)
        build_tokenizer().save_pretrained(path)
        print(json.dumps({"ecrl": run_ecrl, "trl": run_trl}[framework](path, load)))


if __name__ == "__main__":
    main()
