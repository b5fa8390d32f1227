"""Renders a report as Markdown that shows the SVG files beside it."""

from __future__ import annotations

from ecrl.report.page import Content
from ecrl.report.tables import Table


def markdown(content: Content, figures: str) -> str:
    """Return the page as Markdown.

    Args:
        content: of the page.
        figures: folder of the figures, as seen from the Markdown file.
    """
    parts = [f"# {_md(content.title)}", _md(content.subtitle), *(f"> {_md(note)}" for note in content.notes)]
    for heading, sentences in content.summary.items():
        parts += [f"## {_md(heading)}", "\n".join(f"- {_md(sentence)}" for sentence in sentences)]
    parts += map(_section, content.headline)
    parts.append("\n\n".join(filter(None, ["## Figures", _md(content.bands)])))
    section = ""
    for p in content.pictures:
        parts += [f"### {_md(p.section)}"] if p.section != section else []
        parts += [f"![{_md(p.title)}]({figures}/{p.name}.svg)", _md(p.note)]
        section = p.section
    parts += ["## Samples"] if content.samples else []
    for moment in content.samples:
        parts += [f"### {_md(moment.arm)}. {_md(moment.title)}"]
        for sample in moment.samples:
            parts += [_block(sample.prompt.strip())] if sample.prompt else []
            parts += [_block(sample.response), _md(sample.facts)]
    parts += map(_section, content.results)
    parts.append("## Make it again\n\n```bash\n" + "\n".join(content.commands) + "\n```")
    if content.definition:
        parts.append(f"```yaml\n{content.definition.strip()}\n```")
    parts += map(_section, content.details)
    return "\n\n".join(parts) + "\n"


def _section(table: Table) -> str:
    return "\n\n".join(filter(None, [f"## {_md(table.title)}", _table(table), _md(table.note)]))


def _table(table: Table) -> str:
    lines = [table.header, ["---"] * len(table.header)]
    for r, row in enumerate(table.rows):
        lines.append([f"**{_md(t)}**" if (r, c) in table.strong else _md(t) for c, t in enumerate(row)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _block(text: str) -> str:
    """Show text as it is; the mark between blocks keeps two of them apart."""
    return "\n".join(f"> {_md(line)}  " for line in text.splitlines()) or "> "


def _md(text: str) -> str:
    """Escape text, so that Markdown shows it as it is."""
    for c in "\\`*_[]<>|$":
        text = text.replace(c, f"\\{c}")
    return text
