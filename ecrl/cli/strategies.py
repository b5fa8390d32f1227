"""``ecrl strategies``: the names that ``strategy=[…]`` and ``objective=…`` take; ``show`` looks at one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.config.methods import CHANGES, Method, Part, find_method, methods
from ecrl.errors import UsageError

COMMAND = Command(
    name="strategies",
    help="""ecrl strategies: list the entropy-control strategies and the objectives, or look at one

  ecrl strategies                 what each changes, what it needs, where it is from
  ecrl strategies show NAME       formula, settings with defaults, and the settings that do nothing
  ecrl train objective=gmpo strategy=[clip_cov,clip_higher] strategy.clip_cov.fraction=0.01
""",
    settings=NoSettings,
    words=True,
    flags=("--config-dir",),
)


def main(arguments: Arguments[NoSettings]) -> int:
    """List strategies and objectives, or look at one."""
    words, config_dir = arguments.words, arguments.config_dir
    console = Console(highlight=False)
    if not words:
        _list(console, config_dir)
    elif len(words) == 2 and words[0] == "show":
        _show(console, find_method(words[1], config_dir))
    else:
        raise UsageError(f"Write `ecrl strategies` or `ecrl strategies show NAME`; got {' '.join(words)!r}.")
    return 0


def _list(console: Console, config_dir: Path | None) -> None:
    strategies = methods("strategy", config_dir)
    for changes in CHANGES.values():
        table = Table("strategy", "what", "needs", "source", title=changes, title_justify="left")
        for method in strategies:
            if method.changes == changes:
                what = escape(method.summary.replace("``", ""))
                table.add_row(method.name, what, method.needs, " ".join(method.papers))
        if table.row_count:
            console.print(table)
    table = Table("objective", "what", "source", title="objectives", title_justify="left")
    for method in methods("objective", config_dir):
        what = re.sub(r"[;,]? *arXiv [\d.]+\d", "", method.summary)
        table.add_row(method.name, escape(what), " ".join(method.papers))
    console.print(table)
    console.print("More of one: ecrl strategies show NAME    Your own: CONTRIBUTING.md")


def _show(console: Console, method: Method) -> None:
    name, summary = method.name, escape(method.summary)
    if method.group == "strategy":
        console.print(f"[bold]{name}[/bold]  strategy={escape(f'[{name}]')}: {summary}")
        _print_part(console, method.parts[0])
        console.print(f"[bold]needs[/bold]: {method.needs or 'nothing'}")
        return
    console.print(f"[bold]{name}[/bold]  objective={name}: {summary}")
    for part in method.parts:
        console.print(f"\n[bold]{part.key}[/bold]: {part.target}")
        _print_part(console, part)
    for key in ("bounds", "filters"):
        console.print(f"\n[bold]{key}[/bold]: {_own(method.node.get(key, {})) or 'the defaults'}")


def _print_part(console: Console, part: Part) -> None:
    """Print formula, settings and what is neutral."""
    what = part.what
    console.print(escape(what.formula), soft_wrap=True)
    if what.defaults:
        table = Table("setting", "default", "here", "meaning")
        for argument, default in what.defaults.items():
            here = "" if argument not in part.settings else str(part.settings[argument])
            meaning = what.meanings.get(argument, "").replace("``", "")
            table.add_row(argument, escape(default or "required"), escape(here), escape(meaning))
        console.print(table)
    if what.neutral:
        console.print(f"[bold]does nothing with[/bold]: {escape(what.neutral)}")


def _own(node: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in node.items() if not key.startswith("_"))
