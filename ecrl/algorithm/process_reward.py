"""An implicit process reward model, as PRIME trains it: https://arxiv.org/abs/2502.01456.

    r_t = β·(log π_φ(y_t) − log π_ref(y_t))        the reward of token t
    L_φ = −(1/B) Σ_y [o·log σ(R) + (1 − o)·log(1 − σ(R))]        R = Σ_t r_t, o the outcome in [0, 1]

φ is a language model that starts as the policy does, and π_ref stays as the policy began. The labels are the
outcomes of whole responses; the rewards of single tokens come for free. The authors' public code takes
log-ratios without β as rewards, divided by the largest return of the batch and weighed by 5; ours are the
paper's, and ``advantages.prime(coefficient=…)`` weighs them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits

PROCESS_REWARDS = "process_rewards"


@dataclass(frozen=True)
class ImplicitProcessReward:
    """What an auxiliary model learns, and what it gives to the advantages.

    Attributes:
        beta: β, above 0.
        lr: AdamW's learning rate, not negative.
        grad_clip: bound of the global gradient norm; 0 for none.
        update_first: give the rewards of the updated model, at the cost of one more pass; else those of the
            model before its update, as in the authors' runs.

    Raises:
        ValueError: a number is out of range.
    """

    beta: float = 0.05
    lr: float = 1e-6
    grad_clip: float = 10.0
    update_first: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise ValueError(f"ImplicitProcessReward: beta must be positive and finite, got {self.beta}.")
        for name in ("lr", "grad_clip"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(
                    f"ImplicitProcessReward: {name} must be finite and not negative, got {value}."
                )

    def rewards(self, logprobs: Tensor, reference: Tensor) -> Tensor:
        """Reward of each token, ``[N]``.

        Args:
            logprobs: ``[N]`` log π_φ, nats.
            reference: ``[N]`` log π_ref, nats.
        """
        return self.beta * (logprobs - reference)

    def losses(self, logprobs: Tensor, reference: Tensor, sequence_ids: Tensor, outcomes: Tensor) -> Tensor:
        """Cross-entropy of each response's outcome, nats, with gradient.

        Args:
            logprobs: ``[n]`` log π_φ of whole responses, nats, with gradient.
            reference: ``[n]`` log π_ref, nats.
            sequence_ids: ``[n]`` long, 0…b−1.
            outcomes: ``[b]`` in [0, 1].

        Returns:
            ``[b]``.
        """
        total = torch.zeros_like(outcomes).index_add(0, sequence_ids, self.rewards(logprobs, reference))
        return binary_cross_entropy_with_logits(total, outcomes, reduction="none")
