"""What trained in an iteration, read back from ``rollouts/`` as a batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ecrl.algorithm.rollout_batch import RolloutBatch, SequenceTokens
from ecrl.errors import UsageError
from ecrl.rollout.batching import identities
from ecrl.runs.redrawing import check_tokens
from ecrl.runs.rollouts import TOKEN_COLUMNS, read_table

if TYPE_CHECKING:
    import pyarrow as pa

#: Columns ``[N]`` of the batch beside those of training: what the run's update scored.
LOGPROBS, ENTROPY = "logprobs_at_update", "entropy_at_update"
_READ = ("problem", "copy", "reward", "truncated", "trained", "length", *TOKEN_COLUMNS)


def read_trained(run_dir: Path, iteration: int) -> pa.Table:
    """Read what trained in an iteration, with its place in the part as the column ``row``.

    Raises:
        UsageError: there is no such rollout, it has no tokens, or nothing of it trained.
    """
    import pyarrow as pa

    check_tokens(run_dir, iteration)
    table = read_table(run_dir, iteration, columns=_READ)
    table = table.append_column("row", pa.array(range(len(table)), pa.int64()))
    table = table.filter(table["trained"])
    if not len(table):
        raise UsageError(f"Nothing trained in iteration {iteration}: no group passed the filters.")
    return table


def trained_batch(table: pa.Table, iteration: int, facts: Mapping[str, Any]) -> tuple[RolloutBatch, Tensor]:
    """Return what trained in an iteration as a batch, and the row in the part of each sequence.

    Args:
        table: from ``read_trained``.
        iteration: as in ``metrics.jsonl``, from 1.
        facts: see ``facts_of``.
    """
    lengths, groups = _long(table, "length"), _long(table, "problem")
    turn_lengths = [_flat(x, torch.long) for x in table["turn_lengths"]]
    sizes = torch.cat(turn_lengths)
    turns = torch.cat([torch.arange(len(x)) for x in turn_lengths])
    logprobs = _tokens(table, "old_logprobs")
    token_rewards = torch.zeros_like(logprobs)
    token_rewards[sizes.cumsum(0) - 1] = torch.cat([_flat(x, torch.float32) for x in table["turn_rewards"]])
    ids = zip(*(table[name].to_pylist() for name in ("prompt_ids", "response_ids", "own")), strict=True)
    batch = RolloutBatch(
        sequences=[SequenceTokens(*parts) for parts in ids],
        lengths=lengths,
        group_ids=groups,
        uid=identities(iteration - 1, groups, _long(table, "copy")),
        rewards=torch.tensor(table["reward"].to_pylist(), dtype=torch.float32),
        truncated=torch.tensor(table["truncated"].to_pylist(), dtype=torch.bool),
        turns=torch.repeat_interleave(turns, sizes),
        token_rewards=token_rewards,
        old_logprobs=logprobs,
        engine_logprobs=_tokens(table, "engine_logprobs"),
        old_entropy=_tokens(table, "old_entropy"),
        advantages=_tokens(table, "advantages"),
        columns=_columns(table)
        | {
            LOGPROBS: _tokens(table, "logprobs"),
            ENTROPY: _tokens(table, "token_entropy"),
        },
        temperature=facts["temperature"],
        own_logprobs=facts["own_logprobs"],
    )
    return batch, _long(table, "row")


def plain(batch: RolloutBatch) -> RolloutBatch:
    """Return a batch with the columns that training has."""
    hidden = (LOGPROBS, ENTROPY)
    return replace(batch, columns={n: column for n, column in batch.columns.items() if n not in hidden})


def _long(table: pa.Table, name: str) -> Tensor:
    return torch.tensor(table[name].to_pylist(), dtype=torch.long)


def _flat(scalar: Any, dtype: torch.dtype) -> Tensor:
    return torch.tensor(scalar.values.to_numpy(zero_copy_only=False), dtype=dtype)


def _tokens(table: pa.Table, name: str) -> Tensor:
    """Join a list column to ``[N]``; NaN for the tokens of rows that have none."""
    parts = [
        _flat(x, torch.float32) if x.is_valid else torch.full((int(n.as_py()),), float("nan"))
        for x, n in zip(table[name], table["length"], strict=True)
    ]
    return torch.cat(parts)


def _columns(table: pa.Table) -> dict[str, Tensor]:
    rows = table["columns"].to_pylist()
    return {
        column["name"]: torch.tensor([x for row in rows for x in row[number]["values"]], dtype=torch.float32)
        for number, column in enumerate(rows[0] or ())
    }
