"""Runs a server: vLLM's engine behind ``Api``, in place of vLLM's own HTTP server.

vLLM's has many more calls: some run any method of the engine, fetch URLs that a client names, or are open to
those who have no key.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from dataclasses import dataclass
from typing import Any

import torch

from ecrl.engines.vllm.api import Api
from ecrl.engines.vllm.asgi import Application
from ecrl.engines.vllm.plugin import SERVER
from ecrl.engines.vllm.progress import Progress
from ecrl.engines.vllm.worker import EXTENSION
from ecrl.errors import EcrlError, UsageError

_LOOK = 2.0  # seconds between two looks whether the engine still runs
_BACKLOG = 2048  # connections that may wait to be accepted


@dataclass(frozen=True)
class Address:
    """Where a server listens."""

    host: str
    port: int


def serve(address: Address, token: str, engine: dict[str, Any]) -> int:
    """Serve until a signal comes or the engine ends; returns the exit code.

    Args:
        address: where to listen.
        token: the secret of the server.
        engine: arguments of ``vllm.AsyncEngineArgs``: the model, and what a user may set.

    Raises:
        UsageError: the address cannot be listened on, or vLLM refuses an argument.
        EcrlError: vLLM could not start.
    """
    # Before the engine, which takes long to start; until it has, connections are refused.
    with _bind(address) as listener:
        os.environ[SERVER] = "1"
        # vLLM's own processes are all on this machine.
        os.environ.setdefault("VLLM_HOST_IP", "127.0.0.1")
        if engine.get("tensor_parallel_size", 1) > 1:
            # vLLM would bind each worker to a memory node of its own, and a CPU may have only one.
            os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        if sys.platform == "linux":
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        return asyncio.run(_serve(listener, token, engine))


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        raise UsageError(f"Cannot listen on {address.host}:{address.port}: {error.strerror}.") from None
    return listener


async def _serve(listener: socket.socket, token: str, settings: dict[str, Any]) -> int:
    import uvicorn
    import vllm

    progress = Progress()
    engine = _start(settings, progress)
    try:
        api = Api(engine, vllm.__version__, progress)
        await api.begin()
        app = Application(token, api.routes())
        config = uvicorn.Config(app, log_level="warning", lifespan="off", ws="none", backlog=_BACKLOG)
        server = uvicorn.Server(config)
        watch = asyncio.create_task(_end_with_engine(server, engine))
        await server.serve(sockets=[listener])
        watch.cancel()
        return 1 if engine.errored else 0
    finally:
        engine.shutdown()


def _start(settings: dict[str, Any], progress: Progress) -> Any:
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        arguments = AsyncEngineArgs(
            **settings,
            enforce_eager=not torch.cuda.is_available(),
            logprobs_mode="processed_logprobs",
            worker_extension_cls=EXTENSION,
            skip_tokenizer_init=True,
            generation_config="vllm",
            load_format="dummy",  # a run sends the weights
            disable_log_stats=True,  # `progress` counts alone
        )
        return AsyncLLM.from_engine_args(arguments, stat_loggers=[progress])
    except ValueError as error:  # e.g. a max_model_len beyond the model's
        raise UsageError(f"vLLM refuses to serve: {_first_line(error)}") from None
    except RuntimeError as error:
        raise EcrlError(f"vLLM could not start: {_first_line(error)}") from None


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


async def _end_with_engine(server: Any, engine: Any) -> None:
    """End the server when its engine has ended: clients then go elsewhere at once."""
    while not engine.errored:
        await asyncio.sleep(_LOOK)
    server.should_exit = True
