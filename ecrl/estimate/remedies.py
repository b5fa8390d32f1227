"""What each setting that makes updates faster or smaller would gain, or gains, in a configuration."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from omegaconf import OmegaConf

from ecrl.errors import UsageError
from ecrl.estimate.advice import changed
from ecrl.estimate.flops import update_seconds
from ecrl.estimate.job import Job
from ecrl.estimate.memory import moments

#: Overrides, each with what it is compared with.
REMEDIES = (
    ("trainer.precision=bf16-mixed", "trainer.precision=32-true"),
    ("trainer.parallel=fsdp", "trainer.parallel=ddp"),
    ("model.dtype=auto", "model.dtype=float32"),
    ("model.quantization=nf4", "model.quantization=null"),
    ("model.compile=true", "model.compile=false"),
    ("model.attention=varlen", "model.attention=flex_attention"),
    ("model.activation_checkpointing=selective", "model.activation_checkpointing=full"),
    ("model.activation_checkpointing=false", "model.activation_checkpointing=full"),
    ("rollout.old_logprobs=engine", "rollout.old_logprobs=recompute"),
    ("trainer.cpu_offload=false", "trainer.cpu_offload=true"),
)


@dataclass(frozen=True)
class Gain:
    """What one override changes.

    Attributes:
        override: the setting.
        against: what it is compared with.
        in_use: whether the configuration has it.
        factor: time of the update without it, over the time with it.
        bytes: memory of the update on each GPU with it, less that without it.
    """

    override: str
    against: str
    in_use: bool
    factor: float
    bytes: float


def gains(job: Job) -> Iterator[Gain]:
    """Yield what each remedy changes in a job, if it can be set and changes anything."""
    here = _cost(job)
    for override, against in REMEDIES:
        try:
            on, off = (_cost(changed(job, OmegaConf.from_dotlist([word]))) for word in (override, against))
        except UsageError:  # not with the job's other settings
            continue
        if on != off:
            yield Gain(override, against, on == here, off[0] / on[0], on[1] - off[1])


def _cost(job: Job) -> tuple[float, float]:
    """Seconds of an iteration's update, and its peak of memory in bytes."""
    peaks = (sum(parts.values()) for name, parts in moments(job).items() if name != "rollout")
    return update_seconds(job), max(peaks)
