"""What is to be planned: a run's configuration, the machines, and what must be assumed."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.callbacks.reference_kl import ReferenceKL
from ecrl.config.limits import check_limits, choice, number
from ecrl.config.schema import Config
from ecrl.config.targets import resolve
from ecrl.engines.hf import HFEngine
from ecrl.engines.vllm.requirements import check_memory_share
from ecrl.errors import UsageError
from ecrl.estimate.architecture import Architecture, architecture


@dataclass(frozen=True)
class Card:
    """A GPU by its data sheet.

    Attributes:
        flops: dense bfloat16 matrix products, FLOP/s.
        bandwidth: of its memory, bytes/s.
        sequences: that vLLM runs at once on it by default.
    """

    flops: float
    bandwidth: float
    sequences: int


#: NVIDIA's data sheets, SXM versions.
CARDS = {"h100": Card(989e12, 3.35e12, 1024), "a100": Card(312e12, 2.0e12, 256)}


@dataclass(frozen=True)
class Assumptions:
    """What the configuration does not say.

    Attributes:
        gpu: kind of card.
        gpu_memory: of each, GiB.
        utilisation: share of the card's FLOP/s that training reaches, recomputation counted as work.
        length: expected length of a completion, as a share of ``rollout.max_new_tokens``.
        prompt: expected length of a prompt, tokens.
    """

    gpu: str = choice("h100", CARDS)
    gpu_memory: float = number(80.0, above=0)
    utilisation: float = number(0.35, above=0, most=1, wanted="in (0, 1]")
    length: float = number(0.2, above=0, most=1, wanted="in (0, 1]")
    prompt: int = number(200, above=0)

    def __post_init__(self) -> None:
        check_limits(self)


@dataclass(frozen=True)
class Job:
    """A run on given machines.

    Attributes:
        config: the run's configuration.
        given: assumptions.
    """

    config: Config
    given: Assumptions

    def __post_init__(self) -> None:
        check_memory_share(self.config.engine.get("gpu_memory_utilization", 0.9))
        for name, size in {
            "trainer.tensor_parallel_size": self.tensor_parallel,
            "engine.tensor_parallel_size": self.engine_tensor_parallel,
        }.items():
            if self.gpus % size:
                raise UsageError(f"{name}={size} does not divide {self.gpus} GPUs; choose a divisor.")
            for what, count in (("query", self.model.heads), ("key-value", self.model.kv_heads)):
                if count % size:
                    raise UsageError(
                        f"{name}={size} does not divide {self.model.name}'s {count} {what} heads; "
                        "choose a divisor."
                    )

    @cached_property
    def model(self) -> Architecture:
        """The policy's numbers."""
        return architecture(self.config.model)

    @cached_property
    def strategies(self) -> list[Strategy]:
        """The configured strategies."""
        return list(build_strategies(self.config.strategy))

    @property
    def gpus(self) -> int:
        """GPUs in all."""
        return self.config.trainer.devices * self.config.trainer.num_nodes

    @property
    def tensor_parallel(self) -> int:
        """GPUs that split every layer of the trainer's policy."""
        return self.config.trainer.tensor_parallel_size

    @property
    def replicas(self) -> int:
        """Data-parallel ranks: each scores its own share of the tokens."""
        return self.gpus // self.tensor_parallel

    @property
    def shards(self) -> int:
        """Ranks among which FSDP divides what tensor parallelism left; 1 for copies."""
        return self.replicas if self.config.trainer.parallel != "ddp" else 1

    @property
    def offloads(self) -> bool:
        """Whether the shards lie in host memory."""
        return self.config.trainer.cpu_offload and self.shards > 1

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in the forward pass."""
        return 2 if self.config.trainer.precision.startswith("bf16") else 4

    @property
    def stream_bytes(self) -> int:
        """Bytes of a number in the residual stream: autocast, unlike FSDP, leaves it in float32."""
        return self.compute_bytes if self.shards > 1 else 4

    @property
    def trainable(self) -> int:
        """Parameters that are trained."""
        lora = self.config.model.lora
        return self.model.adapter_parameters(lora.r, lora.target_modules) if lora.r else self.model.parameters

    @property
    def has_reference(self) -> bool:
        """Whether the initial policy stays loaded beside the current one."""
        return any(isinstance(s, ReferenceKL) and s.coefficient > 0 for s in self.strategies)

    @property
    def in_process(self) -> bool:
        """Whether the trainer's own weights draw the completions."""
        return resolve(self.config.engine["_target_"], "engine") is HFEngine

    @property
    def apart(self) -> bool:
        """Whether the engine has GPUs of its own, which this plan leaves out."""
        return bool(getattr(resolve(self.config.engine["_target_"], "engine"), "apart", False))

    @property
    def engine_bytes(self) -> int:
        """Bytes of a number in the engine; without a ``dtype`` of its own it takes the policy's, float32."""
        return 2 if self.config.engine.get("dtype") in ("bfloat16", "float16", "half") else 4

    @property
    def longest(self) -> int:
        """Tokens of an expected prompt with the longest completion."""
        return self.given.prompt + self.config.rollout.max_new_tokens

    @property
    def engine_tensor_parallel(self) -> int:
        """GPUs that hold one copy of the engine's weights."""
        return int(self.config.engine.get("tensor_parallel_size") or 1)

    @property
    def completion(self) -> float:
        """Expected tokens of a completion."""
        return self.given.length * self.config.rollout.max_new_tokens

    @property
    def completions(self) -> int:
        """Completions an iteration."""
        return self.config.rollout.prompts * self.config.rollout.group_size
