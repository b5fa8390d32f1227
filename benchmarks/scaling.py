"""How an iteration's time grows with its tokens, from 10³ to 10⁶, and what dominates it.

Random weights, answers as long as the limit, rewards by a coin: nothing is learnt, but every token is drawn,
scored and trained on. Each measurement is a separate process. A size that would not end within the time that
is left is not started.

    python benchmarks/scaling.py --minutes 60          # to 10⁶ tokens, if the time allows
    python benchmarks/scaling.py --quick               # to 10⁴ tokens, about two minutes
    OMP_NUM_THREADS=1 python benchmarks/scaling.py     # on one core, or two for two processes
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from ecrl.envs.base import Problem, ReasoningEnv, Score
from ecrl.hashing import stable_hash

GROUP, MINIBATCHES = 8, 4
PROMPT = 32  # digits
#: So many tokens that EOS, one of them, hardly ever ends an answer early.
VOCABULARY = 4096
PARTS = ("generate", "score", "update")
#: Of which framework, in how many processes.
WAYS = (("ecrl", 1), ("ecrl", 2), ("trl", 1))


@dataclass(frozen=True)
class Size:
    """Prompts of an iteration, most tokens of an answer, iterations to run; the last one counts."""

    prompts: int
    limit: int
    iterations: int

    @property
    def tokens(self) -> int:
        """All answers' tokens."""
        return self.prompts * GROUP * self.limit


SIZES = (Size(8, 16, 3), Size(32, 40, 2), Size(64, 200, 2), Size(128, 1000, 1))


class CoinEnv(ReasoningEnv):
    """A prompt of digits; the reward is a coin that the answer's hash tosses."""

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw the digits."""
        return Problem("".join(map(str, rng.integers(10, size=PROMPT))), None)

    def score(self, problem: Problem, response: str) -> Score:
        """Toss the coin."""
        return Score(coin(problem.prompt + response))


gym.register("bench/Coin-v0", entry_point="scaling:CoinEnv")


def coin(text: str) -> float:
    """Return 0 or 1."""
    return float(stable_hash(text) % 2)


def make_model(folder: Path) -> None:
    """Write the model: the tiny one's size, with a larger vocabulary and longer positions."""
    from transformers import Qwen2ForCausalLM

    from ecrl.config.schema import ModelConfig
    from ecrl.policy.tiny_model import build_model, build_tokenizer

    tokenizer = build_tokenizer()
    config = build_model(ModelConfig(), tokenizer, 0).config
    config.vocab_size, config.max_position_embeddings = VOCABULARY, 2048
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def run_ecrl(model: str, size: Size, processes: int, folder: Path) -> dict[str, float]:
    """Return the last iteration's row of ``metrics.jsonl``."""
    command = [
        sys.executable, "-m", "ecrl", "train", f"model.path={model}", "env.id=scaling:bench/Coin-v0",
        f"run_dir={folder}/run", f"iterations={size.iterations}", f"rollout.prompts={size.prompts}",
        f"rollout.group_size={GROUP}", f"rollout.max_new_tokens={size.limit}",
        f"update.minibatches={MINIBATCHES}", "strategy=[]", "objective.filters.drop_zero_variance=false",
        "eval.every=0", "checkpoint.every=1000", f"trainer.devices={processes}", "trainer.parallel=ddp",
        "log.progress=false",
    ]  # fmt: skip
    call(command, processes)
    last: dict[str, float] = json.loads((folder / "run/metrics.jsonl").read_text().splitlines()[-1])
    return last


def run_trl(model: str, size: Size, processes: int, folder: Path) -> dict[str, float]:
    """Return the last iteration's seconds and tokens."""
    worker = ["--worker", model, str(size.prompts), str(size.limit), str(size.iterations)]
    command = [sys.executable, __file__, *worker, "--output", str(folder)]
    printed = call(command, processes)
    last: dict[str, float] = json.loads(printed.splitlines()[-1])
    return last


def call(command: list[str], processes: int) -> str:
    """Run a command to its end, with the cores divided among its processes; return what it printed."""
    cores = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    environment = os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "OMP_NUM_THREADS": str(max(cores // processes, 1)),
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stdout[-2000:]}{result.stderr[-2000:]}")
    return result.stdout.strip()


def trl_worker(model: str, size: Size, folder: str) -> dict[str, float]:
    """Train with TRL, in this process."""
    from datasets import Dataset
    from transformers import AutoTokenizer, TrainerCallback
    from trl import GRPOConfig, GRPOTrainer

    rng = np.random.default_rng(0)
    count = size.prompts * size.iterations
    prompts = ["".join(map(str, digits)) for digits in rng.integers(10, size=(count, PROMPT))]
    ticks: list[float] = []
    lengths: list[float] = []

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ticks.append(time.perf_counter())

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float], **_: Any) -> None:
            if "completions/mean_length" in logs:
                ticks.append(time.perf_counter())
                lengths.append(logs["completions/mean_length"])

    def reward(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [coin(p + c) for p, c in zip(prompts, completions, strict=True)]

    trainer = GRPOTrainer(
        model=model,
        reward_funcs=reward,
        train_dataset=Dataset.from_dict({"prompt": prompts}),
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[Clock()],
        args=GRPOConfig(
            output_dir=folder, max_steps=MINIBATCHES * size.iterations, lr_scheduler_type="constant",
            per_device_train_batch_size=size.prompts * GROUP // MINIBATCHES, num_generations=GROUP,
            steps_per_generation=MINIBATCHES, max_completion_length=size.limit, temperature=1.0, beta=0.0,
            loss_type="dapo", shuffle_dataset=False, gradient_checkpointing=False, bf16=False, use_cpu=True,
            logging_steps=MINIBATCHES, save_strategy="no", report_to="none", disable_tqdm=True,
        ),
    )  # fmt: skip
    trainer.train()
    return {"time/total": ticks[-1] - ticks[-2], "rollout/tokens": lengths[-1] * size.prompts * GROUP}


def measure(sizes: tuple[Size, ...], seconds: float) -> None:
    """Measure every size in every way, smallest first, and print a row for each."""
    end = time.monotonic() + seconds
    a_token = dict.fromkeys(WAYS, 0.0)  # seconds, by the size before
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "model"
        make_model(model)
        for size, (framework, processes) in product(sizes, WAYS):
            aside = Path(folder) / f"{framework}-{processes}-{size.tokens}"
            expected = a_token[framework, processes] * size.tokens * size.iterations
            if expected > end - time.monotonic():
                print(f"| {framework} | {processes} | {size.tokens:,} | not run" + " |" * 7, flush=True)
                continue
            aside.mkdir()
            run = run_ecrl if framework == "ecrl" else run_trl
            row = run(str(model), size, processes, aside)
            a_token[framework, processes] = row["time/total"] / row["rollout/tokens"]
            print(table_row(framework, processes, row), flush=True)


def table_row(framework: str, processes: int, row: dict[str, float]) -> str:
    """Write a row: tokens, seconds of each part, tokens a second, and the largest part."""
    total, tokens = row["time/total"], row["rollout/tokens"]
    cells = [framework, str(processes), f"{tokens:,.0f}", f"{total:.2f}"]
    if framework == "ecrl":
        parts = {part: row.get(f"time/{part}", 0.0) for part in PARTS}
        parts["rest"] = total - sum(parts.values())
        most = max(parts, key=lambda part: parts[part])
        cells += [f"{seconds:.2f}" for seconds in parts.values()]
        cells += [f"{tokens / total:,.0f}", f"{most}, {parts[most] / total:.0%}"]
    else:
        cells += ["", "", "", "", f"{tokens / total:,.0f}", ""]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="about the longest that it takes")
    parser.add_argument("--quick", action="store_true", help="the two smallest sizes")
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    parser.add_argument("--output", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        model, *numbers = arguments.worker
        print(json.dumps(trl_worker(model, Size(*map(int, numbers)), arguments.output)))
        return
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "lightning", "trl"))
    print(f"{time.strftime('%Y-%m-%d')}; {packages}; {os.cpu_count()} cores\n")
    print("| framework | processes | tokens | seconds | " + " | ".join((*PARTS, "rest")), end="")
    print(" | tokens/s | most |\n" + "|---" * 10 + "|", flush=True)
    measure(SIZES[:2] if arguments.quick else SIZES, 60 * arguments.minutes)


if __name__ == "__main__":
    main()
