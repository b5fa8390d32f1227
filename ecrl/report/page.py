"""Renders a report: HTML in one file, and Markdown with the figures beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from ecrl.report.drawing import PALETTE, Picture
from ecrl.report.tables import Table


@dataclass(frozen=True)
class Content:
    """All that a page shows.

    Attributes:
        title: of the page.
        subtitle: what was compared, in a line.
        notes: what a reader must know about the data.
        headline: tables above the figures.
        pictures: figures, in order.
        results: tables below the figures.
        details: tables that open on a click.
        commands: lines for a shell that make the runs and the report again.
        definition: the sweep's YAML, or "".
    """

    title: str
    subtitle: str
    notes: list[str]
    headline: list[Table]
    pictures: list[Picture]
    results: list[Table]
    details: list[Table]
    commands: list[str]
    definition: str


_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--muted:#5b6471;--line:#e3e6ea;--paper:#fff;--wash:#f6f7f9}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebef;--muted:#a3adb9;--line:#313842;--paper:#14181d;--wash:#1c2127}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 Inter,"Helvetica Neue",Arial,
"Liberation Sans",sans-serif}
main{max-width:1120px;margin:0 auto;padding:2.2rem 1.1rem 4rem}
h1{font-size:1.75rem;line-height:1.2;letter-spacing:-.015em;margin:0 0 .35rem}
h2{font-size:1.15rem;margin:2.6rem 0 .6rem;letter-spacing:-.005em}
.sub,.note,figcaption{color:var(--muted)}
.sub{margin:0 0 1.2rem}
.note,figcaption{font-size:.85rem;max-width:75ch}
.warn{border-left:3px solid #d55e00;background:var(--wash);padding:.55rem .9rem;margin:.5rem 0;
font-size:.92rem}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,440px),1fr));gap:1.6rem 2rem}
figure{margin:0}
figure img{display:block;width:100%;height:auto}
figcaption{margin-top:.2rem;overflow-wrap:anywhere}
.scroll{overflow-x:auto;margin:.4rem 0}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums;min-width:60%}
th,td{padding:.36rem .8rem .36rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left}
th{color:var(--muted);font-weight:600;cursor:pointer;vertical-align:bottom}
th:hover{color:var(--ink)}
th[aria-sort]::after{content:" ↓"}
th[aria-sort=ascending]::after{content:" ↑"}
.text td,.text th{text-align:left}
.text td{white-space:normal;overflow-wrap:anywhere;vertical-align:top}
.dot{display:inline-block;width:.62em;height:.62em;border-radius:50%;margin-right:.5em}
details{border-bottom:1px solid var(--line);padding:.5rem 0}
summary{cursor:pointer;font-weight:600}
pre{background:var(--wash);border:1px solid var(--line);border-radius:6px;padding:.8rem 1rem;overflow-x:auto;
font:.82rem/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace}
"""

_SORT = """
for(const head of document.querySelectorAll("table.sortable th"))head.addEventListener("click",()=>{
const body=head.closest("table").tBodies[0],column=head.cellIndex;
const down=head.getAttribute("aria-sort")!=="descending";
for(const other of head.parentNode.children)other.removeAttribute("aria-sort");
head.setAttribute("aria-sort",down?"descending":"ascending");
const key=row=>row.cells[column].textContent,number=text=>parseFloat(text.replace("−","-"));
[...body.rows].sort((a,b)=>{const x=number(key(a)),y=number(key(b));
const order=isNaN(x)||isNaN(y)?isNaN(x)-isNaN(y)||key(b).localeCompare(key(a)):y-x;
return down?order:-order}).forEach(row=>body.append(row))});
"""


def html(content: Content) -> str:
    """Return the page as HTML; every text in it is escaped."""
    notes = "".join(f'<p class="warn">{escape(note)}</p>' for note in content.notes)
    pictures = "".join(map(_figure, content.pictures))
    headline, results = (
        "".join(f"<h2>{escape(t.title)}</h2>{_table(t)}" for t in shown)
        for shown in (content.headline, content.results)
    )
    details = "".join(
        f"<details><summary>{escape(t.title)}</summary>{_table(t)}</details>" for t in content.details
    )
    definition = f"<pre>{escape(content.definition)}</pre>" if content.definition else ""
    dots = "".join(f".c{i}{{background:{light}}}" for i, (light, _) in enumerate(PALETTE))
    dark = "".join(f".c{i}{{background:{shade}}}" for i, (_, shade) in enumerate(PALETTE))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<title>{escape(content.title)}</title>
<style>{_STYLE}{dots}@media(prefers-color-scheme:dark){{{dark}}}</style></head>
<body><main>
<h1>{escape(content.title)}</h1><p class="sub">{escape(content.subtitle)}</p>{notes}
{headline}
<h2>Figures</h2><p class="note">Bands: pointwise 95 % t intervals over seeds.</p>
<div class="figures">{pictures}</div>
{results}
<h2>Make it again</h2><pre>{escape(chr(10).join(content.commands))}</pre>{definition}
<h2>Details</h2>{details}
</main><script>{_SORT}</script></body></html>
"""


def markdown(content: Content) -> str:
    """Return the page as Markdown that shows the PNG files beside it."""
    parts = [f"# {_md(content.title)}", _md(content.subtitle), *(f"> {_md(note)}" for note in content.notes)]
    parts += map(_md_section, content.headline)
    parts.append("## Figures\n\nBands: pointwise 95 % t intervals over seeds.")
    parts += [f"![{_md(p.title)}]({p.name}.png)\n\n{_md(p.note)}" for p in content.pictures]
    parts += map(_md_section, content.results)
    parts.append("## Make it again\n\n```bash\n" + "\n".join(content.commands) + "\n```")
    if content.definition:
        parts.append(f"```yaml\n{content.definition.strip()}\n```")
    parts += map(_md_section, content.details)
    return "\n\n".join(parts) + "\n"


def _md_section(table: Table) -> str:
    return "\n\n".join(filter(None, [f"## {_md(table.title)}", _md_table(table), _md(table.note)]))


def _figure(picture: Picture) -> str:
    return (
        f'<figure><img src="{picture.uri}" alt="{escape(picture.title)}">'
        f"<figcaption>{escape(picture.note)}</figcaption></figure>"
    )


def _table(table: Table) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in table.header)
    body = "".join(f"<tr>{''.join(_cells(table, r))}</tr>" for r in range(len(table.rows)))
    kind = "sortable" if table.arms else "sortable text"
    note = f'<p class="note">{escape(table.note)}</p>' if table.note else ""
    return (
        f'<div class="scroll"><table class="{kind}" id="{escape(table.name)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>{note}"
    )


def _cells(table: Table, r: int) -> Sequence[str]:
    cells = []
    for c, text in enumerate(table.rows[r]):
        shown = f"<strong>{escape(text)}</strong>" if (r, c) in table.strong else escape(text)
        arm = table.arms[r] if c == 0 and table.arms else None
        dot = "" if arm is None else f'<span class="dot c{arm % len(PALETTE)}"></span>'
        cells.append(f"<td>{dot}{shown}</td>")
    return cells


def _md_table(table: Table) -> str:
    lines = [table.header, ["---"] * len(table.header)]
    for r, row in enumerate(table.rows):
        lines.append([f"**{_md(t)}**" if (r, c) in table.strong else _md(t) for c, t in enumerate(row)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _md(text: str) -> str:
    """Escape text, so that Markdown shows it as it is."""
    for c in "\\`*_[]<>|$":
        text = text.replace(c, f"\\{c}")
    return text
