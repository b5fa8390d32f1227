"""The colocated engine: vLLM in the trainer's own process, on the trainer's own device."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.watchdog import watchdog
from ecrl.engines.base import Completion, Sampling
from ecrl.engines.checksum import WeightManifest
from ecrl.engines.probe import Probe
from ecrl.engines.vllm.process import shutdown, start, trainer_state_kept
from ecrl.engines.vllm.requirements import (
    as_dtype,
    check_memory_share,
    check_positive,
    check_top_p,
    require_vllm,
)
from ecrl.errors import EcrlError, UsageError
from ecrl.policy.model import PolicyModel

_GIB = 1 << 30


class VLLMEngine:
    """Each process of the run draws its share with a vLLM of its own, which holds the whole model.

    Weights arrive with ``sync_weights`` only; before the first there are none to draw with. Sleeping
    throws them away, on platforms where vLLM can sleep (not on CPU).

    Args:
        model: the policy.
        process_group: the run's processes.
        gpu_memory_utilization: share of the device's memory (on CPU: of the machine's) for weights and
            KV cache while awake.
        kv_cache_gib: size of the KV cache in GiB, instead of what that share leaves.
        max_model_len: longest prompt and completion together, in tokens; None takes the model's.
        dtype: of vLLM's weights, a name such as ``bfloat16``; None takes the policy's.
        enforce_eager: neither compile nor capture graphs; always so on CPU.
        probe_tolerance: how far, in nats, the mean log-probability of a probe's tokens may be from the
            trainer's; None takes 1e-3 where both compute in float32, else 0.2.
        timeout: seconds for one call of the engine; a call that takes longer ends the process.
    """

    logprobs_exact = False
    disaggregated = False
    lockstep = False
    resumable = frozenset({"gpu_memory_utilization", "kv_cache_gib", "probe_tolerance", "timeout"})

    def __init__(
        self,
        model: PolicyModel,
        process_group: ProcessGroup,
        *,
        gpu_memory_utilization: float = 0.4,
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
        self.dtype = as_dtype(dtype) if dtype else model.lm.dtype
        self.manifest = WeightManifest()
        rounded = self.dtype != torch.float32 or model.computes_in_bf16
        self._probe = Probe(model, probe_tolerance or (0.2 if rounded else 1e-3))
        self._owns_group = not dist.is_initialized()
        with watchdog(timeout, "Starting vLLM"), trainer_state_kept():
            self._llm: Any = start(
                model,
                self.dtype,
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
        check_top_p("vllm", config.rollout.top_p)
        check_memory_share(config.engine.get("gpu_memory_utilization", 0.4))
        check_positive(config.engine, "timeout", "probe_tolerance", "kv_cache_gib", "max_model_len")
        if config.engine.get("dtype") is not None:
            as_dtype(config.engine["dtype"])

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """See ``Engine.generate``. Each request has a generator of its own, seeded with 63 bits of its key.

        Raises:
            UsageError: top-p below 1, or a prompt too long for ``max_model_len``.
            EcrlError: there are no weights.
        """
        if self.version is None:
            raise EcrlError("The vLLM engine holds no weights: call sync_weights before generate.")
        check_top_p("vllm", sampling.top_p)
        longest = max((len(p) for p in prompts), default=0) + sampling.max_new_tokens
        if longest > self.max_model_len:
            raise UsageError(
                f"A prompt and its completion may take {longest} tokens, more than engine.max_model_len="
                f"{self.max_model_len}; raise it, or lower rollout.max_new_tokens."
            )
        with (
            watchdog(self.timeout, f"vLLM's generation of {len(prompts)} completions"),
            trainer_state_kept(),
        ):
            outputs = self._llm.generate(
                [{"prompt_token_ids": list(p)} for p in prompts],
                [self._sampling_params(sampling, key) for key in keys],
                use_tqdm=False,
            )
        return [self._completion(output.outputs[0], self.version) for output in outputs]

    def _sampling_params(self, sampling: Sampling, key: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            temperature=sampling.temperature,
            max_tokens=sampling.max_new_tokens,
            seed=key & (2**63 - 1),
            stop_token_ids=self.model.eos_ids,
            ignore_eos=True,  # the policy's own stop tokens, and no others
            logprobs=0,  # of the drawn token alone
            detokenize=False,
        )

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
        """See ``Engine.sync_weights``. Does nothing if it holds this version already.

        Every process of a run must call it together: the probe's forward pass is a collective where the
        policy is sharded.

        Raises:
            EcrlError: a tensor that vLLM holds differs from the one sent, or its log-probabilities
                differ from the trainer's.
        """
        if version == self.version:
            return
        self.version = None
        self.manifest = WeightManifest()
        with watchdog(self.timeout, f"vLLM's sync to weights version {version}"), torch.inference_mode(False):
            self._rpc("ecrl_load", self.manifest.note(weights, self.dtype), version)
            if not self._llm.reset_prefix_cache():
                raise EcrlError(f"vLLM kept its prefix cache of the weights before version {version}.")
            self.confirm(version)
        self.version = version

    def confirm(self, version: int) -> None:
        """Have vLLM prove that it uses the weights last sent. Call it on every process together.

        Raises:
            EcrlError: it does not.
        """
        self.manifest.check(self._rpc("ecrl_receipt", self.manifest.shapes), version)
        self._probe.check(self._probe_logprobs(), version)

    def _probe_logprobs(self) -> Tensor:
        """vLLM's log-probabilities ``[L − 1]`` of the probe's tokens after the first."""
        from vllm import SamplingParams

        ids = self._probe.token_ids
        params = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=0, detokenize=False)
        (output,) = self._llm.generate([{"prompt_token_ids": ids}], params, use_tqdm=False)
        steps = zip(ids[1:], output.prompt_logprobs[1:], strict=True)
        return torch.tensor([step[t].logprob for t, step in steps])

    def _rpc(self, method: str, *args: Any) -> Any:
        return self._llm.collective_rpc(method, args=args)[0]

    def sleep(self) -> None:
        """Give the memory of weights and KV cache back. After ``wake``, ``sync_weights`` must come first."""
        if self._can_sleep:
            self.version = None
            with watchdog(self.timeout, "Putting vLLM to sleep"):
                self._llm.sleep(level=2)

    def wake(self) -> None:
        """Take the memory again; the weights are still to come."""
        if self._can_sleep and self._llm.llm_engine.is_sleeping():
            with watchdog(self.timeout, "Waking vLLM"):
                self._llm.wake_up()

    def close(self) -> None:
        """Release vLLM's memory and process groups, and leave the trainer's."""
        shutdown(self._llm, self._owns_group)
