"""The protocol of a rollout engine, and the completions that it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from torch import Tensor

if TYPE_CHECKING:
    from ecrl.config.schema import Config
    from ecrl.distributed.process_group import ProcessGroup

#: Seconds that a poll may wait for something to finish.
POLL_SECONDS = 0.05

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Completion:
    """The response that an engine generated for one prompt.

    Attributes:
        token_ids: the generated tokens, including the end-of-sequence token if it was generated.
        logprobs: log-probability of each token at the sampling temperature, in nats. An engine with
            ``logprobs_exact`` takes the full-vocabulary distribution, before top-p and top-k; another one
            that from which the token was drawn.
        entropy: entropy of the full-vocabulary distribution at each token, in nats; None if the engine
            reports none.
        finish_reason: ``stop`` at the end-of-sequence token, ``length`` at the token limit.
        weights_version: version of the weights that generated it, or its last tokens.
        earlier: where the weights changed meanwhile: the versions before, each with its number of tokens, in
            order.
    """

    token_ids: list[int]
    logprobs: list[float]
    entropy: list[float] | None
    finish_reason: FinishReason
    weights_version: int
    earlier: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True)
class Sampling:
    """How to sample.

    Attributes:
        temperature: softmax temperature; 0 is greedy decoding.
        top_p: probability mass of the nucleus, in (0, 1]; 1 samples from the whole vocabulary.
        max_new_tokens: the most tokens that one completion may have.
        top_k: number of most likely tokens to sample from, before top-p; 0 samples from all.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 32
    top_k: int = 0


@dataclass(frozen=True)
class Request:
    """One completion that an engine is asked for.

    Attributes:
        id: the caller's own number, unique among the requests that are open.
        prompt: token ids.
        key: 64-bit key of the completion's own random stream: the same prompt, key and weights give the same
            completion in any batch, order or process, wherever the sums of a forward pass do not depend on
            the batch. On a CPU they do not; on a GPU they do, in the last bits, unless the engine's kernels
            are batch-invariant (vLLM's are under ``VLLM_BATCH_INVARIANT=1``).
        sampling: how to sample; may differ between requests that are open at once.
    """

    id: int
    prompt: Sequence[int]
    key: int
    sampling: Sampling


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
        lockstep: generation is a collective, so every process must call ``poll`` equally often.
        waves: a poll generates all that was submitted, so the more is submitted before it, the better.
        pausable: its weights may change between ``pause`` and ``resume`` while requests are open. A class
            attribute.
        resumable: knobs of the constructor that may change when a run resumes: those that say where the
            engine is and how much it takes at once, so that the same keys draw the same completions.
    """

    logprobs_exact: bool
    reports_entropy: bool
    shares_weights: bool
    disaggregated: bool
    lockstep: bool
    waves: bool
    pausable: bool
    resumable: frozenset[str]

    @classmethod
    def check(cls, config: Config) -> None:
        """Refuse a configuration that cannot work, before anything is started.

        Raises:
            UsageError: something is not installed, not reachable, or not possible with this engine.
        """
        ...

    def submit(self, requests: Sequence[Request]) -> None:
        """Accept requests, and return at once. Others may be open.

        Raises:
            EcrlError: one cannot be answered; then nothing stays open.
        """
        ...

    def poll(self) -> list[tuple[int, Completion]]:
        """Go on generating.

        Returns:
            What finished since the last call, each with the id of its request, in any order; possibly
            nothing. It comes within about ``POLL_SECONDS``, or after one step or wave of an engine in this
            process.

        Raises:
            EcrlError: a request cannot be answered; then nothing stays open.
        """
        ...

    def cancel(self) -> None:
        """Forget all open requests."""
        ...

    def pause(self) -> None:
        """Stop generating; open requests stay. Only if it is ``pausable``, as is ``resume``."""
        ...

    def resume(self) -> None:
        """Go on with all open requests, by the weights that it now holds."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """Generate one completion for each prompt; see ``StreamingEngine``."""
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


class StreamingEngine(ABC):
    """What every engine does in the same way, given ``submit``, ``poll`` and ``cancel``."""

    waves = False
    pausable = False
    lockstep: bool
    process_group: ProcessGroup

    @abstractmethod
    def submit(self, requests: Sequence[Request]) -> None:
        """See ``Engine.submit``."""

    @abstractmethod
    def poll(self) -> list[tuple[int, Completion]]:
        """See ``Engine.poll``."""

    @abstractmethod
    def cancel(self) -> None:
        """See ``Engine.cancel``."""

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """Generate one completion for each prompt; no other request may be open.

        Args:
            prompts: token ids, ragged; a group repeats its prompt.
            sampling: how to sample.
            keys: see ``Request.key``, one for each prompt.

        Returns:
            The completions, in the order of the prompts.

        Raises:
            EcrlError: a prompt cannot be answered.
        """
        done: dict[int, Completion] = {}
        try:
            self.submit([Request(i, *one, sampling) for i, one in enumerate(zip(prompts, keys, strict=True))])
            goes_on = True  # also for no prompts: in lockstep every process polls
            while goes_on:
                done.update(self.poll())
                goes_on = len(done) < len(prompts)
                if self.lockstep:
                    goes_on = self.process_group.any(goes_on)
        except BaseException:
            self.cancel()
            raise
        return [done[i] for i in range(len(prompts))]


class WaveEngine(StreamingEngine):
    """An engine that generates all that was submitted at once, by its own ``draw``."""

    waves = True

    def __init__(self) -> None:
        self._open: list[Request] = []

    @abstractmethod
    def draw(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, keys: Sequence[int]
    ) -> list[Completion]:
        """Generate one completion for each prompt, in their order; in lockstep there may be none here."""

    def submit(self, requests: Sequence[Request]) -> None:
        """See ``Engine.submit``."""
        self._open += requests

    def poll(self) -> list[tuple[int, Completion]]:
        """See ``Engine.poll``. What is sampled alike makes one wave."""
        requests, self._open = self._open, []
        samplings = list(dict.fromkeys(r.sampling for r in requests))
        if self.lockstep:
            samplings = list(dict.fromkeys(self.process_group.gather(samplings)))
        done: list[tuple[int, Completion]] = []
        for sampling in samplings:
            wave = [r for r in requests if r.sampling == sampling]
            completions = self.draw([r.prompt for r in wave], sampling, [r.key for r in wave])
            done += zip((r.id for r in wave), completions, strict=True)
        return done

    def cancel(self) -> None:
        """See ``Engine.cancel``."""
        self._open = []
