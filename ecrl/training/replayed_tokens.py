"""A replayed update token by token: what each token is, and what the strategies did to it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from ecrl.algorithm.covariance import token_covariance
from ecrl.algorithm.strategy import AdvantageMixin, PenaltyMixin, RatioMixin, Strategy, WeightMixin
from ecrl.algorithm.token_batch import TokenBatch
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
        notes: what a reader should know, a line each.
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
    notes: list[str] = field(default_factory=list)

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
        columns = {name: getattr(self, name) for name in _columns_of_tokens()}
        pq.write_table(pa.table({**columns, "changed_by": pa.array(by, pa.list_(pa.string()))}), path)


def replayed_tokens(replay: Replay) -> ReplayedTokens:
    """Join the minibatches of a replay token by token."""
    columns: dict[str, list[object]] = {name: [] for name in _columns_of_tokens()}
    changed: dict[str, list[int]] = {strategy.name: [] for strategy in replay.strategies}
    for minibatch in replay.minibatches:
        start = len(columns["text"])
        for name, values in _columns(minibatch, replay).items():
            columns[name] += values
        for name, mask in minibatch.plan.changed.items():
            changed[name] += (start + mask.nonzero().flatten()).tolist()
    notes = [note] if (note := _other_bounds(replay)) else []
    return ReplayedTokens(**columns, changed=changed, notes=notes)  # type: ignore[arg-type]


def _columns_of_tokens() -> list[str]:
    return [f.name for f in fields(ReplayedTokens) if f.name not in ("changed", "notes")]


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
        "done": list(_done(minibatch, replay.strategies)),
    }


def _done(minibatch: Minibatch, strategies: Sequence[Strategy]) -> Iterator[str]:
    """Say what was done to each token, and by which strategies that changed it."""
    before, plan = minibatch.tokens, minibatch.plan
    tokens, ones = plan.tokens, torch.ones_like(plan.weights)
    changed = {name: mask.tolist() for name, mask in plan.changed.items()}
    changes = [
        ("advantage", AdvantageMixin, _texts(before.advantages), _texts(tokens.advantages),
         (before.advantages != tokens.advantages).tolist()),
        ("weight", WeightMixin, _texts(ones), _texts(plan.weights), (plan.weights != ones).tolist()),
        ("bounds", RatioMixin, _bounds(before), _bounds(tokens), _moved(minibatch).tolist()),
    ]  # fmt: skip
    penalties = {name: c.tolist() for name, c in plan.coefficients.items()}
    for i in range(len(tokens)):
        done: dict[str, list[str]] = {}
        for what, kind, old, new, differs in changes:
            by = [s.name for s in strategies if isinstance(s, kind) and changed[s.name][i]]
            if by and differs[i]:
                done.setdefault("+".join(by), []).append(f"{what} {old[i]} → {new[i]}")
        for name, coefficients in penalties.items():
            if coefficients[i]:
                done.setdefault(name, []).append(f"penalty {coefficients[i]:.3g}")
        yield "; ".join(f"{by}: {', '.join(words)}" for by, words in done.items())


def _other_bounds(replay: Replay) -> str:
    """Say where strategies moved the bounds of tokens that they do not count as changed; "" if nowhere."""
    movers = [s for s in replay.strategies if isinstance(s, RatioMixin)]
    beside = [s.name for s in movers if isinstance(s, (AdvantageMixin, WeightMixin, PenaltyMixin))]
    if not beside:
        return ""
    other = 0
    for minibatch in replay.minibatches:
        counted = torch.stack([minibatch.plan.changed[s.name] for s in movers]).any(dim=0)
        other += int((_moved(minibatch) & ~counted).sum())
    if not other:
        return ""
    return (
        f"{', '.join(beside)}: counted are the tokens chosen. Not counted are {other} others, of which only "
        "the ratio's bounds were moved."
    )


def _moved(minibatch: Minibatch) -> Tensor:
    """Return whether each token's bounds were moved, ``[N]``."""
    before, after = minibatch.tokens, minibatch.plan.tokens
    return (before.low != after.low) | (before.high != after.high)


def _texts(x: Tensor) -> list[str]:
    return [f"{value:.3g}" for value in x.tolist()]


def _bounds(tokens: TokenBatch) -> list[str]:
    return [f"[{low}, {high}]" for low, high in zip(_texts(tokens.low), _texts(tokens.high), strict=True)]
