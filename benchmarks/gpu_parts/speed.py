"""Part b: throughput and peak memory of updates and generation, and an iteration beside TRL's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from typing import Any

from gpu_parts import ROOT
from gpu_parts.checks import check_kernels
from gpu_parts.report import Report, Row, need_gpu
from gpu_parts.work import (
    LOAD,
    MODELS,
    TINY_LOAD,
    TINY_MODELS,
    Load,
    Model,
    build_policy,
    generation,
    lm_head,
    make_batch,
    median_and_range,
    update,
)

LIMIT = 120.0  # seconds that one framework's iterations may take


def measure(report: Report) -> None:
    models, load = (TINY_MODELS, TINY_LOAD) if report.smoke else (MODELS, LOAD)
    best = "triton" if report.add("Triton kernels", {"check": "beside the tiles"}, check_kernels) else "tiles"
    for name, model in models.items():
        measure_model(report, name, model, load, best)
    for framework in ("ecrl", "trl"):
        label = {"model": next(iter(models)), "framework": framework}
        report.add("Iteration", label, partial(iteration, framework, report.smoke))


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

        def measured(batch: Any = batch, row_tokens: int = row_tokens, attention: str = attention) -> Row:
            if attention == "flex_attention":
                need_gpu()  # on a CPU it has no backward pass
            return update(build_policy(model, attention), model, load, batch, row_tokens)

        with lm_head(which):
            label = {"model": name, "packing": packing, "LM head": which, "attention": attention}
            report.add("Update", label, measured)
    engine = {"model": name, "engine": "hf"}
    report.add("Generation", engine, lambda: generation(build_policy(model, "sdpa"), load, shared))


def iteration(framework: str, smoke: bool) -> Row:
    """Run a framework in a fresh process; its first iteration does not count."""
    command = [sys.executable, "-m", "gpu_parts.iteration", framework] + ["--smoke"] * smoke
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(
        command, capture_output=True, text=True, env=environment, timeout=LIMIT, cwd=ROOT / "benchmarks"
    )
    last = (done.stderr if done.returncode else done.stdout).strip().splitlines()[-1:] or ["no message"]
    if done.returncode:
        if "ModuleNotFoundError: No module named" in last[0]:
            raise ModuleNotFoundError(last[0], name=last[0].split("'")[1])
        raise RuntimeError(last[0])
    return {"seconds per iteration": median_and_range(json.loads(last[0])[1:])}
