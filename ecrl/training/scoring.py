"""Scoring: the policy as the processes share it, and the log-probs of its tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh
from transformers import PreTrainedTokenizerBase

from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.config.schema import Config
from ecrl.distributed.loading import load_sharded_policy
from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.sharding import Sharding
from ecrl.errors import usage_errors
from ecrl.policy.attention import row_limit, shares_prompts
from ecrl.policy.lm_head import token_stats, vocabulary_facts
from ecrl.policy.lora import without_adapters
from ecrl.policy.model import PolicyModel
from ecrl.policy.packing import MicroBatch, pack_micro_batches
from ecrl.training.precision import precision_of


class Scorer:
    """Loads the policy, packs batches into micro-batches, and scores their tokens.

    Module and data module share one: the first scores with gradient, the second without.

    Args:
        config: the run's configuration.
        path: directory or hub id of the initial policy.
        tokenizer: the policy's.
        process_group: the processes that share the work.

    Attributes:
        model: the policy; there after ``load``.
        sharding: how the policy lies over the processes; there after ``load``.
    """

    model: PolicyModel
    sharding: Sharding

    def __init__(
        self, config: Config, path: str, tokenizer: PreTrainedTokenizerBase, process_group: ProcessGroup
    ) -> None:
        self.path = path
        self.tokenizer = tokenizer
        self.process_group = process_group
        self._config = config
        self._reference: PolicyModel | None = None

    def load(self, device: torch.device, mesh: DeviceMesh | None) -> PolicyModel:
        """Load the policy and shard it over the processes.

        Args:
            device: where this process computes.
            mesh: of all processes; None for one process without FSDP.

        Raises:
            UsageError: there is no such model, it cannot be split, or its logits are post-processed.
        """
        trainer = self._config.trainer
        self._device = device
        self.sharding = Sharding(
            mesh,
            shard=mesh is not None and trainer.parallel != "ddp",
            bf16=precision_of(self._config) == "bf16-mixed",
            cpu_offload=trainer.cpu_offload,
        )
        self.model = self._load(adapters=True)
        self.model.check_head()
        return self.model

    def load_copy(self) -> PolicyModel:
        """Load the initial policy once more, sharded and adapted as the policy is, to train by itself."""
        return self._load(adapters=True)

    def _load(self, adapters: bool) -> PolicyModel:
        settings, seed = self._config.model, self._config.seed
        return load_sharded_policy(
            self.path, self.tokenizer, settings, self.sharding, self._device, seed, adapters
        )

    @torch.no_grad()
    def score(self, batch: RolloutBatch, model: PolicyModel | None = None) -> tuple[Tensor, Tensor]:
        """Compute log-probs ``[N]`` and entropies ``[N]`` of a batch without gradient, nats.

        Each process scores its share of the micro-batches; all processes get all tokens.

        Args:
            batch: ``N`` tokens.
            model: the policy if not given.
        """
        logprobs, entropy = self._measured(batch, model or self.model, token_stats, 2)
        return logprobs, entropy

    @torch.no_grad()
    def vocabulary_facts(self, batch: RolloutBatch, keep: float = 1.0) -> tuple[Tensor, Tensor, Tensor]:
        """Measure the policy's whole distribution at each token; see ``vocabulary_facts``.

        Returns:
            Certainty, logit and proxy log-prob, ``[N]`` each, nats; −inf where the proxy has no such token.
        """
        measure = partial(vocabulary_facts, keep=keep)
        certainty, logit, proxy = self._measured(batch, self.model, measure, 3)
        return certainty, logit, proxy

    def _measured(
        self, batch: RolloutBatch, model: PolicyModel, measure: Callable[..., tuple[Tensor, ...]], count: int
    ) -> Tensor:
        """What ``measure`` gives for each token, over all processes: ``[count, N]``."""
        joint = batch.old_logprobs.new_zeros(count, batch.num_tokens)
        for micro_batch in self.micro_batches(batch):
            values = model(micro_batch, batch.temperature, measure)
            joint[:, micro_batch.order] = torch.stack(values).to(joint)
        return self.process_group.sum(joint)

    def reference_logprobs(self, batch: RolloutBatch) -> Tensor:
        """Log-probs ``[N]`` of the initial policy, nats: the base without its adapters, or a frozen copy."""
        if self._config.model.lora.r:
            with without_adapters(self.model.lm):
                return self.score(batch)[0]
        if self._reference is None:
            self._reference = self._load(adapters=False).eval().requires_grad_(False)
        return self.score(batch, self._reference)[0]

    def micro_batches(self, batch: RolloutBatch) -> list[MicroBatch]:
        """Pack a batch, and return this process's micro-batches."""
        if not batch.num_tokens:
            return []
        update, attention = self._config.update, self.model.attention
        row_tokens = row_limit(attention, update.max_tokens, update.row_tokens)
        rank, size = self.process_group.rank, self.process_group.size
        with usage_errors("update."):
            return pack_micro_batches(
                batch.sequences,
                update.max_tokens,
                row_tokens,
                rank,
                size,
                bucketed=self.model.bucketed,
                shared=shares_prompts(
                    self._config.model.attention, attention, self.model.lm.config, batch.sequences
                ),
            )


class ForwardPasses:
    """The forward passes with gradient over an optimizer minibatch, one for each micro-batch.

    The first is made at once and serves planning too. Iterating makes the others one at a time, so that only
    one graph is alive.

    Args:
        scorer: scores the tokens.
        batch: the minibatch, ``N`` tokens.
        model: the policy if not given.
    """

    def __init__(self, scorer: Scorer, batch: RolloutBatch, model: PolicyModel | None = None) -> None:
        self._scorer = scorer
        self._model = model or scorer.model
        self._temperature = batch.temperature
        self._micro_batches = scorer.micro_batches(batch)
        self._scored = batch.old_logprobs.new_zeros(2, batch.num_tokens)
        self._first = [self._pass(m) for m in self._micro_batches[:1]]

    def current(self) -> tuple[Tensor, Tensor]:
        """Log-probs ``[N]`` and entropies ``[N]`` of the current policy, without gradient, nats.

        Costs a pass without gradient for each micro-batch but the first; call it before iterating.
        """
        with torch.no_grad():
            for micro_batch in self._micro_batches[1:]:
                self._pass(micro_batch)
        return self.scored()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield each pass: which tokens ``[n]`` it scored, their log-probs and entropies with gradient."""
        for micro_batch in self._micro_batches:
            logprobs, entropy = self._first.pop() if self._first else self._pass(micro_batch)
            yield micro_batch.order, logprobs, entropy

    def scored(self) -> tuple[Tensor, Tensor]:
        """Log-probs ``[N]`` and entropies ``[N]`` that the passes so far gave, over all processes, nats."""
        logprobs, entropy = self._scorer.process_group.sum(self._scored.clone())
        return logprobs, entropy

    def _pass(self, micro_batch: MicroBatch) -> tuple[Tensor, Tensor]:
        scores = self._model(micro_batch, self._temperature)
        logprobs, entropy = (x.to(self._scored.device) for x in scores)
        self._scored[:, micro_batch.order] = torch.stack([logprobs.detach(), entropy.detach()])
        return logprobs, entropy
