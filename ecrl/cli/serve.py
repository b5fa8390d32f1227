"""``ecrl serve``: a vLLM server that takes its weights from a training run."""

from __future__ import annotations

import os
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

import torch

from ecrl.cli.arguments import Arguments, Command
from ecrl.config.limits import count, number
from ecrl.engines.vllm.adapters import engine_arguments
from ecrl.engines.vllm.requirements import as_dtype, check_head_size, check_split, require_vllm
from ecrl.engines.vllm.shared_secret import TOKEN, new_token, token_of
from ecrl.errors import UsageError
from ecrl.policy.model import check_model, load_config


@dataclass(frozen=True)
class Settings:
    """Settings of the server.

    Attributes:
        model__path: the policy, a directory or hub id.
        model__lora__r: the largest rank of adapters that it takes; empty takes none.
        host: address to listen on.
        port: port to listen on.
        dtype: of the weights.
        max_model_len: longest prompt and completion together, in tokens; empty takes the model's.
        max_num_seqs: the most sequences that are drawn at once; empty takes vLLM's.
        gpu_memory_utilization: share of the GPU's memory.
        tensor_parallel_size: number of GPUs over which each layer is split, a worker process on each.
    """

    model__path: str = ""
    model__lora__r: int | None = count(None, least=1)
    host: str = "127.0.0.1"
    port: int = number(8000, least=1, most=2**16 - 1, wanted="from 1 to 65535")
    dtype: str = "bfloat16"
    max_model_len: int | None = count(None, least=1)
    max_num_seqs: int | None = count(None, least=1)
    gpu_memory_utilization: float = number(0.9, above=0, most=1, wanted="in (0, 1]")
    tensor_parallel_size: int = count(1, least=1)


COMMAND = Command(
    name="serve",
    help="""ecrl serve: a vLLM server that takes its weights from a training run, for engine=vllm_server

  ecrl serve model.path=DIR port=8000

  model.path=DIR                the policy, a directory or hub id
  model.lora.r=RANK             largest rank of adapters it takes   (default: none, a run merges its own)
  host=HOST                     address to listen on                (default: 127.0.0.1)
  port=PORT                     port to listen on                   (default: 8000)
  dtype=NAME                    of the weights                      (default: bfloat16)
  max_model_len=TOKENS          longest prompt and completion       (default: the model's)
  max_num_seqs=NUMBER           the most sequences drawn at once    (default: vLLM's)
  gpu_memory_utilization=SHARE  share of the GPU's memory           (default: 0.9)
  tensor_parallel_size=N        GPUs over which a model is split    (default: 1)

Server and run share a secret, the environment variable ECRL_SERVER_TOKEN of both: whoever lacks it gets 401.
On loopback the server makes and prints one if it is not set; on any other host it must be set. It is sent in
the clear, so use a network whose traffic strangers cannot read.

  export ECRL_SERVER_TOKEN=$(openssl rand -hex 32)
""",
    settings=Settings,
)


def main(arguments: Arguments[Settings]) -> int:
    """Serve until a signal comes; returns the exit code."""
    settings = arguments.settings
    if not settings.model__path:
        raise UsageError("`ecrl serve` needs the policy's model.path=DIR (a directory or hub id).")
    token = _token(settings.host)
    as_dtype(settings.dtype)
    require_vllm()
    check_model(settings.model__path)
    config = load_config(settings.model__path)
    check_head_size(config)
    check_split(config, settings.tensor_parallel_size, "tensor_parallel_size")
    _check_devices(settings.tensor_parallel_size)
    engine = _engine(settings)
    from ecrl.engines.vllm.serving import Address, serve

    print(f"Serving {settings.model__path} on http://{settings.host}:{settings.port}", flush=True)
    return serve(Address(settings.host, settings.port), token, engine)


def _check_devices(size: int) -> None:
    """Refuse more workers than there are GPUs; on a CPU all share it.

    Raises:
        UsageError: there are too few.
    """
    if torch.cuda.is_available() and size > torch.cuda.device_count():
        raise UsageError(
            f"tensor_parallel_size={size} needs as many GPUs; this machine shows {torch.cuda.device_count()}."
        )


def _token(host: str) -> str:
    """Return the secret, which on loopback may be made here; the workers read it from the environment.

    Raises:
        UsageError: it is missing on another host.
    """
    if not os.environ.get(TOKEN) and _is_loopback(host):
        os.environ[TOKEN] = new_token()
        print(f"Start the run with this secret: export {TOKEN}={os.environ[TOKEN]}", flush=True)
    return token_of(f"`ecrl serve host={host}`")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _engine(settings: Settings) -> dict[str, Any]:
    """Return vLLM's arguments; what is not set is left to vLLM."""
    given = {"max_model_len": settings.max_model_len, "max_num_seqs": settings.max_num_seqs}
    return {
        "model": settings.model__path,
        "dtype": settings.dtype,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "tensor_parallel_size": settings.tensor_parallel_size,
        **{name: value for name, value in given.items() if value is not None},
        **(engine_arguments(settings.model__lora__r) if settings.model__lora__r else {}),
    }
