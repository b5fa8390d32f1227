"""The look and the script of the page."""

from __future__ import annotations

from collections.abc import Sequence

from ecrl.report.drawing import PALETTE

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--muted:#5b6471;--line:#e3e6ea;--paper:#fff;--wash:#f6f7f9;
--accent:#0072b2}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebef;--muted:#a3adb9;--line:#313842;--paper:#14181d;--wash:#1c2127;
--accent:#5bb0ec}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:16px/1.55 Inter,"Helvetica Neue",Arial,
"Liberation Sans",sans-serif;overflow-wrap:break-word}
main{max-width:1120px;margin:0 auto;padding:2.2rem 1.1rem 4rem}
h1{font-size:1.75rem;line-height:1.2;letter-spacing:-.015em;margin:0 0 .35rem}
h2{font-size:1.15rem;margin:2.6rem 0 .6rem;letter-spacing:-.005em}
h3{font-size:1rem;margin:1.8rem 0 .6rem;color:var(--muted);font-weight:600}
a{color:var(--accent)}
.sub,.note,figcaption{color:var(--muted)}
.sub{margin:0 0 1.2rem}
.note,figcaption{font-size:.85rem;max-width:75ch}
.warn{border-left:3px solid #d55e00;background:var(--wash);padding:.55rem .9rem;margin:.5rem 0;
font-size:.92rem}
.text{max-width:80ch;margin:.3rem 0;padding-left:1.1rem}
.text li{margin:.2rem 0}
.figures{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,440px),1fr));gap:1.6rem 2rem}
figure{margin:0;min-width:0}
figure img{display:block;width:100%;max-width:620px;height:auto}
figcaption{margin-top:.2rem;overflow-wrap:anywhere}
.axis{position:sticky;top:0;z-index:2;background:var(--paper);border:0;border-bottom:1px solid var(--line);
margin:0 0 1rem;padding:.5rem 0;display:flex;flex-wrap:wrap;gap:.3rem 1rem;font-size:.9rem;align-items:center}
.axis label{display:inline-flex;align-items:center;gap:.35rem;cursor:pointer;min-height:2rem}
.axis span{color:var(--muted)}
.scroll{overflow-x:auto;margin:.4rem 0}
.more{display:none;color:var(--muted);font-size:.85rem}
.more.needed{display:block}
table{border-collapse:collapse;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:.36rem .8rem .36rem 0;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap}
th:first-child,td:first-child{text-align:left;position:sticky;left:0;background:var(--paper)}
th{color:var(--muted);font-weight:600;cursor:pointer;vertical-align:bottom}
th:hover{color:var(--ink)}
th[aria-sort]::after{content:" ↓"}
th[aria-sort=ascending]::after{content:" ↑"}
table.words td,table.words th{text-align:left}
table.words td{white-space:normal;overflow-wrap:anywhere;vertical-align:top;min-width:9rem}
table.words td:first-child{white-space:nowrap}
table.words td.long{white-space:normal}
.long{white-space:normal;overflow-wrap:anywhere;min-width:13rem;max-width:26rem}
td.prose,th.prose{text-align:left}
td.prose{white-space:normal;overflow-wrap:break-word;min-width:10rem;max-width:30rem}
.line{width:1.7em;height:.6em;margin-right:.5em;vertical-align:middle;overflow:visible}
.line line{stroke-width:2.4}
.sample{border-left:3px solid var(--line);padding:.1rem 0 .1rem .9rem;margin:.9rem 0;max-width:80ch}
.sample p{margin:.25rem 0;white-space:pre-wrap;overflow-wrap:anywhere}
.sample .prompt{color:var(--muted)}
.sample .prompt,.sample .response{font:.88rem/1.65 ui-monospace,"SF Mono",Menlo,Consolas,
"Liberation Mono",monospace}
.response i{font-style:normal;border-radius:2px;background:rgb(213 94 0/calc(var(--e,0)*.7))}
main:has(#t-covariance:checked) .response i{background:rgb(213 94 0/calc(var(--c,0)*.7))}
main:has(#t-covariance:checked) .response i.n{background:rgb(0 114 178/calc(var(--c,0)*.7))}
.response i.m{text-decoration:underline 2px}
.response i:hover,.response i:focus{outline:2px solid var(--accent)}
.response i:hover::after,.response i:focus::after{content:attr(data-v);position:fixed;left:0;right:0;bottom:0;
z-index:3;padding:.6rem 1.1rem;background:var(--ink);color:var(--paper);white-space:normal}
.still{position:static}
details{border-bottom:1px solid var(--line);padding:.5rem 0}
summary{cursor:pointer;font-weight:600}
pre{background:var(--wash);border:1px solid var(--line);border-radius:6px;padding:.8rem 1rem;overflow-x:auto;
font:.82rem/1.5 ui-monospace,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace}
@media(max-width:480px){th:first-child,td:first-child,table.words td:first-child{
min-width:7.5rem;max-width:42vw;white-space:normal;overflow-wrap:anywhere}}
"""

#: Sorts a table by the column whose head is clicked, and says which tables go on beyond the screen; the
#: page reads well without it.
SCRIPT = """
const wide=()=>{for(const box of document.querySelectorAll(".scroll"))
box.previousElementSibling.classList.toggle("needed",box.scrollWidth>box.clientWidth+1)};
addEventListener("resize",wide);addEventListener("toggle",wide,true);wide();
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


def style(axes: Sequence[str]) -> str:
    """Return the page's style sheet.

    Args:
        axes: names of the x axes; the chosen one's images are shown, without a script.
    """
    light, dark = (
        "".join(f".c{i}{{stroke:{shades[theme]}}}" for i, shades in enumerate(PALETTE)) for theme in (0, 1)
    )
    rules = [_STYLE, light, f"@media(prefers-color-scheme:dark){{{dark}}}"]
    for axis in axes[1:]:
        chosen = f"main:has(#x-{axis}:checked)"
        rules.append(f"img.x-{axis}{{display:none}}{chosen} img.x-{axis}{{display:block}}")
        rules.append(f"{chosen} img.x-{axes[0]}{{display:none}}")
    return "".join(rules)
