"""Refuses a run that does not fit in memory, and finds the overrides that would make it fit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from math import floor
from typing import Any

from omegaconf import OmegaConf

from ecrl.config.compose import as_object
from ecrl.errors import EcrlError, UsageError
from ecrl.estimate.job import ENGINE_SHARE, Job
from ecrl.estimate.memory import GIB, RESERVE, Parts, engine_parts, moments, reserve, resident


def check_fit(job: Job) -> None:
    """Refuse a run that does not fit in memory.

    Raises:
        EcrlError: it does not fit; the message names the largest part and overrides that would help.
    """
    if job.disaggregated:
        _check_servers(job)
    if missing(job) <= 0:
        return
    parts = _fullest(job)
    largest = max(parts, key=lambda name: parts[name])
    ways = list(islice(ways_out(job), 3))
    advice = f"try {', or '.join(ways)}" if ways else "no override known here helps; use a smaller model"
    short = missing(job) / GIB
    raise EcrlError(
        f"{job.model.name} does not fit on {job.gpus} × {job.given.memory:g} GiB: {short:.1f} "
        f"GiB too much on each GPU. The largest part is {largest} ({parts[largest] / GIB:.1f} GiB); {advice}."
    )


def _check_servers(job: Job) -> None:
    need, have = sum(engine_parts(job).values()), ENGINE_SHARE * job.given.memory * GIB
    if need > have:
        raise EcrlError(
            f"{job.model.name} does not fit on a server of server_gpus={job.engine_gpus}: weights, working "
            f"memory and one sequence of {job.longest:,} tokens take {need / GIB:.1f} GiB on each GPU, and "
            f"vLLM has {have / GIB:.1f} GiB; split it over more, with `ecrl serve tensor_parallel_size=…`."
        )


def missing(job: Job) -> float:
    """Return the bytes that are missing on each GPU; zero or negative if the run fits."""
    return sum(_fullest(job).values()) + reserve(job) - job.given.memory * GIB


def ways_out(job: Job) -> Iterator[str]:
    """Yield overrides that make the run fit, the cheapest first.

    If a change still leaves colocated vLLM less than its share, a smaller share is added to the change.
    """
    share_suffices = _with_engine_share(job) != ""
    more_gpus_found = False
    for name, keys, times in _changes(job):
        if times > 1 and more_gpus_found:
            continue
        try:
            other = changed(job, keys, times)
        except UsageError:  # sizes that do not divide
            continue
        fits = missing(other) <= 0
        share = "" if fits else _with_engine_share(other)
        if (name and fits) or (share and not (name and share_suffices)):
            more_gpus_found = more_gpus_found or times > 1
            yield f"{name} {share}".strip()


def _with_engine_share(job: Job) -> str:
    """Return the override that gives vLLM what the trainer leaves; empty if the run still does not fit."""
    # Rounded down to a multiple of 0.05.
    share = floor(20 * (1 - RESERVE - sum(resident(job).values()) / (job.given.memory * GIB))) / 20
    if job.shares_weights or job.disaggregated or share <= 0:
        return ""
    other = changed(job, {"engine": {"gpu_memory_utilization": share}})
    return f"engine.gpu_memory_utilization={share:g}" if missing(other) <= 0 else ""


def _changes(job: Job) -> Iterator[tuple[str, dict[str, Any], int]]:
    """Yield candidates: overrides as text, the same as keys, and the factor on the number of GPUs."""
    trainer = job.config.trainer
    yield "", {}, 1
    for kind in ("selective", "full"):
        yield f"model.activation_checkpointing={kind}", {"model": {"activation_checkpointing": kind}}, 1
    yield f"update.max_tokens={job.longest}", {"update": {"max_tokens": job.longest}}, 1
    if not (job.shares_weights or job.disaggregated):
        for size in (2, 4, 8):
            if size > job.engine_gpus:
                split = {"engine": {"tensor_parallel_size": size}}
                yield f"engine.tensor_parallel_size={size}", split, 1
    if trainer.parallel == "ddp":
        yield "trainer.parallel=fsdp", {"trainer": {"parallel": "fsdp"}}, 1
    for times in (2, 4, 8):
        yield f"gpus={times * job.gpus}", {}, times
    if job.shards > 1 and not trainer.cpu_offload:
        yield "trainer.cpu_offload=true", {"trainer": {"cpu_offload": True}}, 1
    lora = {} if job.config.model.lora.r else {"lora": {"r": 16}}
    if lora:
        yield "model.lora.r=16", {"model": lora}, 1
    if not job.config.model.quantization and (job.gpus == 1 or trainer.parallel == "ddp"):
        name = "model.lora.r=16 " if lora else ""
        yield f"{name}model.quantization=nf4", {"model": {**lora, "quantization": "nf4"}}, 1


def changed(job: Job, keys: Any, times: int = 1) -> Job:
    """Return a job with other settings, and ``times`` as many GPUs.

    Args:
        job: the job.
        keys: the settings, nested as in the configuration.
        times: factor on the number of GPUs.

    Raises:
        UsageError: the settings cannot work together.
    """
    more = {"trainer": {"devices": times * job.config.trainer.devices}}
    config: Any = OmegaConf.merge(OmegaConf.structured(job.config), more, keys)
    return replace(job, config=as_object(config))


def _fullest(job: Job) -> Parts:
    """Return the parts of the moment that needs the most memory."""
    return max(moments(job).values(), key=lambda parts: sum(parts.values()))
