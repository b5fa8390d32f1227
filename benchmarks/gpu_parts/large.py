"""Part e: seven billion parameters in FSDP of one process: peak memory beside the plan's, a weight sync."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from ecrl.config.schema import LoraConfig
from ecrl.distributed.sharding import Sharding
from ecrl.engines.checksum import WeightManifest, read
from ecrl.policy.decoder_layers import checkpoint_layers
from ecrl.policy.lora import add_adapters
from ecrl.policy.weights import HFWeights
from gpu_parts.checks import group_of_one
from gpu_parts.report import Report, Row, clean, device
from gpu_parts.work import (
    LOAD,
    TINY_LOAD,
    TINY_MODELS,
    Load,
    Model,
    build_policy,
    make_batch,
    peak_gib,
    synchronize,
    timed,
    updater,
)

#: Qwen2.5-7B's, but with a tied head.
SEVEN = Model(3_584, 18_944, 28, 28, 4, 152_064, 16_384)
LONG = replace(LOAD, groups=8, copies=8, prompt=256, response=(128, 384), row_tokens=16_384, repeats=1)


def measure(report: Report) -> None:
    model, load = (next(iter(TINY_MODELS.values())), TINY_LOAD) if report.smoke else (SEVEN, LONG)
    name = "tiny" if report.smoke else "7B"
    report.add("Weight sync", {"model": name}, partial(sync, model))
    for rank in (16, 0):  # the adapters first: they fit on smaller GPUs too
        label = {"model": name, "trained": f"LoRA, r={rank}" if rank else "all"}
        report.add("Peak memory", label, partial(peak, model, load, rank))


def sync(model: Model) -> Row:
    """What the trainer does at a sync: each tensor in bfloat16, and its checksum."""
    weights = HFWeights(build_policy(model, "sdpa").lm, device())

    def checked() -> None:
        manifest = WeightManifest()
        for _ in manifest.record(weights, torch.bfloat16):
            pass
        read(manifest.sums)

    def cast() -> None:
        for _, tensor in weights:
            tensor.to(torch.bfloat16)

    (with_checksums,), (without,) = timed(checked, 1), timed(cast, 1)
    count = sum(tensor.numel() for _, tensor in weights)
    return {
        "parameters": f"{count:.2e}",
        "seconds": f"{with_checksums:.3f}",
        "without checksums": f"{without:.3f}",
    }


def peak(model: Model, load: Load, rank: int) -> Row:
    """Two steps with full recomputation, in passes of ``max_tokens``; planned is the fullest moment."""
    with ExitStack() as stack:
        mesh = stack.enter_context(group_of_one())
        policy = build_policy(model, "auto")
        checkpoint_layers(policy.lm, "full")
        if rank:
            with torch.device(device()):
                add_adapters(policy.lm, LoraConfig(r=rank))
        Sharding(mesh, shard=True, bf16=True).apply(policy)
        policy.compute_device = device()
        batch = make_batch(model, load, shared=True)
        step, passes = updater(policy, model, batch, load.row_tokens, precision=no_context)
        clean()
        step()
        synchronize()
        start = time.perf_counter()
        step()
        synchronize()
        seconds = time.perf_counter() - start
    tokens = batch.num_tokens + load.groups * load.prompt
    return {
        "tokens": str(tokens),
        "passes": str(passes),
        "seconds": f"{seconds:.2f}",
        "tokens/s": f"{tokens / seconds:,.0f}",
        "peak GiB": peak_gib(),
        "planned GiB": planned(model, rank),
    }


def no_context() -> Any:
    return torch.autocast(device().type, enabled=False)


def planned(model: Model, rank: int) -> str:
    """Ask `ecrl plan` for the fullest moment of an update, without the share kept free."""
    if model is not SEVEN:
        return "–"
    try:
        from ecrl.config.compose import build_config
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    from ecrl.estimate.assumptions import Assumptions
    from ecrl.estimate.job import Job
    from ecrl.estimate.memory import moments

    config = build_config(
        [
            "model=qwen2_5_7b", "trainer.precision=bf16-mixed", "trainer.parallel=fsdp",
            f"update.max_tokens={model.max_tokens}", "rollout.max_new_tokens=1024", "strategy=[]",
            "model.activation_checkpointing=full", *([f"model.lora.r={rank}"] if rank else []),
        ]
    )  # fmt: skip
    parts = moments(Job(config, Assumptions()))
    return f"{max(sum(parts[m].values()) for m in ('head', 'layers', 'reduction')) / 2**30:.1f}"
