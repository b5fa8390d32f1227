"""Settings that cannot work, found before anything is loaded or written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from math import isfinite
from typing import Any

from ecrl.config.schema import Config
from ecrl.errors import UsageError

PRECISIONS = ("32-true", "bf16-mixed")
PARALLEL = ("fsdp", "ddp")
LONGEST_TIMEOUT = 1e6  # seconds; the clocks behind it cannot count much further
LARGEST = 2**31 - 1  # beyond it, numbers are slips of the keyboard, and overflow in the libraries
#: What is started or drawn one by one, so that a slip would not fail but never end.
MOST = {
    "seed": 2**32 - 1,  # numpy takes no more
    "trainer.devices": 1024,
    "trainer.num_nodes": 65536,
    "rollout.prompts": 2**20,
    "rollout.group_size": 65536,
    "rollout.staleness": 1024,
}
ACCELERATORS = ("auto", "cpu", "gpu")
ATTENTION = ("auto", "sdpa", "flex_attention")


def check_values(config: Config) -> None:
    """Refuse settings that cannot work, before anything is loaded.

    Raises:
        UsageError: says which key, what it got and what it takes.
    """
    for name, value in _floats(asdict(config)):
        if not isfinite(value):
            raise UsageError(f"{name} must be a finite number, got {value}.")
    if config.model.path == "":
        raise UsageError("model.path is empty; give a directory or hub id, or leave it out.")
    at_least = {
        "iterations": (config.iterations, 1),
        "rollout.prompts": (config.rollout.prompts, 1),
        "rollout.group_size": (config.rollout.group_size, 1),
        "rollout.max_new_tokens": (config.rollout.max_new_tokens, 1),
        "update.minibatches": (config.update.minibatches, 1),
        "update.epochs": (config.update.epochs, 1),
        "update.max_tokens": (config.update.max_tokens, 1),
        "update.row_tokens": (config.update.row_tokens or 0, 0),
        "eval.every": (config.eval.every, 0),
        "eval.problems": (config.eval.problems, 1),
        "eval.k": (config.eval.k, 1),
        "checkpoint.every": (config.checkpoint.every, 1),
        "log.samples": (config.log.samples, 0),
        "log.samples_every": (config.log.samples_every, 1),
        "warmup.steps": (config.warmup.steps, 1),
        "warmup.batch": (config.warmup.batch, 1),
        "model.hidden_size": (config.model.hidden_size, 1),
        "model.layers": (config.model.layers, 1),
        "model.heads": (config.model.heads, 1),
        "seed": (config.seed, 0),
        "rollout.staleness": (config.rollout.staleness, 0),
        "trainer.devices": (config.trainer.devices, 1),
        "trainer.num_nodes": (config.trainer.num_nodes, 1),
        "trainer.tensor_parallel_size": (config.trainer.tensor_parallel_size, 1),
        "model.lora.r": (config.model.lora.r, 0),
    }
    for name, (value, least) in at_least.items():
        if value < least:
            raise UsageError(f"{name} must be at least {least}, got {value}.")
        if value > MOST.get(name, LARGEST):
            raise UsageError(f"{name} must be at most {MOST.get(name, LARGEST)}, got {value}.")
    if config.update.weight_decay < 0:
        raise UsageError(f"update.weight_decay must not be negative, got {config.update.weight_decay}.")
    if config.update.lr < 0 or config.update.grad_clip < 0:
        raise UsageError(
            f"update.lr and update.grad_clip must not be negative, got {config.update.lr}, "
            f"{config.update.grad_clip}."
        )
    if config.rollout.temperature <= 0:
        raise UsageError(
            "rollout.temperature must be above 0 (a policy gradient needs samples), "
            f"got {config.rollout.temperature}."
        )
    if not 0 < config.rollout.top_p <= 1:
        raise UsageError(f"rollout.top_p must be in (0, 1], got {config.rollout.top_p}.")
    if config.update.max_tokens <= config.rollout.max_new_tokens:
        raise UsageError(
            f"update.max_tokens={config.update.max_tokens} cannot hold one sequence of up to "
            f"{config.rollout.max_new_tokens} new tokens and a prompt; raise it."
        )
    if config.update.minibatches > config.rollout.prompts:
        raise UsageError(
            f"update.minibatches={config.update.minibatches} is more than rollout.prompts="
            f"{config.rollout.prompts}; a minibatch holds at least one group."
        )
    if config.eval.temperature <= 0:
        raise UsageError(
            f"eval.temperature must be above 0 (greedy answers are always drawn as well), "
            f"got {config.eval.temperature}."
        )
    _check_trainer(config)
    if not 0 <= config.warmup.wrong <= 1:
        raise UsageError(f"warmup.wrong is a share, in [0, 1], got {config.warmup.wrong}.")


def _check_trainer(config: Config) -> None:
    settings = config.trainer
    choices = {
        "trainer.precision": (settings.precision, PRECISIONS),
        "trainer.parallel": (settings.parallel, PARALLEL),
        "trainer.accelerator": (settings.accelerator, ACCELERATORS),
        "model.attention": (config.model.attention, ATTENTION),
    }
    for name, (value, known) in choices.items():
        if value not in known:
            raise UsageError(f"{name} takes one of {', '.join(known)}; got {value!r}.")
    if config.model.attention == "flex_attention" and settings.accelerator == "cpu":
        raise UsageError("model.attention=flex_attention trains on a GPU only; use sdpa on a CPU.")
    processes = settings.devices * settings.num_nodes
    if processes % settings.tensor_parallel_size:
        raise UsageError(
            f"trainer.tensor_parallel_size={settings.tensor_parallel_size} does not divide the {processes} "
            "processes (trainer.devices × trainer.num_nodes)."
        )
    if settings.tensor_parallel_size > 1 and config.model.lora.r:
        raise UsageError(
            "model.lora.r with trainer.tensor_parallel_size above 1 is not supported; trainer=fsdp alone "
            "shards adapters and base as well."
        )
    if config.model.lora.alpha <= 0:
        raise UsageError(f"model.lora.alpha must be positive, got {config.model.lora.alpha}.")
    if config.model.lora.target_modules == []:
        raise UsageError(
            "model.lora.target_modules=[] adapts nothing; leave it out to adapt all linear layers."
        )
    if settings.cpu_offload and (processes == 1 or settings.parallel == "ddp"):
        raise UsageError("trainer.cpu_offload=true needs trainer.parallel=fsdp and more than one process.")
    if not 0 < settings.timeout <= LONGEST_TIMEOUT:
        raise UsageError(
            f"trainer.timeout is in seconds, above 0 and at most {LONGEST_TIMEOUT:g}; got {settings.timeout}."
        )


def _floats(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """All floating-point settings with their dotted names."""
    for key, value in node.items():
        if isinstance(value, Mapping):
            yield from _floats(value, f"{prefix}{key}.")
        elif isinstance(value, float):
            yield f"{prefix}{key}", value
