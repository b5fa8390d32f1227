"""A replayed update token by token: what each token is, and what the strategies did to it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path

import torch

from ecrl.algorithm.covariance import token_covariance
from ecrl.training.replay import Minibatch, Replay


@dataclass(frozen=True)
class ReplayedTokens:
    """Columns with an entry for each token, and which tokens each strategy changed.

    Attributes:
        minibatch: the optimizer minibatch, from 0.
        row: the response's row in the part.
        position: index within the response's own tokens.
        text: of the token.
        token_id: in the vocabulary.
        covariance: of log-prob and final advantage over the minibatch.
        logprob: as planning saw it, nats.
        entropy: as planning saw it, nats.
        advantage: before the strategies.
        final_advantage: after them.
        low: final lower bound of the ratio.
        high: final upper bound.
        weight: final weight; 0 for no gradient.
        penalty: sum of the coefficients of all penalties.
        done: what the strategies did, in words; empty where nothing.
        changed: numbers of the tokens that each strategy changed, by strategy name.
    """

    minibatch: list[int]
    row: list[int]
    position: list[int]
    text: list[str]
    token_id: list[int]
    covariance: list[float]
    logprob: list[float]
    entropy: list[float]
    advantage: list[float]
    final_advantage: list[float]
    low: list[float]
    high: list[float]
    weight: list[float]
    penalty: list[float]
    done: list[str]
    changed: dict[str, list[int]]

    @cached_property
    def chosen(self) -> list[int]:
        """Numbers of the tokens that strategies changed, but for those strategies that changed all tokens.

        If there are only such, of all tokens.
        """
        some = [index for index in self.changed.values() if len(index) < len(self.text)]
        return sorted({i for index in (some if any(some) else self.changed.values()) for i in index})

    def write(self, path: Path) -> None:
        """Write a Parquet file: the columns, and ``changed_by``, a list of names."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        by: list[list[str]] = [[] for _ in self.text]
        for name, index in self.changed.items():
            for i in index:
                by[i].append(name)
        columns = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "changed"}
        pq.write_table(pa.table({**columns, "changed_by": pa.array(by, pa.list_(pa.string()))}), path)


def replayed_tokens(replay: Replay) -> ReplayedTokens:
    """Join the minibatches of a replay token by token."""
    names = [f.name for f in fields(ReplayedTokens) if f.name != "changed"]
    columns: dict[str, list[object]] = {name: [] for name in names}
    changed: dict[str, list[int]] = {strategy.name: [] for strategy in replay.strategies}
    for minibatch in replay.minibatches:
        start = len(columns["text"])
        for name, values in _columns(minibatch, replay).items():
            columns[name] += values
        for name, mask in minibatch.plan.changed.items():
            changed[name] += (start + mask.nonzero().flatten()).tolist()
    return ReplayedTokens(**columns, changed=changed)  # type: ignore[arg-type]


def _columns(minibatch: Minibatch, replay: Replay) -> dict[str, list[object]]:
    before, plan = minibatch.tokens, minibatch.plan
    tokens = plan.tokens
    rows = minibatch.rows[tokens.sequence_ids].tolist()
    positions = tokens.positions.tolist()
    penalty = sum(plan.coefficients.values(), start=torch.zeros_like(plan.weights))
    return {
        "minibatch": [minibatch.number] * len(tokens),
        "row": rows,
        "position": positions,
        "text": [replay.texts[row][place] for row, place in zip(rows, positions, strict=True)],
        "token_id": tokens.token_ids.tolist(),
        "covariance": token_covariance(tokens.logprobs, tokens.advantages).tolist(),
        "logprob": tokens.logprobs.tolist(),
        "entropy": tokens.entropy.tolist(),
        "advantage": before.advantages.tolist(),
        "final_advantage": tokens.advantages.tolist(),
        "low": tokens.low.tolist(),
        "high": tokens.high.tolist(),
        "weight": plan.weights.tolist(),
        "penalty": penalty.tolist(),
        "done": [", ".join(words) for words in _done(minibatch)],
    }


def _done(minibatch: Minibatch) -> Iterator[list[str]]:
    """Say what was done to each token."""
    before, plan = minibatch.tokens, minibatch.plan
    tokens = plan.tokens
    pairs = {
        "advantage": (before.advantages, tokens.advantages),
        "weight": (torch.ones_like(plan.weights), plan.weights),
    }
    moved = {name: (old.tolist(), new.tolist(), (old != new).tolist()) for name, (old, new) in pairs.items()}
    bounds = [x.tolist() for x in (before.low, before.high, tokens.low, tokens.high)]
    penalties = {name: c.tolist() for name, c in plan.coefficients.items()}
    for i in range(len(tokens)):
        words = [
            f"{name} {old[i]:.3g} → {new[i]:.3g}" for name, (old, new, differs) in moved.items() if differs[i]
        ]
        low, high, new_low, new_high = (x[i] for x in bounds)
        if (low, high) != (new_low, new_high):
            words.append(f"bounds [{low:.3g}, {high:.3g}] → [{new_low:.3g}, {new_high:.3g}]")
        yield words + [f"{name} penalty {c[i]:.3g}" for name, c in penalties.items() if c[i]]
