"""What vLLM loads at the start of each of its processes (entry point ``vllm.general_plugins``)."""

from __future__ import annotations


def register() -> None:
    """Keep the weights of vLLM's CPU build where a weight sync can reach them.

    With oneDNN it packs the linear layers' weights when it loads them; later loads then change the
    parameters but not the packed copies, and generation silently goes on with the old ones.
    """
    from vllm import _custom_ops
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _custom_ops._supports_onednn = False
