"""The plugin that vLLM loads when one of its processes starts (entry point ``vllm.general_plugins``)."""

from __future__ import annotations

import multiprocessing
import os

from ecrl.distributed.parent_death import end_with_parent

#: Environment variable that ``ecrl serve`` sets for the processes of its server.
SERVER = "ECRL_SERVER"


def register() -> None:
    """Prepare a vLLM process for training."""
    _disable_weight_packing()
    if SERVER in os.environ:
        _end_with_server()


def _end_with_server() -> None:
    """End this vLLM process when the process that started it ends, even by ``kill -9``."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with_parent(parent.pid)


def _disable_weight_packing() -> None:
    """Stop vLLM's CPU build from packing the weights of linear layers.

    With oneDNN it packs them when it first loads them. A weight sync then changes the parameters but not
    the packed copies, and generation silently continues with the old weights.
    """
    from vllm import _custom_ops
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _custom_ops._supports_onednn = False
