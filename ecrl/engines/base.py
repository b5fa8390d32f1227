"""The protocol of a rollout engine, and what it draws."""

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
    """What an engine drew for one prompt.

    Attributes:
        token_ids: the drawn tokens, the end-of-sequence token included where it was drawn.
        logprobs: log-probability of each token under the full-vocabulary distribution at the
            sampling temperature (before top-p), in nats.
        entropy: entropy of that distribution at each token, in nats; None if the engine has none.
        finish_reason: ``stop`` at the end-of-sequence token, ``length`` at the token limit.
        weights_version: the version of the weights that drew it.
    """

    token_ids: list[int]
    logprobs: list[float]
    entropy: list[float] | None
    finish_reason: FinishReason
    weights_version: int


@dataclass(frozen=True)
class Sampling:
    """How to draw.

    Attributes:
        temperature: of the softmax; 0 is greedy.
        top_p: nucleus share in (0, 1]; 1 draws from the whole vocabulary.
        max_new_tokens: limit of own tokens.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 32


class Engine(Protocol):
    """Draws completions with the policy's current weights.

    Built as ``Engine(model: PolicyModel, process_group: ProcessGroup, **knobs)`` on every process of the run;
    each draws its own share of the completions.

    Attributes:
        logprobs_exact: its log-probs are the trainer's own (same weights, process and precision), so they
            need not be computed again.
        disaggregated: it has devices of its own, so it can draw while the trainer updates.
        lockstep: drawing is a collective, so every process must call ``generate`` equally often.
        resumable: knobs of the constructor that may change when a run resumes: those that say where the
            engine is and how much it takes at once, so that the same keys draw the same completions.
    """

    logprobs_exact: bool
    disaggregated: bool
    lockstep: bool
    resumable: frozenset[str]

    @classmethod
    def check(cls, config: Config) -> None:
        """Refuse what cannot work, before anything is started.

        Raises:
            UsageError: something is not installed, not reachable, or not possible with this engine.
        """
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """Draw one completion for each prompt.

        Args:
            prompts: token ids, ragged; a group repeats its prompt.
            sampling: how to draw.
            keys: 64-bit key of each completion's own random stream: the same prompt, key and weights
                draw the same completion in any batch, order or process.
        """
        ...

    def sync_weights(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Take over the trainer's weights and confirm their version.

        Args:
            weights: names as in the model's HF checkpoint, and whole tensors, made one at a time as it
                is iterated over, again if need be. Every process of the run must iterate to the end
                equally often.
            version: of these weights; completions carry it.

        Raises:
            EcrlError: what the engine holds afterwards is not what it was sent.
        """
        ...

    def sleep(self) -> None:
        """Give device memory back to the trainer."""
        ...

    def wake(self) -> None:
        """Take device memory again before generating."""
        ...

    def close(self) -> None:
        """Release everything."""
        ...
