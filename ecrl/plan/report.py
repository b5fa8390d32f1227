"""What a plan shows, and the ways out that it names where it does not fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from omegaconf import OmegaConf
from rich.console import Group
from rich.table import Table

from ecrl.compose import as_object
from ecrl.errors import EcrlError
from ecrl.plan.flops import DECODE_BANDWIDTH, iteration, tokens
from ecrl.plan.job import CARDS, Job
from ecrl.plan.memory import (
    GIB,
    RESERVE,
    Parts,
    concurrent,
    host_or_gpu_state,
    moments,
    reserve,
)


def check_fit(job: Job) -> None:
    """Refuse a plan that does not fit.

    Raises:
        EcrlError: names the largest part, and changes that would make it fit by themselves.
    """
    short = _short(job)
    if short <= 0:
        return
    parts = fullest(job)
    largest = max(parts, key=lambda name: parts[name])
    ways = list(_ways_out(job))[:3]
    advice = f"try {', or '.join(ways)}" if ways else "no single change would do; combine more GPUs with LoRA"
    raise EcrlError(
        f"{job.model.name} on {job.gpus} × {job.given.gpu_memory:g} GiB does not fit: {short / GIB:.1f} GiB too "
        f"much on each GPU, most of it {largest} ({parts[largest] / GIB:.1f} GiB); {advice}."
    )


def memory_table(job: Job) -> Table:
    """Memory of each GPU by part, at every moment that may be the fullest."""
    columns = moments(job)
    table = Table("GiB on each GPU", *columns, title=f"Memory: {_where(job)}")
    for name in dict.fromkeys(part for parts in columns.values() for part in parts):
        table.add_row(name, *(_gib(parts.get(name, 0.0)) for parts in columns.values()))
    spare = reserve(job)
    table.add_row("kept free", *(_gib(spare) for _ in columns))
    totals = (_gib(sum(parts.values()) + spare) for parts in columns.values())
    table.add_row(f"sum, of {job.given.gpu_memory:g}", *totals, style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def work_table(job: Job) -> Table:
    """FLOPs and time of an iteration by phase."""
    phases = iteration(job)
    total = sum(phase.seconds for phase in phases.values())
    table = Table("phase", "PFLOP", "seconds", "share", title="One iteration")
    for name, phase in phases.items():
        share = f"{phase.seconds / total:.0%}"
        table.add_row(name, f"{phase.flops / 1e15:,.1f}", f"{phase.seconds:,.1f}", share)
    work = sum(phase.flops for phase in phases.values())
    table.add_row("sum", f"{work / 1e15:,.1f}", f"{total:,.1f}", "", style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def notes(job: Job) -> list[str]:
    """What the tables rest on, a line each."""
    given, rollout, count = job.given, job.config.rollout, tokens(job)
    card = CARDS[given.gpu]
    lines = [
        "Moments: the head's and the layers' backward pass, FSDP's last reduction, AdamW's step, the rollout.",
        f"{job.model.name}: {job.model.parameters / 1e9:.2f}e9 parameters, {job.trainable / 1e9:.2f}e9 trained.",
        f"Tokens: {rollout.prompts} prompts × {rollout.group_size} × {job.completion:,.0f} = {count.own / 1e6:.2f}e6 "
        f"(length={given.length:g} of {rollout.max_new_tokens}; prompt={given.prompt}).",
        f"Time: {given.gpu} at {card.flops / 1e12:.0f} TFLOP/s × utilisation={given.utilisation:g}; decoding at "
        f"{DECODE_BANDWIDTH:.0%} of {card.bandwidth / 1e12:.2f} TB/s, the longest completion alone at the end.",
        f"Kept free: {RESERVE:.0%} for the CUDA context, NCCL and fragmentation.",
        "Left out: weight sync, validation, verifiers, resampled groups, padding, host transfers.",
    ]
    if job.config.trainer.cpu_offload:
        host = sum(host_or_gpu_state(job).values())
        lines.append(f"Host memory: {host / GIB:.1f} GiB for each process (trainer.cpu_offload).")
    if job.apart:
        lines.append("The engine's own GPUs are not planned.")
    elif not job.in_process:
        full = concurrent(job, job.longest)
        lines.append(f"KV cache: {full:,} sequences of {job.longest:,} tokens in each copy of the engine.")
    return lines


def render(job: Job) -> Group:
    """Everything, to print."""
    return Group(memory_table(job), work_table(job), *notes(job))


def fullest(job: Job) -> Parts:
    """The parts of the fullest moment."""
    return max(moments(job).values(), key=lambda parts: sum(parts.values()))


def _short(job: Job) -> float:
    """Bytes that are missing on each GPU; not positive where the plan fits."""
    return sum(fullest(job).values()) + reserve(job) - job.given.gpu_memory * GIB


def _ways_out(job: Job) -> Iterator[str]:
    """Changes that make the plan fit, each by itself, the cheapest first."""
    config, gpus = job.config, job.gpus
    changes: dict[str, dict[str, Any]] = {
        "model.activation_checkpointing=true": {"model": {"activation_checkpointing": True}},
        f"update.max_tokens={job.longest}": {"update": {"max_tokens": job.longest}},
    }
    if not job.in_process and not job.apart:
        changes["engine.dtype=bfloat16"] = {"engine": {"dtype": "bfloat16"}}
        for share in (0.5, 0.3):
            changes[f"engine.gpu_memory_utilization={share}"] = {"engine": {"gpu_memory_utilization": share}}
    if config.trainer.parallel == "ddp":
        changes["trainer.parallel=fsdp"] = {"trainer": {"parallel": "fsdp"}}
    for change, keys in changes.items():
        if _short(_changed(job, keys)) <= 0:
            yield change
    more = (n for n in (2 * gpus, 4 * gpus, 8 * gpus) if _short(_changed(job, {}, gpus=n)) <= 0)
    yield from (f"gpus={n}" for n in list(more)[:1])
    for change, keys in {
        "trainer.cpu_offload=true": {"trainer": {"cpu_offload": True}},
        "model.lora.r=16": {"model": {"lora": {"r": 16}}},
    }.items():
        if _short(_changed(job, keys)) <= 0:
            yield change


def _changed(job: Job, keys: dict[str, Any], **given: Any) -> Job:
    config = OmegaConf.merge(OmegaConf.structured(job.config), keys)
    return Job(as_object(config), replace(job.given, **given))


def _where(job: Job) -> str:
    trainer = job.config.trainer
    kind = "one GPU" if job.gpus == 1 else f"{job.gpus} × {'fsdp' if job.shards > 1 else 'ddp'}"
    split = f", tensor parallel {trainer.tensor_parallel_size}" if trainer.tensor_parallel_size > 1 else ""
    return f"{kind}{split}, {trainer.precision}"


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f}" if size else ""
