"""Auxiliary models: language models that train beside the policy, with the same machinery.

An auxiliary model starts as the policy does, is sharded, adapted, checkpointed and resumed as the policy is,
and has an optimizer of its own. An objective names what it learns (``Objective.auxiliary``).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ecrl.algorithm.process_reward import PROCESS_REWARDS, ImplicitProcessReward
from ecrl.algorithm.rollout_batch import REFERENCE_LOGPROBS, RolloutBatch
from ecrl.distributed.sharding import clip_gradients, gradient_norm
from ecrl.errors import NonFiniteError
from ecrl.metrics import MetricsRecorder
from ecrl.policy.model import PolicyModel
from ecrl.training.scoring import ForwardPasses, Scorer


class AuxiliaryModel:
    """A process reward model in training.

    Args:
        name: its key in ``objective.auxiliary``; names its metrics.
        task: what it learns.
        scorer: loads it as it loads the policy, and packs its passes.

    Attributes:
        model: its weights.
        optimizer: AdamW over those that are trained.
    """

    def __init__(self, name: str, task: ImplicitProcessReward, scorer: Scorer) -> None:
        self.name = name
        self.task = task
        self._scorer = scorer
        self.model: PolicyModel = scorer.load_copy()
        self.optimizer = torch.optim.AdamW(self._trained(), lr=task.lr, weight_decay=0.0, fused=True)

    def _trained(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def learn(self, batch: RolloutBatch, recorder: MetricsRecorder) -> dict[str, Tensor]:
        """Take one optimizer step on the outcomes of a rollout, and score its tokens.

        Args:
            batch: the rollout, ``N`` tokens, with the column ``reference_logprobs``.
            recorder: takes ``<name>/loss``, ``/accuracy``, ``/grad_norm`` and ``/reward``.

        Returns:
            The column ``process_rewards``, ``[N]``.

        Raises:
            NonFiniteError: loss or gradient is NaN or infinite; the weights were not changed.
        """
        reference, outcomes = batch.columns[REFERENCE_LOGPROBS], batch.rewards.clamp(0, 1)
        passes = ForwardPasses(self._scorer, batch, self.model)
        self.optimizer.zero_grad()
        loss = self._accumulate(passes, batch, reference, outcomes)
        norm = gradient_norm(self._trained())
        if not math.isfinite(loss) or not math.isfinite(float(norm)):
            raise NonFiniteError(
                f"The loss of the auxiliary model {self.name} became {loss}, its gradient "
                f"norm {float(norm)}; its weights were not changed. Lower objective.auxiliary.{self.name}.lr."
            )
        if self.task.grad_clip:
            clip_gradients(self._trained(), norm, self.task.grad_clip)
        logprobs, _ = passes.scored()
        self.optimizer.step()
        if self.task.update_first:
            logprobs, _ = self._scorer.score(batch, self.model)
        rewards = self.task.rewards(logprobs, reference)
        totals = batch.episodes().per_episode_sum(rewards)
        right = ((totals > 0) == (outcomes > 0.5)).float().mean()
        numbers = {
            "loss": loss,
            "grad_norm": float(norm),
            "accuracy": float(right),
            "reward": float(totals.mean()),
        }
        for what, value in numbers.items():
            recorder.record(f"{self.name}/{what}", value)
        return {PROCESS_REWARDS: rewards}

    def _accumulate(
        self, passes: ForwardPasses, batch: RolloutBatch, reference: Tensor, outcomes: Tensor
    ) -> float:
        """Add the gradient of the mean loss over all responses; return the loss."""
        sharding, total = self._scorer.sharding, torch.zeros(1, dtype=torch.float64)
        sequence_ids = batch.sequence_ids
        for order, logprobs, _ in passes:
            present, local = torch.unique(sequence_ids[order], return_inverse=True)
            losses = self.task.losses(logprobs, reference[order], local, outcomes[present])
            loss = losses.sum() / len(batch)
            if loss.requires_grad:
                torch.autograd.backward(loss * sharding.loss_scale)
            total += float(loss.detach())
        sharding.sum_gradients(self.model.parameters())
        return float(self._scorer.process_group.sum(total))
