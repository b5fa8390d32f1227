"""The strategies in TRL: a GRPO trainer whose loss is planned by them.

    from ecrl.callbacks import KLCov
    from ecrl.integrations.trl import EntropyControlledGRPOTrainer

    trainer = EntropyControlledGRPOTrainer(model, reward_funcs=…, args=GRPOConfig(…), strategies=[KLCov()])

TRL draws, scores and estimates the advantages; the loss is ours. The plan is made over all tokens of an
optimizer step: those of all processes and of all micro-batches of an accumulation window. Each micro-batch of
a window but the first costs a forward pass more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor
from trl import GRPOTrainer

from ecrl.algorithm.loss_plan import LossPlan, make_loss_plan, planned_loss
from ecrl.algorithm.objective import Bounds, Objective
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.errors import UsageError, usage_errors
from ecrl.hashing import hash_u64
from ecrl.integrations.masked import check_fit, concatenated, detached, metrics_of, moved, token_batch

#: Settings of TRL's that change its own loss, and the value with which they change nothing.
_NEUTRAL = {
    "loss_type": "dapo", "beta": 0.0, "delta": None, "top_entropy_quantile": 1.0, "entropy_coef": 0.0,
    "use_adaptive_entropy": False, "off_policy_mask_threshold": None, "importance_sampling_level": "token",
}  # fmt: skip
_CPU = torch.device("cpu")


class EntropyControlledGRPOTrainer(GRPOTrainer):  # type: ignore[misc]
    """TRL's ``GRPOTrainer`` with strategies. Without any it computes TRL's loss of ``loss_type="dapo"``.

    Args:
        *args: of ``GRPOTrainer``.
        strategies: applied in this order.
        objective: surrogate and aggregation; bounds are ``args.epsilon`` and ``args.epsilon_high``, estimator
            and filters are TRL's. None takes the clipped surrogate and the mean over tokens.
        **kwargs: of ``GRPOTrainer``.

    Raises:
        UsageError: a strategy needs more than TRL hands over, or a setting of TRL's would have no effect.
    """

    def __init__(
        self,
        *args: Any,
        strategies: Sequence[Strategy] = (),
        objective: Objective | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.strategies = check_fit(strategies, "TRL", entropy=True)
        with usage_errors():
            bounds = Bounds(self.epsilon_low, self.epsilon_high)
        self.objective = replace(objective or Objective(), bounds=bounds)
        self._plans: list[LossPlan] = []  # of the micro-batches of the current window
        self._check_arguments()

    def _check_arguments(self) -> None:
        for name, neutral in _NEUTRAL.items():
            value = getattr(self.args, name, neutral)
            if value != neutral:
                raise UsageError(
                    f"{name}={value!r} changes TRL's own loss, which this trainer replaces; leave it at "
                    f"{neutral!r}, and choose a strategy or an objective instead."
                )
        steps, window = self.args.steps_per_generation, self.args.gradient_accumulation_steps
        if steps % window:
            raise UsageError(
                f"steps_per_generation={steps} is no multiple of gradient_accumulation_steps={window}, so an "
                "optimizer step would take tokens of two generations; make it one."
            )

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Tensor:
        tokens = self._tokens(model, inputs)
        mode = "train" if self.model.training else "eval"
        number = self._step % self.current_gradient_accumulation_steps if mode == "train" else 0
        if not number:
            self._plans = self._make_plans(model, detached(tokens), mode)
        plan = self._plans[number]
        if "importance_sampling_ratio" in inputs:
            mask = self._mask(inputs)
            correction = inputs["importance_sampling_ratio"].expand(mask.shape)[mask != 0]
            plan = replace(plan, weights=plan.weights * correction)
        current = replace(plan.tokens, logprobs=tokens.logprobs, entropy=tokens.entropy)
        for name, value in {
            **metrics_of(plan, self.strategies),
            "entropy": float(tokens.entropy.detach().mean()),
        }.items():
            self._metrics[mode][name].append(value)
        # Processes' gradients are averaged, but the plan's scale is of the tokens of all.
        share = self.accelerator.num_processes if mode == "train" else 1
        return planned_loss(current, plan, self.objective, self.strategies) * share

    def _make_plans(self, model: Any, first: TokenBatch, mode: str) -> list[LossPlan]:
        """Plan over all tokens of the optimizer step; return the plans of this process's micro-batches."""
        parts = [first]
        if mode == "train":
            start = self._step % self.args.steps_per_generation
            window = self._buffered_inputs[start : start + self.current_gradient_accumulation_steps]
            with torch.no_grad():
                parts += [detached(self._tokens(model, later)) for later in window[1:]]
        here, rank = concatenated(parts), 0
        gathered = [here]
        if mode == "train" and self.accelerator.num_processes > 1:
            gathered, rank = gather_object([moved(here, _CPU)]), self.accelerator.process_index
        plan = make_loss_plan(concatenated(gathered), self.objective, self.strategies)
        start = sum(len(tokens) for tokens in gathered[:rank])
        plans = []
        for part in parts:
            own = plan.select(torch.arange(start, start + len(part), device=plan.scale.device))
            plans.append(_on_device(own, first.old_logprobs.device))
            start += len(part)
        return plans

    def _mask(self, inputs: dict[str, Any]) -> Tensor:
        mask: Tensor = inputs["completion_mask"]
        return mask * inputs["tool_mask"] if "tool_mask" in inputs else mask

    def _tokens(self, model: Any, inputs: dict[str, Any]) -> TokenBatch:
        """Pass over a micro-batch; log-probs and entropies have a gradient unless it is switched off."""
        completion = inputs["completion_ids"]
        logprobs, entropy, _ = self._get_per_token_logps_and_entropies(
            model,
            torch.cat([inputs["prompt_ids"], completion], dim=1),
            torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1),
            completion.size(1),
            compute_entropy=True,
        )
        return token_batch(
            self._mask(inputs),
            logprobs,
            inputs.get("old_per_token_logps", logprobs.detach()),
            inputs["advantages"],
            entropy=entropy,
            engine_logprobs=inputs.get("sampling_per_token_logps"),
            token_ids=completion,
            bounds=self.objective.bounds,
            key=int(hash_u64(self.args.seed, self.state.global_step)) >> 1,
        )


def _on_device(plan: LossPlan, device: torch.device) -> LossPlan:
    return replace(
        plan,
        tokens=moved(plan.tokens, device),
        scale=plan.scale.to(device),
        weights=plan.weights.to(device),
        coefficients={name: c.to(device) for name, c in plan.coefficients.items()},
    )
