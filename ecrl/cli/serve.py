"""``ecrl serve``: a vLLM server that takes its weights from a training run."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass

import torch

from ecrl.cli.arguments import Arguments, Command
from ecrl.config.limits import count, number
from ecrl.engines.vllm.plugin import SERVER
from ecrl.engines.vllm.requirements import as_dtype, check_head_size, check_split, require_vllm
from ecrl.engines.vllm.worker import EXTENSION
from ecrl.errors import UsageError
from ecrl.policy.model import check_model, load_config


@dataclass(frozen=True)
class Settings:
    """Settings of the server.

    Attributes:
        model__path: the policy, a directory or hub id.
        host: address to listen on.
        port: port to listen on.
        dtype: of the weights.
        max_model_len: longest prompt and completion together, in tokens; empty takes the model's.
        gpu_memory_utilization: share of the GPU's memory.
        tensor_parallel_size: number of GPUs over which each layer is split, a worker process on each.
    """

    model__path: str = ""
    host: str = "127.0.0.1"
    port: int = number(8000, least=1, most=2**16 - 1, wanted="from 1 to 65535")
    dtype: str = "bfloat16"
    max_model_len: str = ""
    gpu_memory_utilization: float = number(0.9, above=0, most=1, wanted="in (0, 1]")
    tensor_parallel_size: int = count(1, least=1)


COMMAND = Command(
    name="serve",
    help="""ecrl serve: a vLLM server that takes its weights from a training run, for engine=vllm_server

  ecrl serve model.path=DIR port=8000

  model.path=DIR                the policy, a directory or hub id
  host=HOST                     address to listen on                (default: 127.0.0.1)
  port=PORT                     port to listen on                   (default: 8000)
  dtype=NAME                    of the weights                      (default: bfloat16)
  max_model_len=TOKENS          longest prompt and completion       (default: the model's)
  gpu_memory_utilization=SHARE  share of the GPU's memory           (default: 0.9)
  tensor_parallel_size=N        GPUs over which a model is split    (default: 1)

Whoever reaches the port can change the weights; keep it within your network.
""",
    settings=Settings,
)


def main(arguments: Arguments[Settings]) -> int:
    """Become vLLM's own server, with the flags that training needs; never returns.

    It trusts whoever reaches its port, and loads the weights that it is told to load.
    """
    settings = arguments.settings
    if not settings.model__path:
        raise UsageError("`ecrl serve` needs the policy's model.path=DIR (a directory or hub id).")
    as_dtype(settings.dtype)
    require_vllm()
    check_model(settings.model__path)
    config = load_config(settings.model__path)
    check_head_size(config)
    check_split(config, settings.tensor_parallel_size, "tensor_parallel_size")
    _check_devices(settings.tensor_parallel_size)
    os.environ["VLLM_SERVER_DEV_MODE"] = "1"  # opens the calls by which weights arrive
    os.environ[SERVER] = "1"
    if settings.tensor_parallel_size > 1:
        # vLLM would bind each worker to a memory node of its own, and a CPU may have only one.
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    print(f"Serving {settings.model__path} on http://{settings.host}:{settings.port}", flush=True)
    os.execv(sys.executable, [sys.executable, "-m", _module(), *_flags(settings)])


def _check_devices(size: int) -> None:
    """Refuse more workers than there are GPUs; on a CPU all share it.

    Raises:
        UsageError: there are too few.
    """
    if torch.cuda.is_available() and size > torch.cuda.device_count():
        raise UsageError(
            f"tensor_parallel_size={size} needs as many GPUs; this machine shows {torch.cuda.device_count()}."
        )


def _module() -> str:
    """Return the module of vLLM's server.

    vLLM's own command asks for a package named vllm, and the CPU build has another name.
    """
    name = "vllm.entrypoints.openai.api_server"
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"This vLLM has no {name}; install another version: pip install 'ecrl[vllm]'.")
    return name


def _flags(settings: Settings) -> list[str]:
    flags = {
        "--model": settings.model__path,
        "--host": settings.host,
        "--port": str(settings.port),
        "--dtype": settings.dtype,
        "--max-model-len": settings.max_model_len,
        "--gpu-memory-utilization": str(settings.gpu_memory_utilization),
        "--tensor-parallel-size": str(settings.tensor_parallel_size),
        "--logprobs-mode": "processed_logprobs",
        "--worker-extension-cls": EXTENSION,
    }
    pairs = [word for flag, value in flags.items() if value for word in (flag, value)]
    eager = [] if torch.cuda.is_available() else ["--enforce-eager"]
    return [*pairs, *eager, "--tokens-only", "--disable-uvicorn-access-log"]
