"""The disaggregated engine: vLLM servers on other devices or nodes, each started by ``ecrl serve``."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import httpx
import torch
from torch import Tensor

from ecrl.config.eval_sets import longest_completion
from ecrl.config.schema import Config, ModelConfig
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import POLL_SECONDS, Completion, Request, StreamingEngine
from ecrl.engines.checksum import WeightManifest
from ecrl.engines.probe import Probe
from ecrl.engines.vllm.dispatcher import Dispatcher
from ecrl.engines.vllm.http_thread import HTTPThread, most_connections
from ecrl.engines.vllm.replica import Replica, Status
from ecrl.engines.vllm.requirements import as_dtype, check_positive
from ecrl.engines.vllm.shared_secret import bearer, token_of
from ecrl.engines.vllm.weight_sync import WeightSync
from ecrl.engines.vllm.worker import describe
from ecrl.errors import EcrlError, UsageError
from ecrl.policy.lora import adapter_kind
from ecrl.policy.meta_model import meta_model
from ecrl.policy.model import PolicyModel, load_config, load_tokenizer
from ecrl.policy.tiny_model import build_tokenizer
from ecrl.policy.weights import HFWeights


class VLLMServerEngine(StreamingEngine):
    """Every process of the run sends its share of prompts to all replicas; the first sends the weights.

    A replica that is gone or hangs is left out, and the others take over its work. The next weight sync that
    finds it healthy uses it again.

    Args:
        model: the policy.
        process_group: the run's processes.
        urls: addresses of the replicas, e.g. ``[http://10.0.0.7:8000]``.
        max_in_flight: the most requests that one process has open at one replica.
        dtype: type of the servers' weights, a name such as ``bfloat16``.
        probe_tolerance: see ``Probe``, nats.
        timeout: seconds without a token from a replica that has requests, or without an answer to one call
            of a weight sync.

    Attributes:
        replicas: all replicas.
    """

    logprobs_exact = False
    reports_entropy = False
    shares_weights = False
    disaggregated = True
    pausable = True
    lockstep = False
    resumable = frozenset({"urls", "max_in_flight", "probe_tolerance", "timeout"})

    def __init__(
        self,
        model: PolicyModel,
        process_group: ProcessGroup,
        *,
        urls: list[str] | None = None,
        max_in_flight: int = 256,
        dtype: str = "bfloat16",
        probe_tolerance: float | None = None,
        timeout: float = 600.0,
    ) -> None:
        self.model = model
        self.process_group = process_group
        self.max_in_flight = max_in_flight
        self.timeout = timeout
        self.version: int | None = None
        self.replicas = [Replica(url, timeout) for url in urls or []]
        self._dtype: torch.dtype = as_dtype(dtype)
        self._probe = Probe(model, self._dtype, probe_tolerance)
        self.manifest = WeightManifest()
        self._adapters = adapter_kind(model.lm)
        token = token_of("engine=vllm_server")
        self._connections = most_connections()
        self._http = HTTPThread(token)
        self._dispatcher = Dispatcher(self._http, max_in_flight, timeout, say)
        self._sync = WeightSync(self.replicas, self._http, model.device, token, timeout, say)
        self._longest = 0

    @property
    def live(self) -> list[Replica]:
        """The replicas that hold the current weights and answer."""
        return self._dispatcher.live

    @classmethod
    def check(cls, config: Config) -> None:
        """See ``Engine.check``."""
        urls = config.engine.get("urls")
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
            raise UsageError(
                "engine=vllm_server needs the replicas that `ecrl serve` started: "
                "engine.urls=[http://HOST:PORT,…]."
            )
        check_positive(config.engine, "timeout", "probe_tolerance", "max_in_flight")
        dtype = str(as_dtype(config.engine.get("dtype", "bfloat16"))).removeprefix("torch.")
        replicas = [Replica(url, config.engine.get("timeout", 600.0)) for url in urls]
        if len({replica.url for replica in replicas}) < len(replicas):
            raise UsageError(f"engine.urls names a server twice: {', '.join(urls)}.")
        token = token_of("engine=vllm_server")
        longest = longest_completion(config) + (config.rollout.max_prompt_tokens or 1)
        asyncio.run(_check(replicas, token, config.model, dtype, longest))

    def submit(self, requests: Sequence[Request]) -> None:
        """See ``Engine.submit``. Each request has its own generator, seeded with its key.

        Raises:
            UsageError: a prompt and its completion are too long for the servers.
            EcrlError: no weights were sent yet.
        """
        if self.version is None:
            raise EcrlError("The vLLM servers hold no weights: call sync_weights before generate.")
        longest = max((len(r.prompt) + r.sampling.max_new_tokens for r in requests), default=0)
        if longest > self._longest:
            self.cancel()
            raise UsageError(
                f"A prompt and its completion may take {longest} tokens, more than the servers' "
                f"max_model_len={self._longest}; start them with more, or lower rollout.max_new_tokens or "
                "rollout.max_prompt_tokens."
            )
        self._dispatcher.submit(requests, self.model.eos_ids, self.version)

    def poll(self) -> list[tuple[int, Completion]]:
        """See ``Engine.poll``.

        Raises:
            EcrlError: no replica is left, one refuses a request, or a request fails again and again.
        """
        return self._dispatcher.poll(POLL_SECONDS)

    def cancel(self) -> None:
        """See ``Engine.cancel``."""
        self._dispatcher.cancel()

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See ``Engine.sync_weights``. Continues with the replicas that stay alive.

        Raises:
            EcrlError: no replica stays alive, or one holds other weights than it was sent.
        """
        if self.process_group.first(lambda: version == self.version and self._sync.all_there()):
            return
        self.version = None
        self._dispatcher.expect(version)
        self.process_group.wait()  # until every process takes what the new weights draw
        for _ in range(len(self.replicas) + 1):
            opened, apart = self.process_group.first(self._connect)
            if opened or not apart:
                self.manifest = WeightManifest()
            # What lies below the adapters never changes, so a channel carries it once.
            sent = weights.apart(base=opened) if apart and isinstance(weights, HFWeights) else weights
            if self._send(self.manifest.record(sent, self._dtype), version):
                break
        else:
            raise EcrlError("The vLLM servers kept failing while weights were sent to them.")
        self.confirm(version)
        self.version = version

    def confirm(self, version: int) -> None:
        """Check that every replica uses the weights last sent. Every process must call it.

        Raises:
            EcrlError: a replica does not use them.
        """
        members, probes = self.process_group.first(lambda: self._prove(version))
        for logprobs in probes:
            self._probe.check(torch.tensor(logprobs), version)
        live = [(replica, members[replica.url]) for replica in self.replicas if replica.url in members]
        self._longest = min(status.max_model_len for _, status in live)
        self._dispatcher.use(live, self._connections)

    def _connect(self) -> tuple[bool, bool]:
        """Open the channel; return whether it is new, and whether adapters go over it on their own."""
        opened = self._sync.connect()
        return opened, self._adapters is not None and self._sync.takes(self._adapters)

    def _send(self, weights: Iterable[tuple[str, Tensor]], version: int) -> bool:
        """Send the weights to every member; return whether one received them. Every process iterates."""
        if not self.process_group.is_first:
            for _ in weights:
                pass
            return self.process_group.first(lambda: False)
        sent = self._sync.send(weights, version)
        return self.process_group.first(lambda: sent)

    def _prove(self, version: int) -> tuple[dict[str, Status], list[list[float]]]:
        """Have every member prove what it holds; return who did, by URL, and their log-probs of the probe."""
        for receipts in self._sync.receipts(self.manifest.shapes).values():
            self.manifest.check(receipts, version)
        probes = self._sync.accept(version, self._probe.token_ids)
        if not probes:
            raise EcrlError(
                "No vLLM server could generate with its new weights; continue from the last checkpoint with "
                "resume=RUN_DIR."
            )
        return {r.url: status for r, status in self._sync.members.items()}, list(probes.values())

    def pause(self) -> None:
        """Do nothing: each server pauses by itself from the first weight that it gets to the last."""

    def resume(self) -> None:
        """Do nothing; see ``pause``."""

    def sleep(self) -> None:
        """Do nothing: the servers have their own devices."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close all connections; the servers keep running for the next run."""
        self._sync.close()
        self._http.close()


def say(line: str) -> None:
    """Show a line to the user."""
    print(f"ecrl: {line}", file=sys.stderr, flush=True)


async def _check(
    replicas: Sequence[Replica], token: str, model: ModelConfig, dtype: str, longest: int
) -> None:
    """Check all servers side by side; see ``Replica.check`` and ``check_model``."""
    headers: dict[str, Any] = {"Authorization": bearer(token)}
    async with httpx.AsyncClient(headers=headers, trust_env=False) as client:
        await asyncio.gather(*(replica.check(client) for replica in replicas))
        policy = _describe_policy(model)
        await asyncio.gather(*(r.check_model(client, policy, dtype, longest) for r in replicas))


def _describe_policy(config: ModelConfig) -> dict[str, int]:
    """Describe the model that the replicas must serve; a hub id's config and tokenizer are downloaded."""
    if config.path is None:
        return describe(meta_model(config).config, build_tokenizer())
    return describe(load_config(config.path).get_text_config(), load_tokenizer(config.path))
