"""Starts and ends vLLM inside the trainer's own process, and keeps the two out of each other's way."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from ecrl.engines.vllm import plugin as vllm_plugin
from ecrl.engines.vllm.requirements import check_head_size
from ecrl.engines.vllm.worker import EXTENSION
from ecrl.policy.model import PolicyModel


def start(model: PolicyModel, dtype: torch.dtype, *, enforce_eager: bool, **knobs: Any) -> Any:
    """Start a vLLM of the policy's architecture, without weights.

    Args:
        model: the policy.
        dtype: of vLLM's weights.
        enforce_eager: neither compile nor capture graphs; always so on CPU.
        **knobs: further arguments of ``vllm.LLM``.

    Returns:
        The ``vllm.LLM``.

    Raises:
        UsageError: the policy's heads are of a size that vLLM's CPU attention does not have.
    """
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM
    from vllm.platforms import current_platform

    vllm_plugin.register()
    check_head_size(model.lm.config)
    # What vLLM keeps must not be born under the trainer's inference mode: later loads write to it.
    with TemporaryDirectory() as folder, _launcher_variables(), torch.inference_mode(False):
        _save_config(model, Path(folder))
        return LLM(
            model=folder,
            skip_tokenizer_init=True,
            generation_config="vllm",
            load_format="dummy",
            dtype=str(dtype).removeprefix("torch."),
            enforce_eager=enforce_eager or current_platform.is_cpu(),
            enable_sleep_mode=current_platform.is_sleep_mode_available(),
            enable_prefix_caching=True,
            logprobs_mode="processed_logprobs",
            worker_extension_cls=EXTENSION,
            # An initialised default group is the trainer's: vLLM then makes its own groups inside it.
            distributed_executor_backend="external_launcher" if dist.is_initialized() else "uni",
            **knobs,
        )


def shutdown(llm: Any, owns_group: bool) -> None:
    """End vLLM and release its memory.

    Args:
        llm: the ``vllm.LLM``.
        owns_group: the default process group is vLLM's, so it ends too; otherwise it is the trainer's.
    """
    core = llm.llm_engine.engine_core
    if owns_group:
        core.shutdown()
        return
    # vLLM's own shutdown would destroy the default group whoever made it.
    from vllm.distributed import parallel_state

    core._finalizer.detach()
    core.engine_core.model_executor.shutdown()
    parallel_state.destroy_model_parallel()
    parallel_state.get_world_group().destroy()
    parallel_state._WORLD = None


@contextmanager
def trainer_state_kept() -> Iterator[None]:
    """Undo what vLLM does to the process: it seeds and uses the global generators, and fixes the threads."""
    python, numpy, set_threads = random.getstate(), np.random.get_state(), torch.set_num_threads
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        yield
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_num_threads = set_threads


def _save_config(model: PolicyModel, folder: Path) -> None:
    """Write the ``config.json`` that vLLM builds its model from: the policy's, wherever it came from."""
    config: Any = copy(model.lm.config)
    # A sharding plan renames the classes it wraps.
    config.architectures = config.architectures or [type(model.lm).__name__.removeprefix("FSDP")]
    config.save_pretrained(folder)


@contextmanager
def _launcher_variables() -> Iterator[None]:
    """Tell vLLM its place in the trainer's default group, by the environment variables it reads."""
    if not dist.is_initialized():
        yield
        return
    device = torch.cuda.current_device() if torch.cuda.is_available() else 0
    place = {"RANK": str(dist.get_rank()), "LOCAL_RANK": str(device)}
    before = {name: os.environ.get(name) for name in place}
    os.environ.update(place)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
