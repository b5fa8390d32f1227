"""The colocated engine: vLLM in the trainer's processes, on the trainer's devices."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from secrets import token_hex
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.watchdog import watchdog
from ecrl.engines.base import POLL_SECONDS, Completion, Request, StreamingEngine
from ecrl.engines.checksum import WeightManifest
from ecrl.engines.probe import Probe
from ecrl.engines.vllm.engine_group import EngineGroup
from ecrl.engines.vllm.in_process import apart_from_trainer, shutdown, start
from ecrl.engines.vllm.requirements import (
    as_dtype,
    check_groups,
    check_memory_share,
    check_positive,
    refuse_batch_invariance,
    require_vllm,
)
from ecrl.engines.vllm.sampling_params import completion_params, probe_params
from ecrl.errors import EcrlError, UsageError
from ecrl.policy.model import PolicyModel

_GIB = 1 << 30
#: The most steps of a poll of several processes.
STEPS = 32


class Told(NamedTuple):
    """What a process tells the others of its group before they step.

    Attributes:
        rank: its data-parallel rank.
        requests: what it submitted since.
        cancelled: whether it wants no more of what it submitted before.
    """

    rank: int
    requests: list[Request]
    cancelled: bool


class Asked(NamedTuple):
    """Who asked for a completion, and under which number.

    Attributes:
        rank: data-parallel rank of the process.
        id: number of its request.
    """

    rank: int
    id: int


class VLLMEngine(StreamingEngine):
    """Each process of the run generates its share with its own vLLM, or with that of a group of processes.

    A group holds the model together, and all of its processes generate what any of them submits, in the same
    steps (vLLM's external launcher). It starts without weights; they arrive with ``sync_weights`` only.
    Sleeping discards them, on platforms where vLLM can sleep (not on CPU).

    Args:
        model: the policy.
        process_group: the run's processes.
        gpu_memory_utilization: share of the device's memory (on CPU: of the machine's) for weights and
            KV cache while awake.
        tensor_parallel_size: number of consecutive processes that form one engine and split each layer.
        kv_cache_gib: size of a process's KV cache in GiB; None takes what that share leaves beside the
            weights.
        max_model_len: longest prompt and completion together, in tokens; None takes the model's limit.
        dtype: type of vLLM's weights, a name such as ``bfloat16``; None takes that in which the policy
            computes.
        enforce_eager: whether to skip compilation and CUDA graphs; they are always skipped on CPU.
        probe_tolerance: see ``Probe``, nats.
        timeout: seconds for one call of vLLM; a call that takes longer ends the process.
    """

    logprobs_exact = False
    reports_entropy = False
    shares_weights = False
    disaggregated = False
    lockstep = False
    resumable = frozenset({"gpu_memory_utilization", "kv_cache_gib", "probe_tolerance", "timeout"})

    def __init__(
        self,
        model: PolicyModel,
        process_group: ProcessGroup,
        *,
        gpu_memory_utilization: float = 0.4,
        tensor_parallel_size: int = 1,
        kv_cache_gib: float | None = None,
        max_model_len: int | None = None,
        dtype: str | None = None,
        enforce_eager: bool = False,
        probe_tolerance: float | None = None,
        timeout: float = 1800.0,
    ) -> None:
        self.model = model
        self.process_group = process_group
        self.timeout = timeout
        self.version: int | None = None
        self.dtype = as_dtype(dtype) if dtype else model.compute_dtype
        self.manifest = WeightManifest()
        self._probe = Probe(model, self.dtype, probe_tolerance)
        self.lockstep = tensor_parallel_size > 1
        self._group = EngineGroup(tensor_parallel_size, timeout)
        self._waiting: list[Request] = []
        self._cancelled = False
        self._open: dict[str, Asked] = {}  # by vLLM's numbers
        self._owns_group = not dist.is_initialized()
        with self._calling("Starting vLLM"):
            self._llm: Any = start(
                model,
                self.dtype,
                process_group.first(lambda: token_hex(8)),
                tensor_parallel_size=tensor_parallel_size,
                gpu_memory_utilization=gpu_memory_utilization,
                kv_cache_memory_bytes=None if kv_cache_gib is None else int(kv_cache_gib * _GIB),
                max_model_len=max_model_len,
                enforce_eager=enforce_eager,
            )
        self._can_sleep: bool = self._llm.llm_engine.vllm_config.model_config.enable_sleep_mode
        self.max_model_len: int = self._llm.llm_engine.vllm_config.model_config.max_model_len

    @classmethod
    def check(cls, config: Config) -> None:
        """See ``Engine.check``."""
        require_vllm()
        refuse_batch_invariance()
        check_memory_share(config.engine.get("gpu_memory_utilization", 0.4))
        check_positive(config.engine, "timeout", "probe_tolerance", "kv_cache_gib", "max_model_len")
        check_groups(config)
        if config.engine.get("dtype") is not None:
            as_dtype(config.engine["dtype"])

    def submit(self, requests: Sequence[Request]) -> None:
        """See ``Engine.submit``. Each request has its own generator, seeded with 63 bits of its key.

        Raises:
            UsageError: a prompt is too long for ``max_model_len``.
            EcrlError: no weights were sent yet.
        """
        if self.version is None:
            raise EcrlError("The vLLM engine holds no weights: call sync_weights before generate.")
        longest = max((len(r.prompt) + r.sampling.max_new_tokens for r in requests), default=0)
        if longest > self.max_model_len:
            raise UsageError(
                f"A prompt and its completion may take {longest} tokens, more than engine.max_model_len="
                f"{self.max_model_len}; raise it, or lower rollout.max_new_tokens."
            )
        self._waiting += requests

    def poll(self) -> list[tuple[int, Completion]]:
        """See ``Engine.poll``. Steps until something is finished, but not for long."""
        done: list[tuple[int, Completion]] = []
        if not (self._waiting or self._open or self.lockstep):
            return done
        with self._calling("A step of vLLM"):
            self._take_in()
            for output in self._step():
                asked = self._open.pop(output.request_id)
                if asked.rank == self.process_group.rank:
                    done.append((asked.id, self._completion(output.outputs[0], self.version or 0)))
        return done

    def _step(self) -> list[Any]:
        """Step until something is finished, but not for long; return what is finished."""
        finished: list[Any] = []
        until, steps = time.monotonic() + POLL_SECONDS, 0
        # In lockstep all processes take the same number of steps, however long these take.
        while self._open and not finished and (steps < STEPS if self.lockstep else time.monotonic() < until):
            finished = [output for output in self._llm.llm_engine.step() if output.finished]
            steps += 1
        return finished

    def cancel(self) -> None:
        """See ``Engine.cancel``. The others of a group learn of it at the next poll or sync."""
        self._waiting, self._cancelled = [], True
        if not self.lockstep:
            self._take_in()

    def _take_in(self) -> None:
        """Give vLLM what the processes of the group submitted, and take back what they cancelled.

        The order is the same in all of them. Processes that share a replica of the trainer ask for the same.
        """
        told = self._group.gather(Told(self.process_group.rank, self._waiting, self._cancelled))
        self._waiting, self._cancelled = [], False
        for by in {one.rank: one for one in told}.values():
            if by.cancelled:
                self._abort([number for number, asked in self._open.items() if asked.rank == by.rank])
            self._enqueue(by.rank, by.requests)

    def _enqueue(self, rank: int, requests: Sequence[Request]) -> None:
        params = [completion_params(r.sampling, r.key, self.model.eos_ids) for r in requests]
        taken = self._llm.enqueue(*_arguments([r.prompt for r in requests], params), use_tqdm=False)
        # vLLM appends random letters to the number under which the output comes back.
        for name, request in zip(taken, requests, strict=True):
            self._open[name.partition("-")[0]] = Asked(rank, request.id)

    def _abort(self, numbers: list[str]) -> None:
        if numbers:
            self._llm.llm_engine.abort_request(numbers)
        for number in numbers:
            del self._open[number]

    @staticmethod
    def _completion(output: Any, version: int) -> Completion:
        token_ids = list(output.token_ids)
        return Completion(
            token_ids=token_ids,
            logprobs=[step[t].logprob for t, step in zip(token_ids, output.logprobs, strict=True)],
            entropy=None,
            finish_reason="stop" if output.finish_reason == "stop" else "length",
            weights_version=version,
        )

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """See ``Engine.sync_weights``. Does nothing if it already holds this version.

        Every process of a run must call it, because the probe's forward pass is a collective if the policy
        is sharded.

        Raises:
            EcrlError: a tensor that vLLM holds differs from the one sent, or vLLM's log-probabilities
                differ from the trainer's.
        """
        if version == self.version:
            return
        self.version = None
        self.manifest = WeightManifest()
        with self._calling(f"vLLM's sync to weights version {version}"), torch.inference_mode(False):
            self._take_in()
            self._rpc("ecrl_load", self.manifest.record(weights, self.dtype), version)
            # Only now: gathering the weights takes memory, and the KV cache takes most of what is free.
            self._allocate("kv_cache")
            if not self._llm.reset_prefix_cache():
                raise EcrlError(f"vLLM kept its prefix cache of the weights before version {version}.")
            self.confirm(version)
        self.version = version

    def confirm(self, version: int) -> None:
        """Check that vLLM uses the weights last sent. Every process must call it.

        Raises:
            EcrlError: vLLM does not use them.
        """
        receipts = self._group.gather(self._rpc("ecrl_receipt", self.manifest.shapes))
        self.manifest.check(receipts, version)
        self._probe.check(self._probe_logprobs(), version)

    def _probe_logprobs(self) -> Tensor:
        """Return vLLM's log-probabilities ``[L − 1]`` of the probe's tokens after the first, nats."""
        ids = self._probe.token_ids
        (output,) = self._llm.generate(*_arguments([ids], [probe_params()]), use_tqdm=False)
        steps = zip(ids[1:], output.prompt_logprobs[1:], strict=True)
        return torch.tensor([step[t].logprob for t, step in steps])

    def _rpc(self, method: str, *args: Any) -> Any:
        return self._llm.collective_rpc(method, args=args)[0]

    def sleep(self) -> None:
        """Free the memory of weights and KV cache. After ``wake``, call ``sync_weights`` first."""
        if self._can_sleep:
            self.version = None
            with self._calling("Putting vLLM to sleep"):
                self._llm.sleep(level=2)

    def wake(self) -> None:
        """Allocate the memory of the weights again; ``sync_weights`` fills it and allocates the KV cache."""
        if self._can_sleep:
            torch.cuda.empty_cache()  # what torch keeps of the trainer's memory, vLLM could not get
            with self._calling("Waking vLLM"):
                self._allocate("weights")

    def _allocate(self, part: str) -> None:
        """Allocate the memory of ``weights`` or ``kv_cache`` if vLLM sleeps without it."""
        if part in self._executor.sleeping_tags:
            self._llm.wake_up(tags=[part])

    @property
    def _executor(self) -> Any:
        return self._llm.llm_engine.model_executor

    @contextmanager
    def _calling(self, what: str) -> Iterator[None]:
        """Limit the time of a call of vLLM, and keep the trainer's state and precision out of it."""
        with watchdog(self.timeout, what), apart_from_trainer(self.model.device):
            yield

    def close(self) -> None:
        """Release vLLM's memory and process groups, but not the trainer's."""
        shutdown(self._llm, self._owns_group)


def _arguments(
    prompts: Sequence[Sequence[int]], params: Sequence[dict[str, Any]]
) -> tuple[list[dict[str, list[int]]], list[Any]]:
    """Return prompts and parameters as ``vllm.LLM`` takes them."""
    from vllm import SamplingParams

    return [{"prompt_token_ids": list(p)} for p in prompts], [SamplingParams(**p) for p in params]
