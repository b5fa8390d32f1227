"""The disaggregated engine: vLLM servers on other devices or nodes, each started by ``ecrl serve``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate

import httpx
import torch
from torch import Tensor

from ecrl.config.eval_sets import longest_completion
from ecrl.config.schema import Config, ModelConfig
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion, Sampling, WaveEngine
from ecrl.engines.checksum import WeightManifest
from ecrl.engines.probe import Probe
from ecrl.engines.vllm.replica import Replica
from ecrl.engines.vllm.replica_pool import draw
from ecrl.engines.vllm.requirements import as_dtype, check_config_top_p, check_positive
from ecrl.engines.vllm.weight_channel import Channel, own_address
from ecrl.engines.vllm.worker import describe
from ecrl.errors import EcrlError, UsageError
from ecrl.policy.meta_model import meta_model
from ecrl.policy.model import PolicyModel, load_config, load_tokenizer
from ecrl.policy.tiny_model import build_tokenizer

CONNECT = 120.0  # seconds for all ends of a channel to connect


class VLLMServerEngine(WaveEngine):
    """Every process of the run sends its share of prompts to all replicas; the first sends the weights.

    A replica that fails is dropped and the others take over its work. The next weight sync that finds it
    healthy uses it again.

    Args:
        model: the policy.
        process_group: the run's processes.
        urls: addresses of the replicas, e.g. ``[http://10.0.0.7:8000]``.
        max_in_flight: the most requests that one process has open at one replica.
        dtype: type of the servers' weights, a name such as ``bfloat16``.
        probe_tolerance: see ``Probe``, nats.
        timeout: seconds for one completion, or for one weight sync.

    Attributes:
        replicas: all replicas.
        live: the replicas that hold the current weights and answer.
    """

    logprobs_exact = False
    reports_entropy = False
    shares_weights = False
    disaggregated = True
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
        super().__init__()
        self.model = model
        self.process_group = process_group
        self.max_in_flight = max_in_flight
        self.timeout = timeout
        self.version: int | None = None
        self.replicas = [Replica(url, timeout) for url in urls or []]
        self.live: list[Replica] = []
        self._dtype: torch.dtype = as_dtype(dtype)
        self._probe = Probe(model, self._dtype, probe_tolerance)
        self._channel: Channel | None = None
        self._members: list[Replica] = []
        self.manifest = WeightManifest()

    @classmethod
    def check(cls, config: Config) -> None:
        """See ``Engine.check``."""
        urls = config.engine.get("urls")
        if not isinstance(urls, list) or not urls or not all(isinstance(url, str) for url in urls):
            raise UsageError(
                "engine=vllm_server needs the replicas that `ecrl serve` started: "
                "engine.urls=[http://HOST:PORT,…]."
            )
        check_config_top_p("vllm_server", config)
        check_positive(config.engine, "timeout", "probe_tolerance", "max_in_flight")
        dtype = str(as_dtype(config.engine.get("dtype", "bfloat16"))).removeprefix("torch.")
        replicas = [Replica(url, config.engine.get("timeout", 600.0)) for url in urls]
        if len({replica.url for replica in replicas}) < len(replicas):
            raise UsageError(f"engine.urls names a server twice: {', '.join(urls)}.")
        for replica in replicas:
            replica.check()
        policy = _describe_policy(config.model)
        for replica in replicas:
            replica.check_model(policy, dtype, longest_completion(config) + 1)

    def draw(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """See ``WaveEngine.draw``. Each request has its own generator, seeded with its key.

        Raises:
            EcrlError: no replica is left, or one refuses a request.
        """
        if self.version is None:
            raise EcrlError("The vLLM servers hold no weights: call sync_weights before generate.")
        jobs = [(list(prompt), key) for prompt, key in zip(prompts, keys, strict=True)]
        settings = sampling, self.model.eos_ids, self.version
        completions, self.live = draw(jobs, self.live, settings, self.max_in_flight, self.timeout)
        return completions

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See ``Engine.sync_weights``. Continues with the replicas that stay alive.

        Raises:
            EcrlError: no replica stays alive, or one holds other weights than it was sent.
        """
        if self.process_group.first(lambda: version == self.version and self._all_healthy()):
            return
        self.version = None
        for _ in range(len(self.replicas) + 1):
            self.process_group.first(self._connect)
            self.manifest = WeightManifest()
            if self._send(self.manifest.record(weights, self._dtype), version):
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
        probes = self.process_group.first(lambda: self._confirm_members(version))
        for logprobs in probes.values():
            self._probe.check(torch.tensor(logprobs), version)
        self.live = [replica for replica in self.replicas if replica.url in probes]

    def sleep(self) -> None:
        """Do nothing: the servers have their own devices."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Close the channel; the servers keep running for the next run."""
        self._channel = None

    def _all_healthy(self) -> bool:
        """Whether every replica took part in the last sync and still answers."""
        return len(self.live) == len(self.replicas) and all(r.healthy() for r in self.live)

    def _connect(self) -> None:
        """Open a channel to the healthy replicas unless it is open. Only the first process calls it."""
        members = [replica for replica in self.replicas if replica.healthy()]
        if not members:
            raise EcrlError(
                f"No vLLM server answers any more ({', '.join(r.url for r in self.replicas)}); start them "
                "again and continue from the last checkpoint with resume=RUN_DIR."
            )
        if self._channel is not None and members == self._members:
            return
        limit = min(self.timeout, CONNECT)
        self._members = members
        try:
            # Rank 0 sends; each worker of each member receives.
            firsts = list(accumulate((r.workers() for r in members), initial=1))
            size = firsts.pop()
        except httpx.HTTPError:
            self._channel = None  # `_send` then fails, and `sync_weights` tries again
            return
        try:
            address = own_address(r.host for r in members)
            self._channel = Channel(address, 0, 0, size, self.model.device, limit)
        except (OSError, RuntimeError) as error:
            raise EcrlError(f"No channel for weights could be opened: {str(error).splitlines()[0]}") from None
        port = self._channel.port
        with ThreadPoolExecutor(len(members)) as threads:
            joins = [
                threads.submit(r.rpc, "ecrl_join", address, port, first, size, limit)
                for first, r in zip(firsts, members, strict=True)
            ]
            try:
                self._channel.open()
                for join in joins:
                    join.result()
            except (RuntimeError, httpx.HTTPError):
                self._channel = None

    def _send(self, weights: Iterable[tuple[str, Tensor]], version: int) -> bool:
        """Send the weights to every member; return whether all received them. Every process iterates."""
        if not self.process_group.is_first or self._channel is None:
            for _ in weights:
                pass
            return self.process_group.first(lambda: False)
        with ThreadPoolExecutor(len(self._members)) as threads:
            receipts = [threads.submit(r.rpc, "ecrl_receive", version) for r in self._members]
            try:
                self._channel.send(weights)
                for receipt in receipts:
                    receipt.result()
                sent = True
            except (RuntimeError, httpx.HTTPError):
                self._channel, sent = None, False  # closes the channel, so the other members stop waiting
        return self.process_group.first(lambda: sent)

    def _confirm_members(self, version: int) -> dict[str, list[float]]:
        """Check the weights that every member holds; return its log-probs of the probe, by URL."""
        probes: dict[str, list[float]] = {}
        causes = []
        for replica in self._members:
            try:
                self.manifest.check(replica.receipts(self.manifest.shapes), version)
                replica.accept(version)
                probes[replica.url] = replica.probe(self._probe.token_ids)
            except httpx.HTTPError as error:  # it died meanwhile; the next sync tries it again
                causes.append(f"{replica.url}: {str(error).splitlines()[0]}")
        if not probes:
            raise EcrlError(f"No vLLM server could generate with its new weights ({'; '.join(causes)}).")
        return probes


def _describe_policy(config: ModelConfig) -> dict[str, int]:
    """Describe the model that the replicas must serve; a hub id's config and tokenizer are downloaded."""
    if config.path is None:
        return describe(meta_model(config).config, build_tokenizer())
    return describe(load_config(config.path).get_text_config(), load_tokenizer(config.path))
