"""The input of an estimate: a run's configuration and hardware, and what follows from both."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch

from ecrl.algorithm.objective import Objective
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.config.schema import Config
from ecrl.config.targets import build, resolve
from ecrl.engines.base import Engine
from ecrl.engines.vllm.requirements import check_groups, check_memory_share, check_split
from ecrl.errors import UsageError
from ecrl.estimate.architecture import Architecture, architecture
from ecrl.estimate.assumptions import Assumptions
from ecrl.policy.attention import choose_attention, sharing_pays
from ecrl.policy.decoder_layers import compiles
from ecrl.policy.optimizer import state_bytes
from ecrl.policy.weight_types import held_bytes, held_dtype, trained_dtype

ENGINE_SHARE = 0.9  # of a GPU's memory, where vLLM is not told


@dataclass(frozen=True)
class Job:
    """A run on given hardware.

    Attributes:
        config: configuration of the run.
        given: assumptions.

    Raises:
        UsageError: the configured sizes do not divide, or the model is unknown.
    """

    config: Config
    given: Assumptions

    def __post_init__(self) -> None:
        if self.compute_bytes == 2 and not self.given.card.bf16:
            raise UsageError(
                f"trainer.precision={self.precision}: the {self.given.gpu} has no bfloat16; set "
                "trainer.precision=32-true, or auto."
            )
        check_memory_share(self.config.engine.get("gpu_memory_utilization", ENGINE_SHARE))
        if not self.shares_weights:
            key = "server_gpus" if self.disaggregated else "engine.tensor_parallel_size"
            check_split(self.model.config, self.engine_gpus, key)
        if not self.disaggregated:
            check_groups(self.config)
        size = self.tensor_parallel
        for divided, what in (
            (self.gpus, "GPUs"),
            (self.model.heads, f"query heads of {self.model.name}"),
            (self.model.kv_heads, f"key-value heads of {self.model.name}"),
        ):
            if divided % size:
                raise UsageError(
                    f"trainer.tensor_parallel_size={size} does not divide the {divided} {what}; "
                    "choose a divisor."
                )

    @cached_property
    def model(self) -> Architecture:
        """Architecture of the policy."""
        return architecture(self.config.model)

    @cached_property
    def strategies(self) -> list[Strategy]:
        """The configured strategies."""
        return list(build_strategies(self.config.strategy))

    @property
    def gpus(self) -> int:
        """Total number of GPUs."""
        return self.config.trainer.devices * self.config.trainer.num_nodes

    @property
    def tensor_parallel(self) -> int:
        """Number of GPUs that split each layer of the trainer's policy."""
        return self.config.trainer.tensor_parallel_size

    @property
    def replicas(self) -> int:
        """Number of data-parallel ranks; each scores its own share of the tokens."""
        return self.gpus // self.tensor_parallel

    @property
    def shards(self) -> int:
        """Number of data-parallel ranks that FSDP shards over; 1 under DDP."""
        return self.replicas if self.config.trainer.parallel != "ddp" else 1

    @property
    def offloads(self) -> bool:
        """Whether the shards are kept in host memory."""
        return self.config.trainer.cpu_offload and self.shards > 1

    @property
    def precision(self) -> str:
        """``trainer.precision``, with ``auto`` resolved for the kind of GPU."""
        trainer = self.config.trainer
        if trainer.precision != "auto":
            return trainer.precision
        return "bf16-mixed" if trainer.accelerator != "cpu" and self.given.card.bf16 else "32-true"

    @property
    def compute_bytes(self) -> int:
        """Bytes of a number in the forward pass."""
        return 2 if self.precision == "bf16-mixed" else 4

    @property
    def uses_fsdp(self) -> bool:
        """Whether FSDP wraps the layers: to shard them, or on one GPU to compute in bfloat16."""
        wanted = self.gpus > 1 or self.precision == "bf16-mixed"
        return wanted and self.config.trainer.parallel != "ddp" and not self.config.model.quantization

    @property
    def stream_bytes(self) -> int:
        """Bytes of a number in the residual stream; under autocast it has the type of the embedding."""
        return self.compute_bytes if self.uses_fsdp else self._held_dtype.itemsize

    @property
    def autocasts(self) -> bool:
        """Whether autocast computes in bfloat16, and not FSDP."""
        return self.precision == "bf16-mixed" and not self.uses_fsdp

    @property
    def compiled(self) -> bool:
        """Whether the decoder layers are compiled."""
        model = self.config.model
        return compiles(model.compile, self._device, self.tensor_parallel > 1 or bool(model.quantization))

    @cached_property
    def attention(self) -> str:
        """Attention of the trainer's passes, by transformers' name."""
        bf16 = self.precision == "bf16-mixed"
        return choose_attention(self.config.model.attention, self._device, bf16, self.model.config)

    @property
    def _device(self) -> torch.device:
        return torch.device("cpu" if self.config.trainer.accelerator == "cpu" else "cuda")

    @property
    def shares_prompts(self) -> bool:
        """Whether responses to one prompt share it in their row, if all have the expected length."""
        size = self.config.rollout.group_size
        saved, pairs = (size - 1) * self.given.prompt, size * (self.given.prompt + self.completion) ** 2 / 2
        return sharing_pays(self.config.model.attention, self.attention, self.model.config, saved, pairs)

    @property
    def trainable(self) -> int:
        """Number of trained parameters."""
        lora = self.config.model.lora
        return self.model.adapter_parameters(lora.r, lora.target_modules) if lora.r else self.model.parameters

    @property
    def trained_bytes(self) -> int:
        """Bytes of all trained weights; their gradients take as many."""
        return trained_dtype(self.config.model).itemsize * self.trainable

    @property
    def held_bytes(self) -> float:
        """Bytes of all weights that come from files: the whole model, or the base below adapters."""
        model = self.model
        bf16 = self.compute_bytes == 2
        return held_bytes(self.config.model, bf16, model.linear_parameters, model.parameters)

    @property
    def frozen_bytes(self) -> float:
        """Bytes of the base below adapters; 0 without adapters."""
        return self.held_bytes if self.config.model.lora.r else 0.0

    @property
    def _held_dtype(self) -> torch.dtype:
        return held_dtype(self.config.model, self.compute_bytes == 2)

    @property
    def casts_trained(self) -> bool:
        """Whether autocast copies the trained weights of the model into its type."""
        return self.autocasts and not self.config.model.lora.r and self._held_dtype.itemsize == 4

    @cached_property
    def optimizer_bytes(self) -> float:
        """Bytes of the optimizer's state for all trained parameters."""
        matrices = self.trainable if self.config.model.lora.r else self.model.linear_parameters
        state = state_bytes(self.config.update, trained_dtype(self.config.model))
        return state.total(matrices, self.trainable - matrices)

    @property
    def has_reference(self) -> bool:
        """Whether the initial policy stays loaded beside the current one."""
        # A coefficient of 0 is neutral, and skips the reference policy.
        by_strategy = any(s.needs_reference and s.logged_coefficient() != 0 for s in self.strategies)
        return by_strategy or self.objective.needs_reference

    @cached_property
    def objective(self) -> Objective:
        """The configured objective."""
        objective: Objective = build(self.config.objective)
        return objective

    @property
    def auxiliary_models(self) -> int:
        """Number of models that train beside the policy, each as large as it is."""
        return len(self.objective.auxiliary)

    @property
    def _engine(self) -> type[Engine]:
        engine: type[Engine] = resolve(self.config.engine["_target_"], "engine")
        return engine

    @property
    def _engine_is_exact(self) -> bool:
        """Whether the engine's log-probs are those of the weights that the update begins with."""
        return self.shares_weights and self.compute_bytes == 4 and not self.config.rollout.staleness

    @property
    def leaves_old_logprobs(self) -> bool:
        """Whether old log-probs are left to an engine that differs from the trainer."""
        return self.config.rollout.old_logprobs == "engine" and not self._engine_is_exact

    @property
    def scores_rollouts(self) -> bool:
        """Whether old log-probs take a pass over the rollout."""
        return self.config.rollout.old_logprobs == "recompute" and not self._engine_is_exact

    @property
    def shares_weights(self) -> bool:
        """Whether the engine generates with the trainer's own weights."""
        return self._engine.shares_weights

    @property
    def disaggregated(self) -> bool:
        """Whether the engine has GPUs of its own, which this estimate leaves out."""
        return self._engine.disaggregated

    @property
    def draws_ahead(self) -> bool:
        """Whether a rollout is drawn while the trainer updates on an earlier one."""
        return self.disaggregated and self.config.rollout.staleness > 0

    @property
    def engine_gpus(self) -> int:
        """Number of GPUs over which an engine splits its model."""
        if self.disaggregated:
            return self.given.server_gpus
        return int(self.config.engine.get("tensor_parallel_size", 1))

    @property
    def engines(self) -> int:
        """Number of engines that draw at the same time."""
        if self.disaggregated and (urls := self.config.engine.get("urls")):
            return len(urls)
        return max(self.gpus // self.engine_gpus, 1)

    @property
    def batch_size(self) -> int:
        """The most completions that an engine in the trainer's process generates at once."""
        return int(self.config.engine.get("batch_size", self.completions))

    @property
    def engine_bytes(self) -> int:
        """Bytes of a number in the engine; without ``engine.dtype`` vLLM takes the policy's compute type."""
        dtype = self.config.engine.get("dtype")
        if dtype is None and not self.shares_weights:
            return self.compute_bytes
        return 2 if dtype in ("bfloat16", "float16", "half") else 4

    @property
    def longest(self) -> int:
        """Tokens of an expected prompt with the longest completion."""
        return self.given.prompt + self.config.rollout.max_new_tokens

    @property
    def completion(self) -> float:
        """Expected tokens of a completion."""
        return self.given.length * self.config.rollout.max_new_tokens

    @property
    def completions(self) -> int:
        """Number of completions in an iteration."""
        return self.config.rollout.prompts * self.config.rollout.group_size
