"""Packs token sequences into micro-batches. Only scoring uses it; losses never see the packing.

A row holds one or several prompt groups. A prompt group is a prompt with responses to it, so the prompt is
computed only once. An attention mask lets a token see only its own prompt and its own response, and the
position ids of each response continue from the prompt. The last own token of a response, which predicts
nothing that is scored, and what follows it are left out. Rows are padded on the right. The prompt groups are
divided among the processes, and each process makes the same number of forward passes.

Where programs are compiled for each shape, passes are padded to few shapes: rows are as long as a number of
eighths of the longest packed row, or half an eighth, a quarter, and so on; their number is a power of two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from ecrl.algorithm.rollout_batch import SequenceTokens

BLOCK = 128  # tokens of a block of the mask; lengths of bucketed rows are multiples of it
STEPS = 8  # lengths of bucketed rows above an eighth of a full one


@dataclass(frozen=True)
class MicroBatch:
    """Inputs of one forward pass over ``R`` rows of ``L`` tokens, of which ``n`` own tokens are scored.

    Attributes:
        input_ids: ``[R, L]`` long.
        position_ids: ``[R, L]`` long.
        prompt_group: ``[R, L]`` long, index of each token's prompt group within its row; −1 for padding.
        response_index: ``[R, L]`` long, 0 in a prompt, 1 and up in the responses to it.
        source: ``[n]`` long, index into the ``R·L`` hidden states of the state that predicts each own token.
        targets: ``[n]`` long, the own tokens.
        order: ``[n]`` long, ascending: index of each own token among the own tokens of all sequences.
    """

    input_ids: Tensor
    position_ids: Tensor
    prompt_group: Tensor
    response_index: Tensor
    source: Tensor
    targets: Tensor
    order: Tensor

    @property
    def simple(self) -> bool:
        """Whether each row holds one sequence, so that the mask hides only padding."""
        return bool(self.prompt_group.max() <= 0) and not self.branches

    @property
    def branches(self) -> bool:
        """Whether several responses share a prompt."""
        return bool(self.response_index.max() > 1)


@dataclass(frozen=True)
class _PromptGroup:
    """A prompt, the indices of the sequences that share it, and the number of tokens to compute."""

    prompt: list[int]
    members: list[int]
    length: int


@dataclass(frozen=True)
class _Shapes:
    """The shapes that passes are padded to.

    Attributes:
        max_tokens: the most tokens in a pass.
        full: length of a full row.
        bucketed: whether there are few; otherwise a pass has the shape of its content.
    """

    max_tokens: int
    full: int
    bucketed: bool

    def length(self, tokens: int) -> int:
        """Return the length of rows of which the longest has so many tokens."""
        if not self.bucketed:
            return tokens
        step = -(-self.full // STEPS)
        while step > BLOCK and step >= 2 * tokens:
            step = -(-step // 2)
        return min(_rounded_up(tokens, _rounded_up(step, BLOCK)), self.max_tokens)

    def rows(self, count: int, length: int) -> int:
        """Return the number of rows of a pass that holds so many of this length."""
        return min(1 << (count - 1).bit_length(), self.max_tokens // length) if self.bucketed else count


def _rounded_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def pack_micro_batches(
    sequences: Sequence[SequenceTokens],
    max_tokens: int,
    row_tokens: int,
    rank: int = 0,
    size: int = 1,
    bucketed: bool = False,
    shared: bool = True,
) -> list[MicroBatch]:
    """Pack sequences into micro-batches, and return those of one process.

    Args:
        sequences: ``B`` sequences.
        max_tokens: the most tokens in a micro-batch, padding included.
        row_tokens: the longest packed row; 0 puts every sequence in its own row.
        rank: rank of the process.
        size: number of processes.
        bucketed: whether to pad the passes to few shapes.
        shared: whether sequences of one prompt share it, or else each has its own.

    Returns:
        Micro-batches that, over all processes, score each own token once. Every process gets the same
        number, because a forward pass may be a collective; missing ones are filled up with micro-batches
        that score nothing.

    Raises:
        ValueError: a sequence is longer than ``max_tokens``.
    """
    longest = max((len(s) for s in sequences), default=0)
    if longest > max_tokens:
        raise ValueError(
            f"max_tokens={max_tokens} cannot hold a sequence of {longest} tokens; "
            f"set it to {longest} or more, or lower rollout.max_new_tokens."
        )
    limit = min(row_tokens, max_tokens)
    shapes = _Shapes(max_tokens, limit or max_tokens, bucketed)
    shares = _divide(_prompt_groups(sequences, limit if shared else 0), size)
    passes = [[_evened(p) for p in _fill_passes(_fill_rows(share, limit), shapes)] for share in shares]
    starts = np.cumsum([0, *(sum(s.own) for s in sequences)]).tolist()
    micro_batches = [_build(sequences, forward_pass, starts) for forward_pass in passes[rank]]
    micro_batches += [_idle()] * (max(len(p) for p in passes) - len(micro_batches))
    return [_padded(micro_batch, shapes) for micro_batch in micro_batches]


def _divide(groups: Iterable[_PromptGroup], size: int) -> list[list[_PromptGroup]]:
    """Divide the groups among processes, longest first, each to the one with the fewest tokens so far."""
    shares: list[list[_PromptGroup]] = [[] for _ in range(size)]
    loads = [0] * size
    for group in sorted(groups, key=lambda g: -g.length):
        least = loads.index(min(loads))
        shares[least].append(group)
        loads[least] += group.length
    return shares


def _idle() -> MicroBatch:
    """Return a micro-batch of one token that scores nothing."""
    token, empty = torch.zeros(1, 1, dtype=torch.long), torch.zeros(0, dtype=torch.long)
    return MicroBatch(token, token, token, token, empty, empty, empty)


def _prompt_groups(sequences: Sequence[SequenceTokens], limit: int) -> list[_PromptGroup]:
    """Group sequences by prompt, and split groups that do not fit in one row."""
    computed = [_computed(sequence) for sequence in sequences]
    sharing: dict[tuple[int, ...], list[int]] = {}
    for i, sequence in enumerate(sequences):
        sharing.setdefault(tuple(sequence.prompt_ids), []).append(i)
    groups = []
    for prompt, indices in sharing.items():
        members: list[int] = []
        length = len(prompt)
        for i in indices:
            if members and length + computed[i] > limit:
                groups.append(_PromptGroup(list(prompt), members, length))
                members, length = [], len(prompt)
            members = [*members, i]
            length += computed[i]
        groups.append(_PromptGroup(list(prompt), members, length))
    return groups


def _computed(sequence: SequenceTokens) -> int:
    """Number of response tokens to compute: those before the last own one."""
    return max((t for t, own in enumerate(sequence.own) if own), default=0)


def _fill_rows(groups: Iterable[_PromptGroup], limit: int) -> list[list[_PromptGroup]]:
    """Pack groups into rows by first-fit decreasing, and return the rows longest first."""
    rows: list[list[_PromptGroup]] = []
    space: list[int] = []
    for group in sorted(groups, key=lambda g: -g.length):
        fits = next((i for i, free in enumerate(space) if group.length <= free), None)
        if fits is None:
            rows.append([group])
            space.append(limit - group.length)
        else:
            rows[fits].append(group)
            space[fits] -= group.length
    return sorted(rows, key=lambda row: -_row_length(row))


def _fill_passes(rows: Sequence[list[_PromptGroup]], shapes: _Shapes) -> Iterator[list[list[_PromptGroup]]]:
    """Combine consecutive rows into passes while rows × longest row stays within ``max_tokens``."""
    forward_pass: list[list[_PromptGroup]] = []
    width = 0
    for row in rows:
        width = width or shapes.length(_row_length(row))
        if forward_pass and (len(forward_pass) + 1) * width > shapes.max_tokens:
            yield forward_pass
            forward_pass, width = [], shapes.length(_row_length(row))
        forward_pass.append(row)
    if forward_pass:
        yield forward_pass


def _evened(rows: list[list[_PromptGroup]]) -> list[list[_PromptGroup]]:
    """Even out the rows of a pass: all are padded to the longest, and first-fit leaves the last one short."""
    groups = [group for row in rows for group in row]
    return min(_divide(groups, len(rows)), rows, key=lambda filling: max(map(_row_length, filling)))


def _row_length(row: Sequence[_PromptGroup]) -> int:
    return sum(group.length for group in row)


def _padded(micro_batch: MicroBatch, shapes: _Shapes) -> MicroBatch:
    """Pad a micro-batch to one of the shapes."""
    rows, length = micro_batch.input_ids.shape
    wide = shapes.length(length)
    margin = 0, wide - length, 0, shapes.rows(rows, wide) - rows
    if not any(margin):
        return micro_batch
    return replace(
        micro_batch,
        input_ids=pad(micro_batch.input_ids, margin),
        position_ids=pad(micro_batch.position_ids, margin),
        prompt_group=pad(micro_batch.prompt_group, margin, value=-1),
        response_index=pad(micro_batch.response_index, margin),
        source=micro_batch.source // length * wide + micro_batch.source % length,
    )


def _build(
    sequences: Sequence[SequenceTokens], rows: Sequence[Sequence[_PromptGroup]], starts: Sequence[int]
) -> MicroBatch:
    """Build the tensors of one pass.

    Args:
        sequences: all sequences.
        rows: prompt groups of each row.
        starts: index of each sequence's first own token among the own tokens of all sequences.
    """
    shape = len(rows), max(map(_row_length, rows))
    ids, positions = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    group_of = np.full(shape, -1, np.int64)  # -1: padding
    response_of = np.zeros(shape, np.int64)  # 0: the prompt, which all responses to it see
    sources, targets, orders = [], [], []
    for r, row in enumerate(rows):
        column = 0
        for g, group in enumerate(row):
            prompt_end = column + len(group.prompt)
            ids[r, column:prompt_end] = group.prompt
            positions[r, column:prompt_end] = np.arange(len(group.prompt))
            group_of[r, column : column + group.length] = g
            column = prompt_end
            for response_index, i in enumerate(group.members, start=1):
                response = np.asarray(sequences[i].response_ids, np.int64)
                own = np.flatnonzero(np.asarray(sequences[i].own, bool))
                computed = int(own[-1]) if len(own) else 0
                span = slice(column, column + computed)
                ids[r, span] = response[:computed]
                positions[r, span] = len(group.prompt) + np.arange(computed)
                response_of[r, span] = response_index
                # The prompt's last token predicts the first of a response; each later one is predicted by
                # the token before it.
                before = np.where(own == 0, prompt_end - 1, column + own - 1)
                sources.append(r * shape[1] + before)
                targets.append(response[own])
                orders.append(starts[i] + np.arange(len(own)))
                column += computed
    order = np.concatenate(orders)
    ascending = np.argsort(order, kind="stable")
    return MicroBatch(
        input_ids=torch.from_numpy(ids),
        position_ids=torch.from_numpy(positions),
        prompt_group=torch.from_numpy(group_of),
        response_index=torch.from_numpy(response_of),
        source=torch.from_numpy(np.concatenate(sources)[ascending]),
        targets=torch.from_numpy(np.concatenate(targets)[ascending]),
        order=torch.from_numpy(order[ascending]),
    )
