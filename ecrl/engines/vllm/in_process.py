"""Starts and ends vLLM inside the trainer's process, and undoes its side effects on the process."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ecrl.distributed.environment import environment
from ecrl.engines.vllm import plugin as vllm_plugin
from ecrl.engines.vllm.requirements import check_head_size
from ecrl.engines.vllm.worker import EXTENSION
from ecrl.policy.model import PolicyModel
from ecrl.runs.cache import cache_folder, make_whole


def start(
    model: PolicyModel,
    dtype: torch.dtype,
    run: str,
    *,
    enforce_eager: bool,
    tensor_parallel_size: int,
    **knobs: Any,
) -> Any:
    """Start a vLLM with the policy's architecture and without weights.

    Args:
        model: the policy.
        dtype: type of vLLM's weights.
        run: a name that no other run on this machine has.
        enforce_eager: whether to skip compilation and CUDA graphs; they are always skipped on CPU.
        tensor_parallel_size: number of processes that start one vLLM together.
        **knobs: further arguments of ``vllm.LLM``.

    Returns:
        The ``vllm.LLM``.

    Raises:
        UsageError: vLLM's CPU attention does not support the size of the policy's attention heads.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM
    from vllm.platforms import current_platform

    vllm_plugin.register()
    check_head_size(model.lm.config)
    # Tensors made in inference mode, which the trainer may use here, could not be written to later.
    with _launcher_variables(), _shared_memory(run), torch.inference_mode(False):
        return LLM(
            model=str(_architecture(model)),
            skip_tokenizer_init=True,
            generation_config="vllm",
            load_format="dummy",
            dtype=str(dtype).removeprefix("torch."),
            enforce_eager=enforce_eager or current_platform.is_cpu(),
            enable_sleep_mode=current_platform.is_sleep_mode_available(),
            enable_prefix_caching=True,
            logprobs_mode="processed_logprobs",
            worker_extension_cls=EXTENSION,
            # If the trainer has a default process group, vLLM makes its own groups inside that one.
            distributed_executor_backend="external_launcher" if dist.is_initialized() else "uni",
            tensor_parallel_size=tensor_parallel_size,
            # The processes of one vLLM must schedule alike, so nothing may depend on what is ready first.
            async_scheduling=False if tensor_parallel_size > 1 else None,
            **knobs,
        )


def shutdown(llm: Any, owns_group: bool) -> None:
    """End vLLM and release its memory.

    Args:
        llm: the ``vllm.LLM``.
        owns_group: whether vLLM made the default process group, so that the group ends too.
    """
    core = llm.llm_engine.engine_core
    if owns_group:
        core.shutdown()
        return
    # vLLM's own shutdown would also destroy the trainer's default group.
    from vllm.distributed import parallel_state

    core._finalizer.detach()
    core.engine_core.model_executor.shutdown()
    parallel_state.destroy_model_parallel()
    parallel_state.get_world_group().destroy()
    parallel_state._WORLD = None


@contextmanager
def apart_from_trainer(device: torch.device) -> Iterator[None]:
    """Run vLLM in its own precision, and restore the global state of the process that it changes.

    Autocast, under which Lightning draws and scores, would round vLLM's products to another type than its
    own. The global state is that of the random generators, and torch's setting of threads.

    Args:
        device: the trainer's.
    """
    python, numpy, set_threads = random.getstate(), np.random.get_state(), torch.set_num_threads
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices), torch.autocast(device.type, enabled=False):
        yield
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_num_threads = set_threads


def _architecture(model: PolicyModel) -> Path:
    """Return a folder with the policy's ``config.json``, from which vLLM builds its model.

    Its path depends on the content only, because the path is part of the key of vLLM's compilation cache.
    It takes a few kilobytes for each architecture, and vLLM reads it at its start only.
    """
    config: Any = copy(model.lm.config)
    # FSDP puts its name before that of a class that it wraps.
    config.architectures = config.architectures or [type(model.lm).__name__.removeprefix("FSDP")]
    digest = sha256(config.to_json_string().encode()).hexdigest()[:16]
    folder = cache_folder() / f"architecture-{digest}"
    if not folder.exists():
        make_whole(folder, config.save_pretrained)
    return folder


@contextmanager
def _launcher_variables() -> Iterator[None]:
    """Set the environment variables from which vLLM reads its rank in the trainer's default group."""
    if not dist.is_initialized():
        yield
        return
    device = torch.cuda.current_device() if torch.cuda.is_available() else 0
    ranks = {"RANK": str(dist.get_rank()), "LOCAL_RANK": str(device)}
    with environment(ranks):
        yield


@contextmanager
def _shared_memory(run: str) -> Iterator[None]:
    """Let vLLM's CPU workers name the memory that they share after the run.

    They name it after the end of their launcher's address, which is the same for all runs on a machine.
    """
    from vllm.v1.executor.uniproc_executor import ExecutorWithExternalLauncher as Launcher

    found = Launcher._distributed_args
    Launcher._distributed_args = lambda executor: (f"env://:{run}", *found(executor)[1:])
    try:
        yield
    finally:
        Launcher._distributed_args = found
