"""``ecrl strategies``: the names that ``strategy=[…]`` and ``objective=…`` take; ``show`` looks at one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.config.groups import options
from ecrl.config.source import Definition, definition
from ecrl.config.targets import require_target
from ecrl.errors import UsageError, unknown_name

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

#: What a strategy changes, by the mixin that says so; one with several stands under the first.
_CHANGES = {
    "PenaltyMixin": "a term added to the loss",
    "WeightMixin": "weights of tokens",
    "RatioMixin": "bounds of the ratio",
    "AdvantageMixin": "advantages",
    "": "other settings",
}
#: What it needs, by the flag of its class that says so.
_NEEDS = {
    "needs_current": "a pass",
    "needs_reference": "the initial policy",
    "needs_entropy": "entropies of the rollout",
    "needs_updates": "several updates a rollout",
}
_ARXIV = re.compile(r"(?:arxiv\.org/abs/|arXiv )(\d{4}\.\d{5})")
_PARTS = ("estimator", "surrogate", "aggregation", "shaping", "auxiliary")


def main(arguments: Arguments[NoSettings]) -> int:
    """List strategies and objectives, or look at one."""
    words, config_dir = arguments.words, arguments.config_dir
    console = Console(highlight=False)
    if not words:
        _list(console, config_dir)
    elif len(words) == 2 and words[0] == "show":
        _show(console, words[1], config_dir)
    else:
        raise UsageError(f"Write `ecrl strategies` or `ecrl strategies show NAME`; got {' '.join(words)!r}.")
    return 0


def _list(console: Console, config_dir: Path | None) -> None:
    found = {name: _strategy(name, config_dir)[0] for name in options("strategy", config_dir)}
    said = {name: _comment(_path("strategy", name, config_dir)) or found[name].summary for name in found}
    for mixin, changes in _CHANGES.items():
        table = Table("strategy", "what", "needs", "source", title=changes, title_justify="left")
        for name, what in found.items():
            if mixin == next((m for m in _CHANGES if m in what.bases), ""):
                table.add_row(
                    name, escape(said[name].replace("``", "")), _needs(what), _papers(what.module_doc)
                )
        if table.row_count:
            console.print(table)
    table = Table("objective", "what", "source", title="objectives", title_justify="left")
    for name in options("objective", config_dir):
        comment = _comment(_path("objective", name, config_dir))
        table.add_row(name, escape(re.sub(r"[;,]? *arXiv [\d.]+\d", "", comment)), _papers(comment))
    console.print(table)
    console.print("More of one: ecrl strategies show NAME    Your own: CONTRIBUTING.md")


def _show(console: Console, name: str, config_dir: Path | None) -> None:
    strategies, objectives = options("strategy", config_dir), options("objective", config_dir)
    if name in strategies:
        what, node = _strategy(name, config_dir)
        console.print(f"[bold]{name}[/bold]  strategy={escape(f'[{name}]')}: {escape(what.summary)}")
        _print_definition(console, what, node)
        console.print(f"[bold]needs[/bold]: {_needs(what) or 'nothing'}")
    elif name in objectives:
        path = _path("objective", name, config_dir)
        console.print(f"[bold]{name}[/bold]  objective={name}: {escape(_comment(path))}")
        for key, part in _parts(OmegaConf.to_container(OmegaConf.load(path))):
            console.print(f"\n[bold]{key}[/bold]: {part['_target_']}")
            _print_definition(console, definition(part["_target_"], key), part)
        settings: Any = OmegaConf.to_container(OmegaConf.load(path))
        for key in ("bounds", "filters"):
            console.print(f"\n[bold]{key}[/bold]: {_own(settings.get(key, {})) or 'the defaults'}")
    else:
        raise unknown_name("strategy or objective", name, [*strategies, *objectives])


def _print_definition(console: Console, what: Definition, node: Mapping[str, Any]) -> None:
    """Print formula, settings and what is neutral."""
    console.print(escape(what.formula), soft_wrap=True)
    if what.defaults:
        table = Table("setting", "default", "here", "meaning")
        for argument, default in what.defaults.items():
            here = "" if argument not in node else str(node[argument])
            meaning = what.meanings.get(argument, "").replace("``", "")
            table.add_row(argument, escape(default or "required"), escape(here), escape(meaning))
        console.print(table)
    if what.neutral:
        console.print(f"[bold]does nothing with[/bold]: {escape(what.neutral)}")


def _strategy(name: str, config_dir: Path | None) -> tuple[Definition, Mapping[str, Any]]:
    """A preset's class, and its node."""
    path = _path("strategy", name, config_dir)
    key, node = next(iter(OmegaConf.load(path).items()))
    require_target("strategy", str(key), node, "Strategy class")
    return definition(str(node["_target_"]), f"strategy.{name}"), node


def _parts(node: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """An objective's functions, and the classes of its auxiliary models, by key."""
    for key in _PARTS:
        part = node.get(key) or {}
        named = {key: part} if "_target_" in part else {f"{key}.{name}": x for name, x in part.items()}
        yield from named.items()


def _own(node: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in node.items() if not key.startswith("_"))


def _path(group: str, name: str, config_dir: Path | None) -> Path:
    """A preset's file: the user's own before ours."""
    folders = [*filter(None, [config_dir]), Path(str(resources.files("ecrl.configs")))]
    return next(p for folder in folders if (p := folder / group / f"{name}.yaml").exists())


def _comment(path: Path) -> str:
    """What a preset's first lines say of it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = [line.lstrip("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]]
    return " ".join(first)


def _needs(what: Definition) -> str:
    return ", ".join(need for flag, need in _NEEDS.items() if flag in what.flags)


def _papers(text: str) -> str:
    """The papers that a text names."""
    return " ".join(dict.fromkeys(_ARXIV.findall(text)))
