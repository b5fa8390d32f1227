"""In which precision a run computes, and who casts: FSDP, or Lightning's autocast."""

from __future__ import annotations

from dataclasses import replace

import torch

from ecrl.config.schema import Config

BF16 = "bf16-mixed"


def device_type(config: Config) -> str:
    """Return the kind of device that the run computes on, by torch's name."""
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    return "cpu" if accelerator is None or config.trainer.accelerator == "cpu" else accelerator.type


def precision_of(config: Config) -> str:
    """Return ``trainer.precision``, with ``auto`` resolved for this machine."""
    if config.trainer.precision != "auto":
        return config.trainer.precision
    # Emulated bfloat16, on GPUs before Ampere, is slower than float32.
    has_bf16 = device_type(config) == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return BF16 if has_bf16 else "32-true"


def resolved(config: Config) -> Config:
    """Return the configuration with the precision that it has here, as the run's folder keeps it."""
    return replace(config, trainer=replace(config.trainer, precision=precision_of(config)))


def casts_by_fsdp(config: Config) -> bool:
    """Whether FSDP computes in bfloat16.

    Unlike autocast it also keeps the residual stream in bfloat16, so it does on a single GPU as well.
    """
    trainer = config.trainer
    # FSDP would cast 4-bit numbers like all others.
    if trainer.parallel == "ddp" or config.model.quantization or precision_of(config) != BF16:
        return False
    return trainer.devices * trainer.num_nodes > 1 or device_type(config) in ("cpu", "cuda")
