"""The page of `ecrl replay`, in the report's style: which tokens strategies choose of a run's rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import combinations
from typing import TYPE_CHECKING, Any

from ecrl.report.page import document, table_html
from ecrl.report.samples import Sample, Token
from ecrl.report.samples_html import legend, limits_of, sample_html
from ecrl.report.tables import Table

if TYPE_CHECKING:
    from ecrl.training.replayed_tokens import ReplayedTokens

#: Responses with their tokens; those after the first are left out beyond so many tokens in all.
_RESPONSES, _TOKENS = 8, 20_000
_NUMBERS = {"covariance": "covariance", "logprob": "log-prob", "entropy": "entropy", "advantage": "advantage"}


def replay_page(
    tokens: ReplayedTokens,
    *,
    where: str,
    command: str,
    strategies: Sequence[str],
    notes: Sequence[str],
    part: Sequence[Mapping[str, Any]],
    most: int,
) -> str:
    """Return the page as HTML.

    Args:
        tokens: of the replayed update.
        where: which run and iteration it is of.
        command: that makes the page.
        strategies: each with its settings, a line each.
        notes: what a reader must know about the numbers, a sentence each.
        part: the rollout's rows, with ``prompt`` and ``reward``.
        most: rows of the table of chosen tokens.
    """
    chosen = tokens.chosen
    sections = [_shares(tokens), *([_overlaps(tokens)] if len(tokens.changed) > 1 else [])]
    sections += [_largest(tokens, chosen, most)] if chosen else []
    body = [f'<ul class="text">{"".join(f"<li>{escape(line)}</li>" for line in strategies)}</ul>']
    body += [f"<pre>{escape(command)}</pre>"]
    body += [f'<p class="warn">{escape(note)}</p>' for note in notes]
    body += [f"<h2>{escape(table.title)}</h2>{table_html(table)}" for table in sections]
    body += [_responses(tokens, chosen, part)] if chosen else []
    subtitle = f"{len(tokens.text)} tokens in {len(set(tokens.minibatch))} minibatches."
    return document(f"Replay of {where}", subtitle, "\n".join(body))


def _shares(tokens: ReplayedTokens) -> Table:
    """How many tokens each strategy changed, and what they are like."""
    every = range(len(tokens.text))
    rows = []
    for name, index in {"all tokens": every, **tokens.changed}.items():
        means = [_mean([getattr(tokens, column)[i] for i in index]) for column in _NUMBERS]
        rows.append([name, str(len(index)), f"{len(index) / len(every):.2%}", *means])
    header = ["strategy", "tokens", "share", *(f"mean {what}" for what in _NUMBERS.values())]
    note = " ".join(["Covariance, log-prob and entropy in nats, as planning saw them.", *tokens.notes])
    return Table("shares", "Tokens that each strategy changed", header, rows, note)


def _overlaps(tokens: ReplayedTokens) -> Table:
    rows = []
    for (one, first), (other, second) in combinations(tokens.changed.items(), 2):
        both = len(set(first) & set(second))
        shares = [f"{both / len(index):.1%}" if index else "–" for index in (first, second)]
        rows.append([f"{one}, {other}", str(both), *shares])
    header = ["strategies", "tokens of both", "of the first's", "of the second's"]
    return Table("overlaps", "Tokens that two strategies changed", header, rows)


def _largest(tokens: ReplayedTokens, chosen: Sequence[int], most: int) -> Table:
    """The chosen tokens of the largest covariance."""
    order = sorted(chosen, key=lambda i: -abs(tokens.covariance[i]))[:most]
    rows = [
        [
            repr(tokens.text[i]),
            tokens.done[i],
            *(f"{getattr(tokens, column)[i]:.4g}" for column in _NUMBERS),
            str(tokens.row[i]),
            str(tokens.position[i]),
        ]
        for i in order
    ]
    note = f"{len(order)} of {len(chosen)} chosen tokens, by the size of their covariance."
    header = ["token", "what was done", *_NUMBERS.values(), "row", "position"]
    return Table("tokens", "Chosen tokens", header, rows, note, texts=frozenset({1}))


def _responses(tokens: ReplayedTokens, chosen: Sequence[int], part: Sequence[Mapping[str, Any]]) -> str:
    """The responses with most chosen tokens, these underlined."""
    marked = set(chosen)
    of_row: dict[int, list[int]] = {}
    for i, row in enumerate(tokens.row):
        of_row.setdefault(row, []).append(i)
    counts = {row: len(marked.intersection(index)) for row, index in of_row.items()}
    shown: dict[int, list[Token]] = {}
    for row in sorted(counts, key=lambda row: -counts[row])[:_RESPONSES]:
        if shown and sum(map(len, shown.values())) + len(of_row[row]) > _TOKENS:
            break
        shown[row] = [
            Token(tokens.text[i], tokens.entropy[i], tokens.covariance[i], tokens.done[i], i in marked)
            for i in of_row[row]
        ]
    limits = limits_of([token for row in shown.values() for token in row])
    parts = []
    for row, some in shown.items():
        reward = f"reward {part[row]['reward']:g}, {len(some)} tokens"
        sample = sample_html(Sample(part[row]["prompt"] or "", "", [some], reward), limits)
        title = f"Row {row}: {counts[row]} of {len(some)} tokens chosen, underlined"
        parts.append(f"<details open><summary>{title}</summary>{sample}</details>")
    return f"<section><h2>Responses</h2>{legend(limits, 'covariance')}{''.join(parts)}</section>"


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.4g}" if values else "–"
