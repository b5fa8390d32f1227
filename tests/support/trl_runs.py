"""Short runs of TRL's trainer; as a module, one of two processes with KL-Cov, which says what was planned."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from ecrl.algorithm.strategy import Strategy
from ecrl.callbacks.kl_cov import KLCov
from ecrl.integrations.trl import EntropyControlledGRPOTrainer
from ecrl.policy.model import load_tokenizer

STEPS = 4


def reward(completions: list[str], **_: Any) -> list[float]:
    """The share of even digits, so that groups differ."""
    return [sum(c in "02468" for c in text) / max(len(text), 1) for text in completions]


def make_trainer(model: Path, folder: Path, *strategies: Strategy, plain: bool = False, **more: Any) -> Any:
    """Make a trainer of ours, or TRL's own where ``plain``; it draws from a seed that it sets now."""
    settings: dict[str, Any] = {
        "output_dir": str(folder), "max_steps": STEPS, "learning_rate": 3e-3, "num_generations": 4, "seed": 1,
        "per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "max_completion_length": 8,
        "steps_per_generation": 4, "beta": 0.0, "loss_type": "dapo", "use_cpu": True, "bf16": False,
        "gradient_checkpointing": False, "logging_steps": 1, "save_strategy": "no", "report_to": "none",
        "disable_tqdm": True, "max_grad_norm": 1e9,
    }  # fmt: skip
    prompts = [f"{a}{b} + {b}{a} = " for a in range(1, 9) for b in range(4)]
    arguments: dict[str, Any] = {
        "reward_funcs": reward,
        "args": GRPOConfig(**{**settings, **more}),
        "train_dataset": Dataset.from_dict({"prompt": prompts}),
        "processing_class": load_tokenizer(str(model)),
    }
    if plain:
        return GRPOTrainer(str(model), **arguments)
    return EntropyControlledGRPOTrainer(str(model), strategies=list(strategies), **arguments)


def main(model: Path, folder: Path) -> None:
    """Train as one of two processes; write what each plan holds of this one's tokens."""
    trainer, steps = make_trainer(model, folder / "out", KLCov(fraction=0.1)), []
    make_plans = trainer._make_plans

    def noted(*args: Any) -> Any:
        plans = make_plans(*args)
        chosen = [plan.coefficients["KLCov"] for plan in plans if plan.coefficients]
        steps.append(
            {
                "tokens": sum(len(plan.tokens) for plan in plans),
                "scale": sum(float(plan.scale.sum()) for plan in plans),
                "chosen": sum(int((c != 0).sum()) for c in chosen),
                "share": plans[0].changed_fraction["KLCov"],
            }
        )
        return plans

    trainer._make_plans = noted
    trainer.train()
    (folder / f"{os.environ['RANK']}.json").write_text(json.dumps(steps))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
