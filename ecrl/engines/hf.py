"""The default engine: the policy itself decodes, in the trainer's process, with the trainer's weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion, Sampling, WaveEngine
from ecrl.errors import UsageError
from ecrl.hashing import uniform
from ecrl.policy.model import PolicyModel


class HFEngine(WaveEngine):
    """Generates with the policy's own module, so a weight sync copies nothing.

    Args:
        model: the policy.
        process_group: the run's processes.
        batch_size: the most completions that are generated at once.
    """

    reports_entropy = True
    shares_weights = True
    disaggregated = False
    resumable = frozenset({"batch_size"})

    def __init__(self, model: PolicyModel, process_group: ProcessGroup, *, batch_size: int = 1024) -> None:
        if batch_size < 1:
            raise UsageError(f"engine.batch_size must be at least 1, got {batch_size}.")
        super().__init__()
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
        types = self.model.lm.dtype, self.model.compute_dtype
        return types == (torch.float32,) * 2 and not torch.is_autocast_enabled(self.model.device.type)

    @property
    def lockstep(self) -> bool:  # type: ignore[override]
        """Whether each decoding step is a collective, because the weights are sharded."""
        return self.model.sharded

    def draw(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """See ``WaveEngine.draw``. Samples by inverting the CDF with one uniform number per token."""
        # Prompts of one length share a batch, so that little is padded, and equal ones are computed once.
        order = sorted(range(len(prompts)), key=lambda row: (len(prompts[row]), prompts[row]))
        drawn: list[Completion] = []
        batches = -(-len(prompts) // self.batch_size)
        for number in range(self.process_group.max(batches) if self.lockstep else batches):
            part = order[number * self.batch_size : (number + 1) * self.batch_size]
            if part:
                drawn += self._decode([prompts[i] for i in part], sampling, [keys[i] for i in part])
            else:  # other processes still decode, and need this process's shards
                self._decode([[self.model.pad_id]], sampling, [0])
        completions = dict(zip(order, drawn, strict=True))
        return [completions[row] for row in range(len(prompts))]

    def _decode(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        sampler = StreamSampler(keys, sampling)
        was_training = self.model.training
        self.model.eval()
        self.model.generate(prompts, sampler, sampling.max_new_tokens, self._any_left)
        self.model.train(was_training)
        return sampler.completions(self.model.eos_ids, self.version)

    def _any_left(self, here: bool) -> bool:
        return self.process_group.any(here) if self.lockstep else here

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Store the version; the weights are shared."""
        self.version = version

    def sleep(self) -> None:
        """Do nothing: there is only one copy of the weights."""

    def wake(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing: it holds no resources of its own."""


class StreamSampler:
    """Samples each row's next token from the row's own random stream, and keeps tokens and statistics.

    Args:
        keys: one 64-bit key for each row.
        sampling: temperature and top-p.
    """

    def __init__(self, keys: Sequence[int], sampling: Sampling) -> None:
        self._keys = np.asarray(keys, np.uint64)
        self._sampling = sampling
        self._rows: list[NDArray[np.int64]] = []
        self._drawn: list[tuple[Tensor, Tensor, Tensor]] = []

    def __call__(self, logits: Tensor, rows: NDArray[np.int64]) -> Tensor:
        """Map logits ``[b, V]`` of the rows ``[b]`` to their next tokens ``[b]``."""
        logits = logits.float()
        if self._sampling.temperature > 0:
            logits = logits / self._sampling.temperature
        logprobs = torch.log_softmax(logits, -1)
        probs = logprobs.exp()
        tokens = logits.argmax(-1) if self._sampling.temperature == 0 else self._draw(probs, rows)
        chosen = logprobs.gather(1, tokens[:, None])[:, 0]
        # Clamped so that a probability of 0 contributes 0 and not 0 · −inf.
        entropy = -(probs * logprobs.clamp(min=torch.finfo(torch.float32).min)).sum(-1)
        self._rows.append(rows)
        self._drawn.append((tokens, chosen, entropy))
        return tokens

    def completions(self, eos_ids: Sequence[int], version: int) -> list[Completion]:
        """Return what was drawn for each row, up to its first end-of-sequence token.

        Args:
            eos_ids: end-of-sequence tokens.
            version: version of the weights.
        """
        # Rows leave as they end, so each step has some of them.
        rows = np.concatenate(self._rows)
        order = np.argsort(rows, kind="stable")
        tokens, logprobs, entropy = (
            torch.cat(parts).cpu().numpy()[order].tolist() for parts in zip(*self._drawn, strict=True)
        )
        return [
            _completion(tokens[start:end], logprobs[start:end], entropy[start:end], eos_ids, version)
            for start, end in pairwise(np.cumsum([0, *np.bincount(rows)]).tolist())
        ]

    def _draw(self, probs: Tensor, rows: NDArray[np.int64]) -> Tensor:
        if self._sampling.top_k:
            probs = _most_likely(probs, self._sampling.top_k)
        if self._sampling.top_p < 1:
            probs = _nucleus(probs, self._sampling.top_p)
        cdf = probs.double().cumsum(-1)
        draws = torch.from_numpy(uniform(self._keys[rows], len(self._drawn))).to(cdf.device)
        tokens = torch.searchsorted(cdf, draws[:, None] * cdf[:, -1:], right=True)[:, 0]
        return tokens.clamp(max=probs.shape[1] - 1)


def _completion(
    tokens: list[int], logprobs: list[float], entropy: list[float], eos_ids: Sequence[int], version: int
) -> Completion:
    ends = next((t for t, token in enumerate(tokens) if token in eos_ids), None)
    length = len(tokens) if ends is None else ends + 1
    return Completion(
        token_ids=tokens[:length],
        logprobs=logprobs[:length],
        entropy=entropy[:length],
        finish_reason="length" if ends is None else "stop",
        weights_version=version,
    )


def _most_likely(probs: Tensor, top_k: int) -> Tensor:
    """Set all probabilities to 0 except the ``top_k`` largest."""
    values, index = probs.topk(min(top_k, probs.shape[-1]))
    return torch.zeros_like(probs).scatter(1, index, values)


def _nucleus(probs: Tensor, top_p: float) -> Tensor:
    """Set all probabilities to 0 except the smallest set of most likely tokens with share ``top_p``."""
    ordered, index = torch.sort(probs, dim=-1, descending=True, stable=True)
    outside = ordered.cumsum(-1) - ordered >= top_p * ordered.sum(-1, keepdim=True)
    return probs.scatter(1, index, ordered.masked_fill(outside, 0.0))
