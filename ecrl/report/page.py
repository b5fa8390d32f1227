"""Renders a report as HTML in one file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from ecrl.config.methods import Method
from ecrl.report.clocks import CLOCKS
from ecrl.report.drawing import PALETTE, Picture, dashes, uri
from ecrl.report.samples import Moment
from ecrl.report.samples_html import samples_html
from ecrl.report.style import SCRIPT, style
from ecrl.report.tables import Table

_LINE = 32  # letters of a name in a line of a table


@dataclass(frozen=True)
class Content:
    """All that a page shows.

    Attributes:
        title: of the page.
        subtitle: what was compared, in a line.
        notes: what a reader must know about the data.
        summary: sentences by heading.
        headline: tables above the figures.
        pictures: figures, in order.
        bands: what the bands of the figures are, or "".
        samples: responses to look at, below the figures.
        results: tables below them.
        methods: strategies and objectives that rows of the atlas lead to.
        details: tables that open on a click.
        commands: lines for a shell that make the runs and the report again.
        definition: the sweep's YAML, or "".
    """

    title: str
    subtitle: str
    notes: list[str]
    summary: Mapping[str, list[str]]
    headline: list[Table]
    pictures: list[Picture]
    bands: str
    samples: list[Moment]
    results: list[Table]
    methods: list[Method]
    details: list[Table]
    commands: list[str]
    definition: str


def html(content: Content) -> str:
    """Return the page as HTML; every text in it is escaped."""
    notes = "".join(f'<p class="warn">{escape(note)}</p>' for note in content.notes)
    summary = "".join(
        f'<h2>{escape(heading)}</h2><ul class="text">'
        f"{''.join(f'<li>{escape(sentence)}</li>' for sentence in sentences)}</ul>"
        for heading, sentences in content.summary.items()
    )
    headline, results = (
        "".join(f"<h2>{escape(t.title)}</h2>{table_html(t)}" for t in shown)
        for shown in (content.headline, content.results)
    )
    details = "".join(
        f"<details><summary>{escape(t.title)}</summary>{table_html(t)}</details>" for t in content.details
    )
    definition = f"<pre>{escape(content.definition)}</pre>" if content.definition else ""
    body = f"""{notes}
{summary}
{headline}
{_figures(content)}
{samples_html(content.samples)}
{results}
{"<h2>The methods</h2>" if content.methods else ""}{"".join(map(_method, content.methods))}
<h2>Make it again</h2><pre>{escape(chr(10).join(content.commands))}</pre>{definition}
<h2>Details</h2>{details}"""
    return document(content.title, content.subtitle, body)


def document(title: str, subtitle: str, body: str) -> str:
    """Return a whole page in the report's style, which needs no other file.

    Args:
        title: of the page, as text.
        subtitle: below the title, as text.
        body: what follows, as HTML.
    """
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{escape(title)}</title>
<style>{style(list(CLOCKS))}</style></head>
<body><main>
<h1>{escape(title)}</h1><p class="sub">{escape(subtitle)}</p>{body}
</main><script>{SCRIPT}</script></body></html>
"""


def _figures(content: Content) -> str:
    """Return the figures, section by section, below the choice of their x axis."""
    axes = [axis for axis in CLOCKS if any(axis in p.svgs for p in content.pictures)]
    buttons = "".join(
        f'<label><input type="radio" name="x" id="x-{axis}"{" checked" * (not i)}>{axis}</label>'
        for i, axis in enumerate(axes)
    )
    choice = f'<div class="axis"><span>Curves over</span>{buttons}</div>' if len(axes) > 1 else ""
    parts = []
    for section in dict.fromkeys(p.section for p in content.pictures):
        shown = "".join(_figure(p) for p in content.pictures if p.section == section)
        parts.append(f'<h3>{escape(section)}</h3><div class="figures">{shown}</div>')
    bands = f'<p class="note">{escape(content.bands)}</p>' if content.bands else ""
    return f"<section><h2>Figures</h2>{bands}{choice}{''.join(parts)}</section>"


def _figure(picture: Picture) -> str:
    title = escape(picture.title)
    images = "".join(
        f'<img class="x-{axis}" src="{uri(svg)}" alt="{title}">'
        if len(picture.svgs) > 1
        else f'<img src="{uri(svg)}" alt="{title}">'
        for axis, svg in picture.svgs.items()
    )
    return f"<figure>{images}<figcaption>{escape(picture.note)}</figcaption></figure>"


def _method(method: Method) -> str:
    """Return what docs/strategies.md says of a method, in short."""
    papers = "".join(
        f' <a href="https://arxiv.org/abs/{number}">arXiv {number}</a>' for number in method.papers
    )
    formulas = "\n\n".join(part.what.formula for part in method.parts if part.what.formula)
    return (
        f'<h3 id="method-{escape(method.name)}">{escape(method.name)}</h3>'
        f"<p>{escape(method.summary)}{papers}</p><pre>{escape(formulas)}</pre>"
    )


def table_html(table: Table) -> str:
    """Return a table that sorts by a click on a column's head, and its note."""
    head = "".join(
        f"<th{_kind(cell, c in table.texts)}>{escape(cell)}</th>" for c, cell in enumerate(table.header)
    )
    body = "".join(f"<tr>{''.join(_cells(table, r))}</tr>" for r in range(len(table.rows)))
    kind = "sortable words" if table.words else "sortable"
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        '<p class="more">This table goes on to the right: scroll it.</p>'
        f'<div class="scroll"><table class="{kind}" id="{escape(table.name)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def _cells(table: Table, r: int) -> Sequence[str]:
    cells = []
    for c, text in enumerate(table.rows[r]):
        shown = escape(text) if c else _breakable(escape(text))
        shown = f"<strong>{shown}</strong>" if (r, c) in table.strong else shown
        if (r, c) in table.links:
            shown = f'<a href="{escape(table.links[r, c])}">{shown}</a>'
        arm = table.arms[r] if c == 0 and table.arms else None
        kind = _kind(text if c == 0 else "", c in table.texts)
        cells.append(f"<td{kind}>{'' if arm is None else _line(arm)}{shown}</td>")
    return cells


def _kind(text: str, prose: bool) -> str:
    """Return the class of a cell: one of a column of text, or one whose text takes several lines."""
    return ' class="prose"' if prose else ' class="long"' if len(text) > _LINE else ""


def _breakable(name: str) -> str:
    """Let a name such as a key break behind its dots and underscores, rather than inside a word."""
    return name.replace(".", ".<wbr>").replace("_", "_<wbr>")


def _line(arm: int) -> str:
    """Return a sample of an arm's line."""
    pattern = " ".join(f"{2.4 * length:g}" for length in dashes(arm))
    return (
        f'<svg class="line" viewBox="0 0 27 10"><line class="c{arm % len(PALETTE)}" x2="27" y1="5" y2="5" '
        f'stroke-dasharray="{pattern or "none"}"/></svg>'
    )
