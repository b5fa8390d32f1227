"""What an estimate assumes about hardware and lengths."""

from __future__ import annotations

from dataclasses import dataclass

from ecrl.config.limits import check_limits, choice, count, number
from ecrl.estimate.cards import CARDS, Card


@dataclass(frozen=True)
class Assumptions:
    """What the configuration does not contain.

    Attributes:
        gpu: kind of GPU, one of ``CARDS``.
        gpu_memory: memory of each GPU, GiB; None takes the card's.
        utilisation: share of the GPU's FLOP/s that training reaches; recomputation counts as work.
        length: expected length of a completion, as a share of ``rollout.max_new_tokens``.
        prompt: expected length of a prompt, tokens.
        server_gpus: GPUs of each server of ``engine=vllm_server``, its ``tensor_parallel_size``.

    Raises:
        UsageError: the kind of GPU is unknown.
        ValueError: a number is out of range.
    """

    gpu: str = choice("h100", CARDS)
    gpu_memory: float | None = number(None, above=0)
    utilisation: float = number(0.35, above=0, most=1, wanted="in (0, 1]")
    length: float = number(0.2, above=0, most=1, wanted="in (0, 1]")
    prompt: int = number(200, above=0)
    server_gpus: int = count(1, least=1)

    def __post_init__(self) -> None:
        check_limits(self)

    @property
    def card(self) -> Card:
        """The kind of GPU."""
        return CARDS[self.gpu]

    @property
    def memory(self) -> float:
        """Memory of each GPU, GiB."""
        return self.card.memory if self.gpu_memory is None else self.gpu_memory
