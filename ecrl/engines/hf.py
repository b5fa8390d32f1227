"""The default engine: transformers' ``generate`` in the trainer's process, with the trainer's weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion, Sampling
from ecrl.errors import UsageError
from ecrl.hashing import uniform
from ecrl.policy.model import PolicyModel


class HFEngine:
    """Generates with the policy's own module, so a weight sync copies nothing.

    Args:
        model: the policy.
        process_group: the run's processes.
        batch_size: the most completions that are generated at once.
    """

    shares_weights = True
    disaggregated = False
    resumable = frozenset({"batch_size"})

    def __init__(self, model: PolicyModel, process_group: ProcessGroup, *, batch_size: int = 1024) -> None:
        if batch_size < 1:
            raise UsageError(f"engine.batch_size must be at least 1, got {batch_size}.")
        self.model = model
        self.process_group = process_group
        self.batch_size = batch_size
        self.version = 0

    @classmethod
    def check(cls, config: Config) -> None:
        """Accept every configuration: it needs nothing beyond the required packages."""

    @property
    def logprobs_exact(self) -> bool:
        """Whether all computes in float32; in mixed precision, decoding and scoring round differently."""
        mixed = self.model.computes_in_bf16 or torch.is_autocast_enabled(self.model.device.type)
        return self.model.lm.dtype == torch.float32 and not mixed

    @property
    def lockstep(self) -> bool:
        """Whether each decoding step is a collective, because the weights are sharded."""
        return self.model.sharded

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """See ``Engine.generate``. Samples by inverting the CDF with one uniform number per token."""
        completions: list[Completion] = []
        batches = -(-len(prompts) // self.batch_size)
        for number in range(self.process_group.max(batches) if self.lockstep else batches):
            part = slice(number * self.batch_size, (number + 1) * self.batch_size)
            if prompts[part]:
                completions += self._generate(prompts[part], sampling, keys[part])
            else:  # other processes still decode, and need this process's shards
                self._generate([[self.model.pad_id]], sampling, [0])
        return completions

    @torch.no_grad()
    def _generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        device = self.model.device
        width = max(len(p) for p in prompts)
        ids = torch.full((len(prompts), width), self.model.pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        sampler = StreamSampler(keys, sampling)
        was_training = self.model.training
        self.model.eval()
        output = self.model.generate(
            input_ids=ids.to(device),
            attention_mask=mask.to(device),
            logits_processor=LogitsProcessorList([sampler]),
            synced_gpus=self.lockstep,
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=sampling.max_new_tokens,
                eos_token_id=self.model.eos_ids,
                pad_token_id=self.model.pad_id,
            ),
        )
        self.model.train(was_training)
        return self._completions(output[:, width:].tolist(), sampler)

    def _completions(self, rows: list[list[int]], sampler: StreamSampler) -> list[Completion]:
        logprobs = torch.stack(sampler.logprobs, 1).tolist()
        entropy = torch.stack(sampler.entropy, 1).tolist()
        completions = []
        for row, row_logprobs, row_entropy in zip(rows, logprobs, entropy, strict=True):
            ends = next((t for t, token in enumerate(row) if token in self.model.eos_ids), None)
            length = len(row) if ends is None else ends + 1
            completions.append(
                Completion(
                    token_ids=row[:length],
                    logprobs=row_logprobs[:length],
                    entropy=row_entropy[:length],
                    finish_reason="length" if ends is None else "stop",
                    weights_version=self.version,
                )
            )
        return completions

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Store the version; the weights are shared."""
        self.version = version

    def sleep(self) -> None:
        """Do nothing: there is only one copy of the weights."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: it holds no resources of its own."""


class StreamSampler(LogitsProcessor):
    """Samples each row's next token from the row's own random stream, and records its statistics.

    All other tokens are masked, so greedy decoding then picks the sampled token.

    Args:
        keys: one 64-bit key for each row.
        sampling: temperature and top-p.

    Attributes:
        logprobs: log-probabilities ``[B]`` of the sampled tokens, one tensor per step, nats.
        entropy: full-vocabulary entropies ``[B]``, one tensor per step, nats.
    """

    def __init__(self, keys: Sequence[int], sampling: Sampling) -> None:
        self.keys = np.asarray(keys, np.uint64)
        self.sampling = sampling
        self.logprobs: list[Tensor] = []
        self.entropy: list[Tensor] = []

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Map logits ``[B, V]`` to logits that allow only the sampled token."""
        greedy = self.sampling.temperature == 0
        logits = scores.float() if greedy else scores.float() / self.sampling.temperature
        logprobs = torch.log_softmax(logits, -1)
        probs = logprobs.exp()
        tokens = logits.argmax(-1) if greedy else self._draw(probs)
        self.logprobs.append(logprobs.gather(1, tokens[:, None])[:, 0])
        # Clamped so that a probability of 0 contributes 0 and not 0 · −inf.
        self.entropy.append(-(probs * logprobs.clamp(min=torch.finfo(torch.float32).min)).sum(-1))
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)

    def _draw(self, probs: Tensor) -> Tensor:
        if self.sampling.top_p < 1:
            probs = _nucleus(probs, self.sampling.top_p)
        cdf = probs.double().cumsum(-1)
        draws = torch.from_numpy(uniform(self.keys, len(self.logprobs))).to(cdf.device)
        tokens = torch.searchsorted(cdf, draws[:, None] * cdf[:, -1:], right=True)[:, 0]
        return tokens.clamp(max=probs.shape[1] - 1)


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Set all probabilities to 0 except the smallest set of most likely tokens with mass ``top_p``."""
    ordered, index = torch.sort(probs, dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(-1) - ordered >= top_p
    return probs.scatter(1, index, ordered.masked_fill(outside, 0.0))
