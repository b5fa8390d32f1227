"""The protocol of a rollout engine, and the completions that it returns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from ecrl.config.schema import Config


FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Completion:
    """The response that an engine generated for one prompt.

    Attributes:
        token_ids: the generated tokens, including the end-of-sequence token if it was generated.
        logprobs: log-probability of each token under the full-vocabulary distribution at the
            sampling temperature (before top-p), in nats.
        entropy: entropy of that distribution at each token, in nats; None if the engine reports none.
        finish_reason: ``stop`` at the end-of-sequence token, ``length`` at the token limit.
        weights_version: version of the weights that generated it.
    """

    token_ids: list[int]
    logprobs: list[float]
    entropy: list[float] | None
    finish_reason: FinishReason
    weights_version: int


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Attributes:
        temperature: softmax temperature; 0 is greedy decoding.
        top_p: probability mass of the nucleus, in (0, 1]; 1 samples from the whole vocabulary.
        max_new_tokens: the most tokens that one completion may have.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 32


class Engine(Protocol):
    """Generates completions with the policy's current weights.

    Built as ``Engine(model: PolicyModel, process_group: ProcessGroup, **knobs)`` on every process of the run;
    each process generates its own share of the completions.

    Attributes:
        logprobs_exact: its log-probs are the trainer's own (same weights, process and precision), so they
            need not be computed again.
        reports_entropy: its completions carry entropies. A class attribute, because a run is checked before
            the engine is built.
        shares_weights: it generates with the trainer's own parameters and keeps no copy of them. A class
            attribute, because ``ecrl plan`` reads it without building the engine.
        disaggregated: it has devices of its own, so it can generate while the trainer updates. A class
            attribute too.
        lockstep: generation is a collective, so every process must call ``generate`` equally often.
        resumable: knobs of the constructor that may change when a run resumes: those that say where the
            engine is and how much it takes at once, so that the same keys draw the same completions.
    """

    logprobs_exact: bool
    reports_entropy: bool
    shares_weights: bool
    disaggregated: bool
    lockstep: bool
    resumable: frozenset[str]

    @classmethod
    def check(cls, config: Config) -> None:
        """Refuse a configuration that cannot work, before anything is started.

        Raises:
            UsageError: something is not installed, not reachable, or not possible with this engine.
        """
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """Generate one completion for each prompt.

        Args:
            prompts: token ids, ragged; a group repeats its prompt.
            sampling: how to sample.
            keys: 64-bit key of each completion's own random stream: the same prompt, key and weights
                give the same completion in any batch, order or process, wherever the sums of a forward pass
                do not depend on the batch. On a CPU they do not; on a GPU they do, in the last bits, unless
                the engine's kernels are batch-invariant (vLLM's are under ``VLLM_BATCH_INVARIANT=1``).

        Returns:
            The completions, in the order of the prompts.
        """
        ...

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Load the trainer's weights and verify them.

        Args:
            weights: pairs of a name in the model's HF checkpoint and an unsharded tensor. Each tensor is
                made when the iteration reaches it. It may be iterated over more than once; every process
                of the run must iterate to the end equally often.
            version: version of these weights, which completions then carry.

        Raises:
            EcrlError: the weights that the engine now holds differ from those that were sent.
        """
        ...

    def sleep(self) -> None:
        """Release device memory for the trainer."""
        ...

    def wake(self) -> None:
        """Allocate device memory again, before generating."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...
