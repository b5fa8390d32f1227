"""Checks of the machine and of the settings that the vLLM engines make before anything is started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
from packaging.version import Version

from ecrl.config.schema import Config
from ecrl.engines.checksum import WORD
from ecrl.errors import UsageError
from ecrl.policy.meta_model import model_config
from ecrl.runs.versions import version_of, version_of_module

#: First release with the weight transfer, reload by iterator and sleep mode that are used here.
OLDEST = (0, 29)
#: Elements of 16 bits in a word of a checksum, which no worker may share with another.
_WHOLE = WORD // 2


def require_vllm() -> None:
    """Check that a recent vLLM is installed, without importing it, which takes seconds.

    Raises:
        UsageError: it is not installed, or too old.
    """
    found = version_of("vllm") or version_of_module("vllm")
    if found is None:
        raise UsageError(
            "The vLLM engines need vLLM, which is not installed: pip install 'ecrl[vllm]' with a GPU, or "
            "`make install-vllm` for a CPU build in .venv-vllm; or choose engine=hf."
        )
    if is_old(found):
        wanted = ".".join(map(str, OLDEST))
        raise UsageError(
            f"vLLM {found} is too old, {wanted} or later is needed: pip install 'vllm>={wanted}'."
        )


def is_old(found: str) -> bool:
    """Whether a version of vLLM, e.g. ``0.32.0rc1+cpu``, is older than the engines need.

    Raises:
        ValueError: the text is not a version.
    """
    return Version(found).release[:2] < OLDEST


def refuse_batch_invariance() -> None:
    """Refuse ``VLLM_BATCH_INVARIANT=1`` in the trainer's process, where it would change the trainer too.

    vLLM then replaces kernels of torch and settings of NCCL for the whole process; the matrix products that
    it puts in their place on GPUs before Hopper have no backward pass.

    Raises:
        UsageError: the variable is set.
    """
    if os.environ.get("VLLM_BATCH_INVARIANT", "0") not in ("", "0"):
        raise UsageError(
            "VLLM_BATCH_INVARIANT=1 replaces torch's kernels in the whole process, so engine=vllm would "
            "train with them too; set it for `ecrl serve` and train with engine=vllm_server, or unset it."
        )


def check_head_size(config: Any) -> None:
    """Refuse sizes of attention heads that vLLM's CPU attention would refuse only at the first token.

    Args:
        config: the model's transformers configuration.

    Raises:
        UsageError: the size of its attention heads is not supported on this machine.
    """
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionBackend

    text = config.get_text_config()
    size = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    known = CPUAttentionBackend.get_supported_head_sizes()
    if size not in known:
        raise UsageError(
            f"vLLM on CPU has no attention for heads of size {size} (it has {', '.join(map(str, known))}); "
            "use engine=hf, or another number of heads."
        )


def check_split(config: Any, size: int, key: str) -> None:
    """Refuse a number of workers over which vLLM cannot split a model's layers.

    Args:
        config: the model's transformers configuration.
        size: number of workers.
        key: the setting, for the error.

    Raises:
        UsageError: it does not divide what is split.
    """
    text = config.get_text_config()
    heads, kv_heads = text.num_attention_heads, getattr(text, "num_key_value_heads", None)
    if heads % size:
        raise UsageError(f"{key}={size} does not divide the model's {heads} attention heads; take a divisor.")
    if kv_heads and kv_heads % size and size % kv_heads:
        raise UsageError(
            f"{key}={size} and the model's {kv_heads} key-value heads: one must divide the other, so that "
            "vLLM can split or copy them; take another divisor of both."
        )
    inner = getattr(text, "intermediate_size", None)
    if size > 1 and inner and inner % (size * _WHOLE):
        raise UsageError(
            f"{key}={size} does not split the model's intermediate size {inner} into multiples of {_WHOLE}; "
            "take a smaller one."
        )


def check_groups(config: Config) -> None:
    """Refuse an ``engine.tensor_parallel_size`` for which processes or layers cannot be divided.

    The layers of a hub id whose ``config.json`` is not here yet are left for vLLM to judge.

    Raises:
        UsageError: says what it does not divide.
    """
    key, size = "engine.tensor_parallel_size", config.engine.get("tensor_parallel_size", 1)
    if size < 1:
        raise UsageError(f"{key} must be at least 1, got {size}.")
    if config.trainer.devices % size:
        raise UsageError(
            f"{key}={size} does not divide the {config.trainer.devices} processes of a node "
            "(trainer.devices), which form the engines; take a divisor."
        )
    try:
        model = model_config(config.model)
    except UsageError:
        return
    check_split(model, size, key)


def check_memory_share(share: float) -> None:
    """Refuse an ``engine.gpu_memory_utilization`` that is not a share.

    Raises:
        UsageError: it is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UsageError(f"engine.gpu_memory_utilization must be in (0, 1], got {share}.")


def check_positive(settings: Mapping[str, Any], *names: str) -> None:
    """Refuse times, counts and tolerances of an engine that are set but not above 0.

    Raises:
        UsageError: one is not positive.
    """
    for name in names:
        value = settings.get(name)
        if value is not None and not value > 0:
            raise UsageError(f"engine.{name} must be positive, got {value}.")


def as_dtype(name: str) -> torch.dtype:
    """Return the torch type with a name such as ``bfloat16``.

    Raises:
        UsageError: there is no such floating-point type.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UsageError(f"engine.dtype must be a floating-point type such as bfloat16, got {name!r}.")
    return dtype
