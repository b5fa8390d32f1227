"""Predicted against measured change of the policy's entropy, every iteration, on a fixed probe set.

    measured       mean_s [H(π^{k+1}|s) − H(π^k|s)]
    by_logits      mean_s −Cov_{a~π^k}[log π^k(a|s), z^{k+1}_{s,a} − z^k_{s,a}]      a: the whole vocabulary
    by_tokens      −η·Σ_u Cov_{i∈u}[log π^k_i, A_i]              u: the iteration's optimizer steps, i: tokens
    by_responses   −η·Σ_u mean_x Cov_y[log π^k(y|x)/|y|, A(y)]                     x: prompts, y: responses

https://arxiv.org/abs/2505.22617, section 4. A state s is a position of the probe: of validation prompts
with one completion each, drawn once by the initial policy. ``by_logits`` is a first-order identity, so its
slope is 1 while the steps are small. The other two are for a tabular softmax policy under plain gradient
descent; here parameters are shared and Adam scales the step, so that only their correlation says anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import lightning as L
import numpy as np
import torch
from torch import Tensor

from ecrl.algorithm.covariance import response_covariance, token_covariance
from ecrl.algorithm.rollout_batch import SequenceTokens
from ecrl.analysis.scatter import scatter
from ecrl.analysis.theory import Agreement, agreement
from ecrl.errors import usage_errors
from ecrl.policy.packing import pack_micro_batches
from ecrl.rollout.batching import build_batch
from ecrl.training.observer import PlanObserver

if TYPE_CHECKING:
    from ecrl.algorithm.loss_plan import LossPlan
    from ecrl.training.module import PolicyModule

PREDICTIONS = "by_logits", "by_tokens", "by_responses"


class EntropyDynamics(L.Callback, PlanObserver):
    """Records ``dynamics/…`` and draws a scatter plot.

    Args:
        problems: problems of the first validation set that make the probe, a completion each; no more than
            ``tokens``.
        tokens: the most positions of the probe, evenly spaced; each keeps the whole vocabulary's logits.
    """

    def __init__(self, *, problems: int = 32, tokens: int = 256) -> None:
        super().__init__()
        if not 1 <= problems <= tokens:
            raise ValueError(
                f"EntropyDynamics: problems must lie between 1 and tokens={tokens}, a position each; got "
                f"{problems}."
            )
        self.problems = problems
        self.tokens = tokens
        self._probe: list[SequenceTokens] = []
        self._points: list[dict[str, float]] = []
        self._logits: Tensor
        self._forget()

    def _forget(self) -> None:
        """Forget what the last iteration's optimizer steps were."""
        self._steps = 0
        self._by_tokens = 0.0
        self._by_responses = 0.0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Draw the probe, unless a checkpoint brought it, and look at it."""
        module = cast("PolicyModule", pl_module)
        if not self._probe:
            datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
            self._probe = build_batch(datamodule.probe(self.problems), 0).sequences
        self._logits = self._look(module)

    def on_plan(self, module: PolicyModule, plan: LossPlan, fresh: bool) -> None:
        """Add an optimizer step's covariances, under the policy that the iteration began with."""
        self._steps += 1
        tokens, rate = plan.tokens, module.learning_rate
        cov = token_covariance(tokens.old_logprobs, tokens.advantages)
        self._by_tokens -= rate * float(cov.mean())
        _, of_groups = response_covariance(tokens, tokens.old_logprobs)
        if len(of_groups):
            self._by_responses -= rate * float(of_groups.mean())

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the probe again; record the iteration's point and how all points agree."""
        module = cast("PolicyModule", pl_module)
        with module.recorder.timer("probe"):
            before, self._logits = self._logits, self._look(module)
            measured, by_logits = entropy_change(before, self._logits)
        point = {
            "measured": measured,
            "by_logits": by_logits,
            "by_tokens": self._by_tokens,
            "by_responses": self._by_responses,
        }
        if self._steps:  # where nothing is learnt, nothing changes: (0, 0) agrees with anything
            self._points.append(point)
        self._forget()
        for name, value in point.items():
            module.recorder.record(f"dynamics/{name}", value)
        fits = {name: self._agreement(name) for name in PREDICTIONS}
        for name, fit in fits.items():
            for what, value in (("correlation", fit.correlation), ("slope", fit.slope)):
                if math.isfinite(value):
                    module.recorder.record(f"dynamics/{what}_{name}", value)
        due = (
            module.iteration % module.config.log.samples_every == 0 or module.iteration == trainer.max_epochs
        )
        if due and self._points and module.process_group.is_first:
            module.recorder.figure("dynamics/scatter", scatter(self._points, fits))

    def _agreement(self, name: str) -> Agreement:
        predicted, measured = (np.asarray([p[of] for p in self._points]) for of in (name, "measured"))
        return agreement(predicted, measured)

    @torch.no_grad()
    def _look(self, module: PolicyModule) -> Tensor:
        """Logits of the probe's positions, ``[M, V]``; every process makes all passes."""
        update, temperature = module.config.update, module.config.rollout.temperature
        total = sum(sum(s.own) for s in self._probe)
        count = min(self.tokens, total)
        chosen = torch.arange(count) * total // count
        parts: list[tuple[Tensor, Tensor]] = []
        with usage_errors("update."):
            micro_batches = pack_micro_batches(
                self._probe, update.max_tokens, 0, bucketed=module.model.bucketed
            )
        for micro_batch in micro_batches:
            mine = torch.isin(micro_batch.order, chosen)
            if mine.any():
                picked = {name: getattr(micro_batch, name)[mine] for name in ("source", "targets", "order")}
                few = replace(micro_batch, **picked)
                with _forward(module.trainer):
                    parts.append((few.order, module.model.logits(few, temperature).cpu()))
        order = torch.cat([part for part, _ in parts])
        return torch.cat([logits for _, logits in parts])[order.argsort()]

    def state_dict(self) -> dict[str, Any]:
        """Return the probe and all points."""
        return {"probe": [vars(s) for s in self._probe], "points": [dict(p) for p in self._points]}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._probe = [SequenceTokens(**s) for s in state_dict["probe"]]
        self._points = [dict(p) for p in state_dict["points"]]


def entropy_change(before: Tensor, after: Tensor) -> tuple[float, float]:
    """Mean change of entropy between logits ``[M, V]``: measured, and predicted by −Cov[log π, Δz]; nats."""
    measured = predicted = 0.0
    # Float64 of a few rows at once: the vocabulary may be large.
    for old, new in zip(torch.split(before, 32), torch.split(after, 32), strict=True):
        logprobs, later = (z.double().log_softmax(-1) for z in (old, new))
        policy = logprobs.exp()
        entropy = -(policy * logprobs).sum(-1)
        predicted -= float((policy * (logprobs + entropy[:, None]) * (later - logprobs)).sum())
        measured += float((-(later.exp() * later).sum(-1) - entropy).sum())
    return measured / len(before), predicted / len(before)


def _forward(trainer: L.Trainer) -> Any:
    """The precision of training's forward passes."""
    return trainer.precision_plugin.forward_context()
