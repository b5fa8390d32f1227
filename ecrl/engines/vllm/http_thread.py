"""A thread that holds all connections to the servers, so that they go on while the trainer computes."""

from __future__ import annotations

import resource

import httpx

from ecrl.engines.vllm.shared_secret import bearer
from ecrl.event_loop import EventLoopThread

_SPARE = 256  # file descriptors for everything but requests


class HTTPThread(EventLoopThread):
    """An event loop with an HTTP client.

    Args:
        token: the secret that every request presents.

    Attributes:
        client: the HTTP client of all requests. It follows no redirects and uses no proxy.
    """

    def __init__(self, token: str) -> None:
        super().__init__("vllm-servers")
        self.client = httpx.AsyncClient(
            headers={"Authorization": bearer(token)},
            timeout=None,
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
        )
        self.at_close(self.client.aclose)


def most_connections() -> int:
    """Return how many connections this process can open, after raising its limit of files if it may."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = max(soft, 1 << 16)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # some systems state a limit that they do not grant
            hard = soft
    return max(hard - _SPARE, 1)
