"""What vLLM loads at the start of each of its processes (entry point ``vllm.general_plugins``)."""

from __future__ import annotations

import multiprocessing
import os

from ecrl.distributed.parent_death import end_with_parent

#: In the environment of the processes that ``ecrl serve`` starts.
SERVER = "ECRL_SERVER"


def register() -> None:
    """Prepare a process of vLLM's for training."""
    _keep_weights_in_reach()
    if SERVER in os.environ:
        _end_with_server()


def _end_with_server() -> None:
    """Let vLLM's own processes end with the one that started them, even by ``kill -9``."""
    parent = multiprocessing.parent_process()
    if parent is not None and parent.pid is not None:
        end_with_parent(parent.pid)


def _keep_weights_in_reach() -> None:
    """Keep the weights of vLLM's CPU build where a weight sync can reach them.

    With oneDNN it packs the linear layers' weights when it loads them; later loads then change the
    parameters but not the packed copies, and generation silently goes on with the old ones.
    """
    from vllm import _custom_ops
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        _custom_ops._supports_onednn = False
