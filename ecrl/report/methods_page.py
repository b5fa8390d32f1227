"""The page of all strategies and objectives, for docs/strategies.md.

python -m ecrl.report.methods_page > docs/strategies.md
"""

from __future__ import annotations

import re
from pathlib import Path

from ecrl.config.methods import CHANGES, Method, Part, methods

_HEAD = """\
# Strategies and objectives

Written by `python -m ecrl.report.methods_page > docs/strategies.md` from the sources and the presets.
`ecrl strategies show NAME` prints the same of one.

    L = Σ u·w·S(r, A; lo, hi) + Σ u·c·p        r = π/π_old, u the aggregation (1/N for the token mean)

An objective says how advantages `A` are estimated, the surrogate `S` with its bounds, and the aggregation
`u`. A strategy changes `A`, the bounds, the weights `w`, or adds a term `c·p`; `strategy=[a,b]` applies
several in this order.

What one may need: *a pass*: the log-probs and entropies of the current weights before each update, one pass
without gradient for each micro-batch but the first; *the initial policy*: a frozen copy; *entropies of the
rollout*: from the engine or from scoring; *several updates a rollout*: it does nothing in the first, where
π = π_old.

A figure shows entropy and avg@16 of one run of the method (default task, seed 0, 100 iterations, defaults)
beside one of plain GRPO: an illustration. `benchmarks/method_figures.py` draws them.

Left out: [SIREN](https://arxiv.org/abs/2509.25133) and [AEnt](https://arxiv.org/abs/2509.03493) reward
the entropy of the likely part of the vocabulary, which takes a selection over each token's whole
vocabulary and a second gradient through the output layer's tiles;
[SimKO](https://arxiv.org/abs/2510.14807) takes gradients of the likeliest tokens beside the drawn one,
which a batch of drawn tokens does not have.

`clip_cov_small` and `kl_cov_small` are `clip_cov` and `kl_cov` with settings that fit minibatches of a
thousand tokens: the paper's 2e-4 and 2e-3 are meant for hundreds of thousands. Choices are made once
over the whole optimizer minibatch, whatever the micro-batches: a share means a share.
"""


def as_markdown(figures: Path) -> str:
    """Return the page.

    Args:
        figures: the folder docs/strategies, with ``NAME.svg`` of those that have a figure.
    """
    drawn = {path.stem for path in figures.glob("*.svg")}
    strategies, objectives = methods("strategy"), methods("objective")
    lines = [_HEAD]
    for changes in CHANGES.values():
        found = [method for method in strategies if method.changes == changes]
        if found:
            lines += [f"## Strategies: {changes}\n", *_overview(found)]
            lines += [_section(method, method.name in drawn) for method in found]
    lines += ["## Objectives\n", *_overview(objectives)]
    lines += [_section(method, method.name in drawn) for method in objectives]
    return "\n".join(lines)


def _overview(found: list[Method]) -> list[str]:
    rows = [
        f"| [`{m.name}`](#{m.name}) | {_cell(_plain(m.summary))} | {m.needs or '–'} | {_links(m)} |"
        for m in found
    ]
    return ["| name | what | needs | source |", "|---|---|---|---|", *rows, ""]


def _section(method: Method, drawn: bool) -> str:
    lines = [f"### {method.name}\n", f"`{method.group}={_choice(method)}`: {_plain(method.summary)}\n"]
    for part in method.parts:
        lines += [f"**{part.key}** `{part.target}`\n"] if part.key else []
        lines += [f"{part.what.formula}\n", *_settings(part)]
        if part.what.neutral:
            lines.append(f"Does nothing with `{part.what.neutral}`.\n")
    for key in ("bounds", "filters"):
        own = {k: v for k, v in (method.node.get(key) or {}).items() if not k.startswith("_")}
        if own:
            lines.append(f"**{key}**: {', '.join(f'`{k}={v}`' for k, v in own.items())}\n")
    if method.group == "strategy":
        lines.append(f"Needs: {method.needs or 'nothing'}. Source: {_links(method)}.\n")
    if drawn:
        lines.append(f"![{method.name} beside plain GRPO](strategies/{method.name}.svg)\n")
    return "\n".join(lines)


def _settings(part: Part) -> list[str]:
    if not part.what.defaults:
        return []
    rows = []
    for argument, default in part.what.defaults.items():
        here = f"`{part.settings[argument]}`" if argument in part.settings else ""
        shown = f"`{default}`" if default else "required"
        rows.append(f"| `{argument}` | {shown} | {here} | {_cell(part.what.meanings.get(argument, ''))} |")
    return ["| setting | default | here | meaning |", "|---|---|---|---|", *rows, ""]


def _choice(method: Method) -> str:
    return f"[{method.name}]" if method.group == "strategy" else method.name


def _links(method: Method) -> str:
    return ", ".join(f"[{n}](https://arxiv.org/abs/{n})" for n in method.papers) or "ours"


def _plain(text: str) -> str:
    return re.sub(r"[;,]? *arXiv [\d.]+\d", "", text).replace("``", "`")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("``", "`")


if __name__ == "__main__":
    print(as_markdown(Path("docs/strategies")), end="")
