"""Which tokens carry the covariance, as a table in TensorBoard."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ecrl.algorithm.covariance import token_covariance
from ecrl.callbacks.monitors.periodic import PeriodicMonitor
from ecrl.callbacks.monitors.samples import cell
from ecrl.training.observer import PlanObserver

if TYPE_CHECKING:
    from ecrl.algorithm.loss_plan import LossPlan
    from ecrl.training.module import PolicyModule

ROWS = 20
VISIBLE = str.maketrans({" ": "␣", "\n": "⏎", "\t": "⇥"})


class LeadingTokens(PeriodicMonitor, PlanObserver):
    """Shows the tokens of the vocabulary with the largest sum of covariances in a rollout's first minibatch.

    Args:
        every: iterations between tables; None takes ``log.samples_every``.
    """

    def on_plan(self, module: PolicyModule, plan: LossPlan, fresh: bool) -> None:
        """Write the table when it is time."""
        if not fresh or not self.is_due(module, module.iteration + 1):
            return
        tokens = plan.tokens
        cov = token_covariance(tokens.logprobs, tokens.advantages)
        rows = []
        for token, count, mean, entropy in leaders(tokens.token_ids, cov, tokens.entropy):
            text = cell(visible(str(module.tokenizer.decode([token]))))
            rows.append(f"| {text} | {count} | {mean:.4g} | {entropy:.4g} |")
        head = ["| token | count | mean covariance | mean entropy, nats |", "|---|---|---|---|"]
        module.recorder.text("covariance/tokens", "\n".join(head + rows))


def leaders(token_ids: Tensor, cov: Tensor, entropy: Tensor) -> list[tuple[int, int, float, float]]:
    """Return token id, count, mean covariance and mean entropy, by falling sum of covariances.

    Args:
        token_ids: ``[N]``.
        cov: ``[N]``.
        entropy: ``[N]``, nats.
    """
    ids, member, counts = torch.unique(token_ids, return_inverse=True, return_counts=True)
    sums = torch.zeros(2, len(ids), dtype=torch.float64, device=cov.device)
    sums.index_add_(1, member, torch.stack([cov, entropy]).double())
    # Stable: equal sums stay in the order of token ids.
    first = sums[0].argsort(descending=True, stable=True)[:ROWS]
    columns = ids[first], counts[first], *(sums / counts)[:, first]
    return list(zip(*(column.tolist() for column in columns), strict=True))


def visible(text: str) -> str:
    """Show white space."""
    return text.translate(VISIBLE)
