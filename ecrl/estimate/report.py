"""The tables and notes that ``ecrl plan`` prints."""

from __future__ import annotations

from rich.table import Table

from ecrl.estimate.flops import DECODE_BANDWIDTH, iteration, seconds, tokens
from ecrl.estimate.job import Job
from ecrl.estimate.memory import GIB, RESERVE, concurrent, engine_parts, host_or_gpu_state, moments, reserve
from ecrl.estimate.remedies import gains
from ecrl.policy.varlen import VARLEN


def memory_table(job: Job) -> Table:
    """Memory of each GPU by part, at every moment that may need the most."""
    columns = moments(job)
    table = Table("GiB on each GPU", *columns, title=f"Memory: {_where(job)}")
    for name in dict.fromkeys(part for parts in columns.values() for part in parts):
        table.add_row(name, *(_gib(parts.get(name, 0.0)) for parts in columns.values()))
    spare = reserve(job)
    table.add_row("kept free", *(_gib(spare) for _ in columns))
    totals = (_gib(sum(parts.values()) + spare) for parts in columns.values())
    table.add_row(f"sum, of {job.given.memory:g}", *totals, style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def work_table(job: Job) -> Table:
    """FLOPs and time of an iteration, by phase."""
    phases = iteration(job)
    total = sum(phase.seconds for phase in phases.values())
    table = Table("phase", "PFLOP", "seconds", "share", title="One iteration")
    for name, phase in phases.items():
        share = f"{phase.seconds / total:.0%}"
        table.add_row(name, f"{phase.flops / 1e15:,.1f}", f"{phase.seconds:,.1f}", share)
    work = sum(phase.flops for phase in phases.values())
    table.add_row("sum", f"{work / 1e15:,.1f}", f"{total:,.1f}", "", style="bold")
    if job.draws_ahead:
        table.add_row("drawn while training", "", f"{seconds(job):,.1f}", "", style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def gains_table(job: Job) -> Table:
    """What each remedy gains in this configuration, or would gain."""
    table = Table("setting", "beside", "in use", "update", "GiB", title="What each remedy gains (estimates)")
    for gain in gains(job):
        beside, used = gain.against.partition("=")[2], "yes" if gain.in_use else ""
        table.add_row(gain.override, beside, used, f"{gain.factor:.2f} ×", f"{gain.bytes / GIB:+,.1f}")
    table.columns[0].overflow = "fold"
    for column in table.columns[3:]:
        column.justify = "right"
    return table


def notes(job: Job) -> list[str]:
    """The assumptions behind the tables, one line each."""
    given, rollout, card = job.given, job.config.rollout, job.given.card
    model = job.model
    product = f"{rollout.prompts} prompts × {rollout.group_size} × {job.completion:,.0f} tokens"
    lines = [
        f"{model.name}: {_billions(model.parameters)} parameters, {_billions(job.trainable)} trained.",
        f"Trainer: {_trainer(job)}.",
        "Moments: backward pass of the LM head and of the layers, FSDP's last reduction, rollout.",
        f"Kept free: {RESERVE:.0%} for the CUDA context, NCCL and fragmentation.",
        f"Tokens: {product} = {tokens(job).own:,.0f}, at length={given.length:g} of "
        f"rollout.max_new_tokens={rollout.max_new_tokens} and prompt={given.prompt}.",
        f"Time: {given.gpu}, {card.flops / 1e12:.0f} TFLOP/s × utilisation={given.utilisation:g}; decoding "
        f"at {DECODE_BANDWIDTH:.0%} of {card.bandwidth / 1e12:.2f} TB/s, {_end(job)}.",
        "Left out: weight sync, validation, verifiers, resampled groups, padding, host transfers.",
    ]
    if job.offloads:
        host = sum(host_or_gpu_state(job).values())
        lines.append(f"Host memory: {host / GIB:.1f} GiB for each process (trainer.cpu_offload).")
    if job.disaggregated:
        gpus, held = job.engine_gpus, engine_parts(job)["vLLM weights"] / GIB
        lines.append(
            f"Servers: {job.engines} of {gpus} {'GPU' if gpus == 1 else 'GPUs'} each (server_gpus), "
            f"{held:.1f} GiB of weights on each; beside the GPUs above."
        )
        lines.append(_sync(job))
    if not job.shares_weights:
        full = concurrent(job, job.longest)
        lines.append(f"KV cache: {full:,} sequences of {job.longest:,} tokens in each copy of the engine.")
    return lines


def _sync(job: Job) -> str:
    """What a weight sync sends to a server."""
    whole = f"{job.engine_bytes * job.model.parameters / GIB:,.1f} GiB to each server"
    if not job.config.model.lora.r:
        return f"Weight sync: {whole}."
    adapters = job.engine_bytes * job.trainable / GIB
    return (
        f"Weight sync: {whole}, or, after the first one, {adapters:,.3f} GiB of adapters to servers that "
        f"were started with model.lora.r={job.config.model.lora.r}."
    )


def _end(job: Job) -> str:
    if job.config.rollout.partial:
        return "the longest completion beside those of the next rollout"
    return "at the end one completion alone"


def _trainer(job: Job) -> str:
    """How the passes compute, with every ``auto`` resolved."""
    caster = "autocast" if job.autocasts else "FSDP"
    precision = f"bf16-mixed by {caster}" if job.compute_bytes == 2 else job.precision
    flash = job.attention == VARLEN and not job.shares_prompts
    kind = "varlen" if flash else "sdpa" if job.attention == "sdpa" else "flex_attention"
    return ", ".join(
        [
            precision,
            f"{'compiled' if job.compiled else 'uncompiled'} layers",
            f"attention by {kind} with prompts {'shared' if job.shares_prompts else 'apart'}",
            "old log-probs by a pass" if job.scores_rollouts else "the engine's log-probs",
        ]
    )


def _where(job: Job) -> str:
    trainer = job.config.trainer
    kind = "one GPU" if job.gpus == 1 else f"{job.gpus} × {'fsdp' if job.shards > 1 else 'ddp'}"
    split = f", tensor parallel {trainer.tensor_parallel_size}" if trainer.tensor_parallel_size > 1 else ""
    engine = f", engines of {job.engine_gpus} GPUs" if job.engine_gpus > 1 and not job.disaggregated else ""
    return f"{kind}{split}{engine}, {job.precision}"


def _gib(size: float) -> str:
    return f"{size / GIB:,.1f}" if size else ""


def _billions(count: int) -> str:
    return f"{count / 1e9:.3g}e9"
