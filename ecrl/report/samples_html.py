"""Renders samples as HTML: tokens with their entropy or covariance as background, and its value on a tap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from itertools import groupby

import numpy as np

from ecrl.report.samples import Moment, Sample, Token


def samples_html(moments: Sequence[Moment]) -> str:
    """Return the section of the samples, or nothing where there are none."""
    if not moments:
        return ""
    tokens = [t for m in moments for s in m.samples for part in s.tokens for t in part]
    limits = limits_of(tokens)
    parts = []
    for arm, of_arm in groupby(moments, key=lambda moment: moment.arm):
        parts += [f"<h3>{escape(arm)}</h3>"] if len({m.arm for m in moments}) > 1 else []
        for moment in of_arm:
            shown = "".join(sample_html(sample, limits) for sample in moment.samples)
            parts.append(f"<details open><summary>{escape(moment.title)}</summary>{shown}</details>")
    return f"<section><h2>Samples</h2>{legend(limits) if tokens else ''}{''.join(parts)}</section>"


def limits_of(tokens: Sequence[Token]) -> tuple[float, float]:
    """Return the entropy and the covariance at which colours end."""
    return _limit([t.entropy for t in tokens]), _limit([t.covariance for t in tokens])


def legend(limits: tuple[float, float], first: str = "entropy") -> str:
    """Return the choice of what the tokens' backgrounds are, and what they mean."""
    buttons = "".join(
        f'<label><input type="radio" name="t" id="t-{name}"{" checked" * (name == first)}>{name}</label>'
        for name in ("entropy", "covariance")
    )
    note = (
        f"Background of a token: its entropy from 0 to {limits[0]:.2g} nats, or its covariance, orange above "
        f"0 and blue below, up to {limits[1]:.2g}. Point at a token, or tap it, for its numbers."
    )
    return f'<div class="axis still"><span>Tokens by</span>{buttons}</div><p class="note">{note}</p>'


def sample_html(sample: Sample, limits: tuple[float, float]) -> str:
    """Return a response with its tokens coloured up to the limits."""
    parts = ["".join(_token(t, limits) for t in part) for part in sample.tokens]
    response = " […] ".join(parts) if parts else escape(sample.response)
    prompt = f'<p class="prompt">{escape(sample.prompt.strip())}</p>' if sample.prompt else ""
    facts = f'<p class="note">{escape(sample.facts)}</p>'
    return f'<div class="sample">{prompt}<p class="response">{response}</p>{facts}</div>'


def _token(token: Token, limits: tuple[float, float]) -> str:
    entropy, covariance = (
        _share(x, top) for x, top in zip((token.entropy, token.covariance), limits, strict=True)
    )
    values = [
        form(x) for x, form in ((token.entropy, _entropy), (token.covariance, _covariance)) if x is not None
    ]
    values += [token.done] if token.done else []
    classes = ["n"] * ((token.covariance or 0) < 0) + ["m"] * token.marked
    kind = f' class="{" ".join(classes)}"' if classes else ""
    text = escape(token.text.replace("\n", "⏎\n"))
    said = escape(", ".join(values))
    return f'<i{kind} tabindex="0" style="--e:{entropy};--c:{covariance}" data-v="{said}">{text}</i>'


_entropy: Callable[[float], str] = "entropy {:.3f} nats".format
_covariance: Callable[[float], str] = "covariance {:+.4f} nats".format


def _share(value: float | None, top: float) -> str:
    return f"{min(abs(value or 0.0) / top, 1.0):.2f}" if top else "0"


def _limit(values: Sequence[float | None]) -> float:
    """Return where colours end: a hundredth of the tokens is beyond, so that a few do not hide the others."""
    sizes = [abs(x) for x in values if x is not None]
    return float(np.quantile(sizes, 0.99)) if sizes else 0.0
