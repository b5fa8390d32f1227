"""Part d: an update with each remedy for its speed alone, then all of them together, with a profile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ecrl.distributed.sharding import Sharding
from ecrl.policy.decoder_layers import checkpoint_layers, decoder_layers
from gpu_parts.checks import group_of_one
from gpu_parts.report import LeftOutError, Report, Row, device, need_gpu
from gpu_parts.work import (
    LOAD,
    MODELS,
    TINY_LOAD,
    TINY_MODELS,
    Load,
    Model,
    build_policy,
    make_batch,
    synchronize,
    update,
    updater,
)

SHOWN = 5  # operations of a profile that go into its row


@dataclass(frozen=True)
class Variant:
    """How an update is made.

    Attributes:
        precision: ``float32``, ``tf32``, ``autocast`` or ``fsdp`` (which casts to bfloat16).
        attention: ``sdpa`` or ``flex_attention``.
        recomputed: ``selective`` or ``full``; empty keeps the activations.
        compiled: whether each decoder layer is compiled.
        fused: whether AdamW is one kernel.
    """

    precision: str = "autocast"
    attention: str = "sdpa"
    recomputed: str = ""
    compiled: bool = False
    fused: bool = True


PLAIN = Variant()
ALL = Variant("fsdp", "flex_attention", compiled=True)
VARIANTS = {
    "float32": Variant("float32"),
    "TF32": Variant("tf32"),
    "autocast": PLAIN,
    "FSDP's bfloat16": Variant("fsdp"),
    "AdamW not fused": replace(PLAIN, fused=False),
    "flex attention": replace(PLAIN, attention="flex_attention"),
    "layers compiled": replace(PLAIN, compiled=True),
    "selective recomputation": replace(PLAIN, recomputed="selective"),
    "full recomputation": replace(PLAIN, recomputed="full"),
    "all together": ALL,
}


def measure(report: Report) -> None:
    name, model = list((TINY_MODELS if report.smoke else MODELS).items())[-1]
    load = TINY_LOAD if report.smoke else replace(LOAD, repeats=2)
    for variant, how in VARIANTS.items():
        report.add("Remedies", {"model": name, "update": variant}, partial(measured, model, load, how))
    for variant, how in {"autocast": PLAIN, "all together": ALL}.items():
        label = {"model": name, "update": variant}
        file = report.folder / f"profile_{how.precision}.txt"
        report.add("Profiles", label, partial(profiled, model, load, how, file))


def measured(model: Model, load: Load, how: Variant) -> Row:
    batch = make_batch(model, load, shared=True)
    with ExitStack() as stack:
        policy, precision = built(model, how, stack)
        return update(policy, model, load, batch, load.row_tokens, precision=precision, fused=how.fused)


def profiled(model: Model, load: Load, how: Variant, file: Path) -> Row:
    """Profile one step; the table of operations goes to a file, the first few into the row."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    activities += [torch.profiler.ProfilerActivity.CUDA] if device().type == "cuda" else []
    with ExitStack() as stack:
        policy, precision = built(model, how, stack)
        batch = make_batch(model, load, shared=True)
        step, _ = updater(policy, model, batch, load.row_tokens, precision=precision)
        step()
        synchronize()
        with torch.profiler.profile(activities=activities) as profile:
            step()
            synchronize()
    kind = "self_device_time_total" if device().type == "cuda" else "self_cpu_time_total"
    events = sorted(profile.key_averages(), key=lambda event: -getattr(event, kind))
    total = sum(getattr(event, kind) for event in events) or 1
    file.write_text(profile.key_averages().table(sort_by=kind, row_limit=60))
    most = {event.key[:60]: f"{getattr(event, kind) / total:.0%}" for event in events[:SHOWN]}
    return {"file": file.name, **most}


def built(model: Model, how: Variant, stack: ExitStack) -> tuple[Any, Callable[[], Any]]:
    """Return the policy, and the context of its forward passes.

    Args:
        model: its sizes.
        how: what is changed.
        stack: takes what must be undone afterwards.

    Raises:
        LeftOutError: this device cannot do it.
    """
    if how.attention != "sdpa" or how.precision == "tf32":
        need_gpu()
    if how.compiled and device().type == "cpu":
        raise LeftOutError("compiled layers are measured on a GPU")
    policy = build_policy(model, how.attention)
    if how.recomputed:
        checkpoint_layers(policy.lm, how.recomputed)
    if how.compiled:
        for layer in decoder_layers(policy.lm):
            layer.compile()
    if how.precision == "tf32":
        stack.enter_context(products("high"))
    if how.precision == "fsdp":
        Sharding(stack.enter_context(group_of_one()), shard=True, bf16=True).apply(policy)
        policy.compute_device = device()
    if how.precision != "autocast":
        return policy, nullcontext
    return policy, partial(torch.autocast, device().type, torch.bfloat16)


@contextmanager
def products(precision: str) -> Any:
    """Set the precision of float32 products within the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
