"""Start vLLM servers on a Ray cluster, one on each free GPU, and keep them running until Ctrl-C.

    python examples/ray_servers.py --model Qwen/Qwen2.5-7B --replicas 8        # on the cluster's head node
    python examples/ray_servers.py --model DIR --replicas 2 --gpus 0           # on a machine without GPUs

It needs ``pip install ray``, ecrl with vLLM on every node, and the secret that servers and run share in the
environment: ``export ECRL_SERVER_TOKEN=$(openssl rand -hex 32)``. Without a running cluster, Ray starts one
on this machine and ends it with the servers. When all servers answer, it prints the override for a training
run that generates with them, on any machine that can reach them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from types import FrameType
from typing import Any

import httpx

from ecrl.engines.vllm.shared_secret import TOKEN, bearer, token_of
from ecrl.errors import UsageError

try:
    import ray
    from ray.exceptions import GetTimeoutError, RayError
except ModuleNotFoundError:
    sys.exit("This needs Ray, here and on every node of the cluster: pip install ray")


@ray.remote(num_cpus=0, max_concurrency=2)  # `stop` must not queue behind `wait`
class Server:
    """Runs ``ecrl serve`` in a subprocess, on the node and GPU that Ray gave this actor."""

    def __init__(self, model: str, dtype: str, token: str) -> None:
        host = ray.util.get_node_ip_address()
        with socket.socket() as probe:
            probe.bind((host, 0))
            port = probe.getsockname()[1]
        self.url = f"http://{host}:{port}"
        settings = [f"model.path={model}", f"port={port}", f"host={host}", f"dtype={dtype}"]
        environment = os.environ | {TOKEN: token}
        self.process = subprocess.Popen([sys.executable, "-m", "ecrl", "serve", *settings], env=environment)
        self.headers = {"Authorization": bearer(token)}

    def wait(self) -> str:
        """Return the URL once the server answers."""
        while self.process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                status = f"{self.url}/status"
                if httpx.post(status, json={}, headers=self.headers, timeout=5).status_code == 200:
                    return self.url
            time.sleep(1)
        raise RuntimeError(f"The server at {self.url} ended with code {self.process.returncode}")

    def stop(self) -> None:
        """End the server; vLLM's other processes end with it."""
        self.process.terminate()
        self.process.wait(60)


def main() -> int:
    """Start the servers, print their addresses, and stop them at the end."""
    options = _options()
    try:
        token = token_of("The servers")
    except UsageError as error:
        return _fail(str(error))
    os.environ["RAY_IGNORE_UNHANDLED_ERRORS"] = "1"  # only the first server that fails is reported
    ray.init(include_dashboard=False)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
            signal.signal(number, _interrupt)
    wanted, free = options.replicas * options.gpus, ray.available_resources().get("GPU", 0)
    if wanted > free:
        return _fail(f"{options.replicas} servers need {wanted:g} GPUs, but Ray has {free:g} free")
    placed = Server.options(num_gpus=options.gpus)  # type: ignore[attr-defined]
    servers = [placed.remote(options.model, options.dtype, token) for _ in range(options.replicas)]
    try:
        urls = ray.get([server.wait.remote() for server in servers], timeout=options.seconds)
        print(f"\nengine=vllm_server engine.urls=[{','.join(urls)}] engine.dtype={options.dtype}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("Stopping the servers.", flush=True)
    except GetTimeoutError:
        return _fail(f"Not all servers answered within --seconds {options.seconds:g}")
    except RayError as error:
        return _fail(str(getattr(error, "cause", error)))
    finally:
        _stop(servers)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="directory that every node can read, or hub id")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--gpus", type=float, default=1, help="of a replica; 0 runs it on CPU")
    parser.add_argument("--dtype", default="bfloat16", help="the run's engine.dtype")
    parser.add_argument("--seconds", type=float, default=900, help="limit for starting")
    return parser.parse_args()


def _stop(servers: list[Any]) -> None:
    """Stop all servers, ignoring signals: a second Ctrl-C would leave vLLM's processes behind."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # With a time limit, because a server that Ray never placed does not answer.
    ray.wait([server.stop.remote() for server in servers], num_returns=len(servers), timeout=90)


def _fail(reason: str) -> int:
    print(reason, file=sys.stderr, flush=True)
    return 1


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
