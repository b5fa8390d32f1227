"""How token ids are laid out for one forward pass. Private to scoring: losses never see it.

A row holds one or several *units*; a unit is a prompt followed by the tails (responses) that share
it, so a group's prompt is computed once. A mask lets a token see its own prompt and its own tail only,
and position ids restart after the prompt. Long sequences get a row each, right-padded. The units are
shared out over the processes, which then make equally many passes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ecrl.batch import RolloutBatch
from ecrl.errors import UsageError


@dataclass(frozen=True)
class Layout:
    """Inputs of one forward pass over ``R`` rows of ``L`` tokens, with ``n`` own tokens to score.

    Attributes:
        input_ids: ``[R, L]`` long.
        position_ids: ``[R, L]`` long.
        unit: ``[R, L]`` long, the unit that each token belongs to within its row; −1 for padding.
        branch: ``[R, L]`` long, 0 in a unit's prompt, from 1 in its tails.
        source: ``[n]`` long, index into the ``R·L`` hidden states that predicts each own token.
        targets: ``[n]`` long, the own tokens.
        order: ``[n]`` long, ascending: where each stands among the batch's own tokens.
    """

    input_ids: Tensor
    position_ids: Tensor
    unit: Tensor
    branch: Tensor
    source: Tensor
    targets: Tensor
    order: Tensor

    @property
    def simple(self) -> bool:
        """Whether each row holds one sequence, so that padding is all that a mask must hide."""
        return bool(self.unit.max() <= 0 and self.branch.max() <= 1)


@dataclass(frozen=True)
class _Unit:
    """A prompt and the sequences (indices into the batch) that share it."""

    prompt: list[int]
    members: list[int]
    length: int


def make_layouts(
    batch: RolloutBatch, max_tokens: int, row_tokens: int, rank: int = 0, size: int = 1
) -> list[Layout]:
    """Split a batch into forward passes, and take those of one process.

    Args:
        batch: ``B`` sequences.
        max_tokens: the most tokens in a pass, padding included.
        row_tokens: the longest packed row; 0 puts every sequence in a row of its own.
        rank: of the process.
        size: number of processes.

    Returns:
        Layouts that, over all processes, score each own token once. Every process gets equally many,
        because a pass may be a collective; what it lacks is made up by passes that score nothing.

    Raises:
        UsageError: one sequence alone is longer than ``max_tokens``.
    """
    longest = max((len(s) for s in batch.sequences), default=0)
    if longest > max_tokens:
        raise UsageError(
            f"update.max_tokens={max_tokens} cannot hold a sequence of {longest} tokens; "
            f"set update.max_tokens to {longest} or more, or lower rollout.max_new_tokens."
        )
    limit = min(row_tokens, max_tokens)
    shares = _share(_units(batch, limit), size)
    passes = [list(_fill_passes(_fill_rows(share, limit), max_tokens)) for share in shares]
    starts = (batch.lengths.cumsum(0) - batch.lengths).tolist()
    layouts = [_build(batch, passage, starts) for passage in passes[rank]]
    return layouts + [_idle()] * (max(len(p) for p in passes) - len(layouts))


def _share(units: Iterable[_Unit], size: int) -> list[list[_Unit]]:
    """Deal the units out, longest first, each to the process with the least so far."""
    shares: list[list[_Unit]] = [[] for _ in range(size)]
    loads = [0] * size
    for unit in sorted(units, key=lambda u: -u.length):
        least = loads.index(min(loads))
        shares[least].append(unit)
        loads[least] += unit.length
    return shares


def _idle() -> Layout:
    """A pass over one token that scores none."""
    one, none = torch.zeros(1, 1, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    return Layout(one, one, one, one, none, none, none)


def _units(batch: RolloutBatch, limit: int) -> list[_Unit]:
    """Group sequences by shared prompt, splitting groups that do not fit in one row."""
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, sequence in enumerate(batch.sequences):
        groups.setdefault(tuple(sequence.prompt_ids), []).append(i)
    units = []
    for prompt, members in groups.items():
        open_members: list[int] = []
        length = len(prompt)
        for i in members:
            tail = len(batch.sequences[i].tail_ids)
            if open_members and length + tail > limit:
                units.append(_Unit(list(prompt), open_members, length))
                open_members, length = [], len(prompt)
            open_members = [*open_members, i]
            length += tail
        units.append(_Unit(list(prompt), open_members, length))
    return units


def _fill_rows(units: Iterable[_Unit], limit: int) -> list[list[_Unit]]:
    """First-fit decreasing: few rows of nearly equal length, longest first."""
    rows: list[list[_Unit]] = []
    space: list[int] = []
    for unit in sorted(units, key=lambda u: -u.length):
        fits = next((i for i, free in enumerate(space) if unit.length <= free), None)
        if fits is None:
            rows.append([unit])
            space.append(limit - unit.length)
        else:
            rows[fits].append(unit)
            space[fits] -= unit.length
    return sorted(rows, key=lambda row: -sum(u.length for u in row))


def _fill_passes(rows: Sequence[list[_Unit]], max_tokens: int) -> Iterator[list[list[_Unit]]]:
    """Take rows, longest first, while rows × longest row stays within the budget."""
    passage: list[list[_Unit]] = []
    width = 0
    for row in rows:
        width = width or sum(u.length for u in row)
        if passage and (len(passage) + 1) * width > max_tokens:
            yield passage
            passage, width = [], sum(u.length for u in row)
        passage.append(row)
    if passage:
        yield passage


def _build(batch: RolloutBatch, rows: Sequence[Sequence[_Unit]], starts: Sequence[int]) -> Layout:
    width = max(sum(u.length for u in row) for row in rows)
    ids = np.zeros((len(rows), width), np.int64)
    positions = np.zeros((len(rows), width), np.int64)
    unit_of = np.full((len(rows), width), -1, np.int64)  # -1: padding
    branch_of = np.zeros((len(rows), width), np.int64)  # 0: the prompt, which all branches see
    sources, targets, orders = [], [], []
    for r, row in enumerate(rows):
        column = 0
        for u, unit in enumerate(row):
            prompt_end = column + len(unit.prompt)
            ids[r, column:prompt_end] = unit.prompt
            positions[r, column:prompt_end] = np.arange(len(unit.prompt))
            unit_of[r, column : column + unit.length] = u
            column = prompt_end
            for branch, i in enumerate(unit.members, start=1):
                sequence = batch.sequences[i]
                tail = np.asarray(sequence.tail_ids, np.int64)
                own = np.flatnonzero(np.asarray(sequence.own, bool))
                span = slice(column, column + len(tail))
                ids[r, span] = tail
                positions[r, span] = len(unit.prompt) + np.arange(len(tail))
                branch_of[r, span] = branch
                # The first token of a tail is predicted by the prompt's last, the others by the one before.
                before = np.where(own == 0, prompt_end - 1, column + own - 1)
                sources.append(r * width + before)
                targets.append(tail[own])
                orders.append(starts[i] + np.arange(len(own)))
                column += len(tail)
    order = np.concatenate(orders)
    ascending = np.argsort(order, kind="stable")
    return Layout(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        unit=torch.from_numpy(unit_of),
        branch=torch.from_numpy(branch_of),
        source=torch.from_numpy(np.concatenate(sources)[ascending]),
        targets=torch.from_numpy(np.concatenate(targets)[ascending]),
        order=torch.from_numpy(order[ascending]),
    )
