"""Place vLLM servers on a Ray cluster, one on each GPU that Ray has free, and keep them until Ctrl-C.

    python examples/ray_servers.py --model Qwen/Qwen2.5-7B --replicas 8        # on the cluster's head
    python examples/ray_servers.py --model DIR --replicas 2 --gpus 0           # on a machine without GPUs

It needs ``pip install ray`` and an ecrl with vLLM on every node. When all servers answer it prints the
override by which a training run, on any machine that reaches them, draws with them.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import subprocess
import sys
import time
from types import FrameType

import httpx
import ray


@ray.remote
class Server:
    """``ecrl serve`` in a process of its own, on the node and GPU that Ray gave this actor."""

    def __init__(self, model: str, dtype: str) -> None:
        with socket.socket() as probe:
            probe.bind(("", 0))
            port = probe.getsockname()[1]
        self.url = f"http://{ray.util.get_node_ip_address()}:{port}"
        settings = [f"model.path={model}", f"port={port}", "host=0.0.0.0", f"dtype={dtype}"]
        self.process = subprocess.Popen([sys.executable, "-m", "ecrl", "serve", *settings])

    def wait(self, seconds: float) -> str:
        """Return the URL once the server answers."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if httpx.get(f"{self.url}/health", timeout=5).status_code == 200:
                    return self.url
            time.sleep(1)
        raise RuntimeError(f"The server at {self.url} did not come up; its output is above.")

    def stop(self) -> None:
        """End the server; vLLM's own processes end with it."""
        self.process.terminate()
        self.process.wait(60)


def main() -> None:
    """Start the servers, print where they are, and stop them at the end."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="directory that every node can read, or hub id")
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--gpus", type=float, default=1, help="of a replica; 0 runs it on CPU")
    parser.add_argument("--dtype", default="bfloat16", help="the run's engine.dtype")
    parser.add_argument("--seconds", type=float, default=900, help="limit for starting")
    options = parser.parse_args()
    ray.init()
    signal.signal(signal.SIGTERM, _interrupt)
    placed = Server.options(num_gpus=options.gpus, num_cpus=1)  # type: ignore[attr-defined]
    servers = [placed.remote(options.model, options.dtype) for _ in range(options.replicas)]
    try:
        urls = ray.get([server.wait.remote(options.seconds) for server in servers])
        print(f"\nengine=vllm_server engine.urls=[{','.join(urls)}] engine.dtype={options.dtype}", flush=True)
        signal.pause()
    except KeyboardInterrupt:
        print("Stopping the servers.", flush=True)
    finally:
        ray.get([server.stop.remote() for server in servers])


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
