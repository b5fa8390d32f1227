"""``ecrl serve``: a vLLM server that takes weights from a training run."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence

import torch

from ecrl.cli.options import parse
from ecrl.engines.vllm.plugin import SERVER
from ecrl.engines.vllm.requirements import as_dtype, check_head_size, check_memory_share, require_vllm
from ecrl.engines.vllm.worker import EXTENSION
from ecrl.errors import UsageError, unknown_name
from ecrl.policy.model import check_model, load_config

DEFAULTS = {
    "model.path": "",
    "host": "127.0.0.1",
    "port": "8000",
    "dtype": "bfloat16",
    "max_model_len": "",
    "gpu_memory_utilization": "0.9",
}


def main(arguments: Sequence[str]) -> int:
    """Become vLLM's own server, with the flags that training needs; it never returns.

    It trusts whoever reaches its port: it loads the weights that it is told to.
    """
    settings = dict(DEFAULTS)
    for override in parse(arguments).overrides:
        key, _, value = override.partition("=")
        if key not in settings:
            raise unknown_name("key", key, settings)
        settings[key] = value
    if not settings["model.path"]:
        raise UsageError("`ecrl serve` needs the policy's model.path=DIR (a directory or hub id).")
    if not settings["port"].isdigit() or not 0 < int(settings["port"]) < 2**16:
        raise UsageError(f"port must be a number from 1 to 65535, got {settings['port']!r}.")
    try:
        check_memory_share(float(settings["gpu_memory_utilization"]))
    except ValueError:
        raise UsageError(
            f"gpu_memory_utilization must be in (0, 1], got {settings['gpu_memory_utilization']!r}."
        ) from None
    as_dtype(settings["dtype"])
    require_vllm()
    check_model(settings["model.path"])
    check_head_size(load_config(settings["model.path"]))
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # opens the calls by which weights arrive
    os.environ[SERVER] = "1"
    print(f"Serving {settings['model.path']} on http://{settings['host']}:{settings['port']}", flush=True)
    os.execv(sys.executable, [sys.executable, "-m", _module(), *_flags(settings)])


def _module() -> str:
    """vLLM's server. Its own command line asks for a package named vllm, which the CPU build is not."""
    name = "vllm.entrypoints.openai.api_server"
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"This vLLM has no {name}; install another version: pip install 'ecrl[vllm]'.")
    return name


def _flags(settings: dict[str, str]) -> list[str]:
    flags = {
        "--model": settings["model.path"],
        "--host": settings["host"],
        "--port": settings["port"],
        "--dtype": settings["dtype"],
        "--max-model-len": settings["max_model_len"],
        "--gpu-memory-utilization": settings["gpu_memory_utilization"],
        "--logprobs-mode": "processed_logprobs",
        "--worker-extension-cls": EXTENSION,
    }
    pairs = [word for flag, value in flags.items() if value for word in (flag, value)]
    eager = [] if torch.cuda.is_available() else ["--enforce-eager"]
    return [*pairs, *eager, "--tokens-only", "--disable-uvicorn-access-log"]
