"""Where entropy is lost: the token covariance of log-probability and advantage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecrl.algorithm.covariance import token_covariance
from ecrl.callbacks.monitors.periodic import PeriodicMonitor
from ecrl.training.observer import PlanObserver

if TYPE_CHECKING:
    from ecrl.algorithm.loss_plan import LossPlan
    from ecrl.training.module import PolicyModule

# Share above each quantile: 1 − 0.9 rounds to just below 0.1, which would be one rank too high.
QUANTILES = {"q50": 0.5, "q90": 0.1, "q99": 0.01}
TOP_SHARES = {
    "top_0.02%": 0.0002,
    "top_0.2%": 0.002,
    "top_2%": 0.02,
    "top_20%": 0.2,
    "top_50%": 0.5,
}


class CovarianceMonitor(PeriodicMonitor, PlanObserver):
    """Records ``cov/…`` over the first optimizer minibatch of each rollout, where the policy is its own.

    https://arxiv.org/abs/2505.22617: a tiny share of tokens carries most of the covariance.

    Args:
        every: iterations between histograms; None takes ``log.samples_every``.
    """

    def on_plan(self, module: PolicyModule, plan: LossPlan, fresh: bool) -> None:
        """Record mean, quantiles and the means of the top shares."""
        if not fresh:
            return
        cov = token_covariance(plan.tokens.logprobs, plan.tokens.advantages)
        ordered = cov.sort(descending=True).values
        module.recorder.record("cov/mean", float(cov.mean()))
        module.recorder.record("cov/max", float(ordered[0]))
        for name, above in QUANTILES.items():
            # By rank: torch.quantile refuses more than 16 million values.
            module.recorder.record(f"cov/{name}", float(ordered[int(above * len(ordered))]))
        for name, share in TOP_SHARES.items():
            count = max(int(share * len(ordered)), 1)
            module.recorder.record(f"cov/{name}", float(ordered[:count].mean()))
        if self.is_due(module, module.iteration + 1):
            module.recorder.histogram("cov/tokens", cov)
