"""Where entropy is lost: covariance by how easy the prompt is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import lightning as L
import torch
from torch import Tensor

from ecrl.algorithm.covariance import response_covariance, token_covariance
from ecrl.rollout.batching import group_tensors
from ecrl.training.observer import PlanObserver, RolloutObserver

if TYPE_CHECKING:
    from ecrl.algorithm.loss_plan import LossPlan
    from ecrl.rollout.trajectory import Trajectory
    from ecrl.training.module import PolicyModule

# In float64, where a mean of equal rewards is that reward; bins are open below and closed above.
BORDERS = torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0 - 1e-9], dtype=torch.float64)
BINS = ("0%", "0-25%", "25-50%", "50-75%", "75-100%", "100%")


class AccuracyMonitor(L.Callback, RolloutObserver, PlanObserver):
    """Records covariances by the mean reward of the prompt's group, over a rollout's first minibatch.

    ``cov/accuracy_<bin>`` is the mean token covariance, ``cov/group/accuracy_<bin>`` that of whole responses
    within their group, ``cov/group/mean`` its mean over all groups. The bins are 0, (0, ¼], (¼, ½], (½, ¾],
    (¾, 1) and 1, for rewards between 0 and 1. https://arxiv.org/abs/2505.22617, section 4.3: easier prompts
    have the higher covariance.
    """

    def __init__(self) -> None:
        self._problems = torch.zeros(0, dtype=torch.long)
        self._accuracy = torch.zeros(0, dtype=torch.float64)

    def on_rollout(self, module: PolicyModule, trajectories: Sequence[Trajectory]) -> None:
        """Take the mean reward of every problem."""
        rewards, groups = group_tensors(trajectories)
        self._problems, member = torch.unique(groups, return_inverse=True)
        sums = torch.zeros(len(self._problems), dtype=torch.float64).index_add(0, member, rewards.double())
        self._accuracy = sums / torch.bincount(member)

    def on_plan(self, module: PolicyModule, plan: LossPlan, fresh: bool) -> None:
        """Record the means of all bins that are not empty."""
        if not fresh:
            return
        tokens = plan.tokens
        self._record(module, "cov", tokens.group_ids, token_covariance(tokens.logprobs, tokens.advantages))
        groups, of_groups = response_covariance(tokens, tokens.logprobs)
        if len(groups):
            module.recorder.record("cov/group/mean", float(of_groups.mean()))
            self._record(module, "cov/group", groups, of_groups)

    def _record(self, module: PolicyModule, prefix: str, groups: Tensor, values: Tensor) -> None:
        accuracy = self._accuracy[torch.searchsorted(self._problems, groups.cpu())]
        bins = torch.bucketize(accuracy, BORDERS)
        for number, name in enumerate(BINS):
            inside = values[(bins == number).to(values.device)]
            if len(inside):
                module.recorder.record(f"{prefix}/accuracy_{name}", float(inside.mean()))
