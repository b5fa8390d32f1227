"""The strategies and objectives that a run can take, as their presets and their sources describe them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ecrl.config.groups import options
from ecrl.config.source import Definition, definition
from ecrl.config.targets import require_target
from ecrl.errors import unknown_name

#: What a strategy changes, by the mixin that says so; one with several stands under the first.
CHANGES = {
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
    "needs_facts": "a pass over the rollout",
    "needs_entropy": "entropies of the rollout",
    "needs_updates": "several updates a rollout",
}
_ARXIV = re.compile(r"(?:arxiv\.org/abs/|arXiv )(\d{4}\.\d{5})")
_PARTS = ("estimator", "surrogate", "aggregation", "shaping", "auxiliary")


@dataclass(frozen=True)
class Part:
    """A class or function of a preset.

    Attributes:
        key: where it stands in an objective; empty for a strategy's class.
        target: its dotted name.
        what: what its source says.
        settings: those that the preset gives.
    """

    key: str
    target: str
    what: Definition
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """A preset of a strategy or of an objective.

    Attributes:
        name: of the preset.
        group: ``strategy`` or ``objective``.
        summary: one sentence or two.
        parts: its classes and functions.
        node: the preset's other settings.
    """

    name: str
    group: str
    summary: str
    parts: list[Part]
    node: Mapping[str, Any]

    @property
    def changes(self) -> str:
        """What it changes."""
        if self.group == "objective":
            return "the objective"
        bases = self.parts[0].what.bases
        return CHANGES[next((mixin for mixin in CHANGES if mixin in bases), "")]

    @property
    def needs(self) -> str:
        """What it needs, or nothing."""
        flags = self.parts[0].what.flags if self.group == "strategy" else ()
        return ", ".join(need for flag, need in _NEEDS.items() if flag in flags)

    @property
    def papers(self) -> list[str]:
        """Numbers on arXiv of the papers that it is from."""
        said = self.summary if self.group == "objective" else self.parts[0].what.module_doc
        return list(dict.fromkeys(_ARXIV.findall(said)))


def methods(group: str, config_dir: Path | None = None) -> list[Method]:
    """Return all presets of a group, by name.

    Args:
        group: ``strategy`` or ``objective``.
        config_dir: a folder of the user's own config groups.

    Raises:
        UsageError: a preset names no class or function whose source can be read.
    """
    return [_method(group, name, config_dir) for name in options(group, config_dir)]


def find_method(name: str, config_dir: Path | None = None) -> Method:
    """Return the strategy or objective of a name.

    Raises:
        UsageError: there is none; names the nearest.
    """
    found = {group: options(group, config_dir) for group in ("strategy", "objective")}
    for group, names in found.items():
        if name in names:
            return _method(group, name, config_dir)
    raise unknown_name("strategy or objective", name, [n for names in found.values() for n in names])


def _method(group: str, name: str, config_dir: Path | None) -> Method:
    folders = [*filter(None, [config_dir]), Path(str(resources.files("ecrl.configs")))]
    path = next(p for folder in folders if (p := folder / group / f"{name}.yaml").exists())
    node: Any = OmegaConf.to_container(OmegaConf.load(path))
    if group == "objective":
        return Method(name, group, _comment(path), list(_parts(node)), node)
    key, own = next(iter(node.items()))
    require_target("strategy", str(key), own, "Strategy class")
    part = Part("", own["_target_"], definition(own["_target_"], f"strategy.{name}"), own)
    return Method(name, group, _comment(path) or part.what.summary, [part], {})


def _parts(node: Any) -> Iterator[Part]:
    """An objective's functions, and the classes of its auxiliary models."""
    for key in _PARTS:
        part = node.get(key) or {}
        named = {key: part} if "_target_" in part else {f"{key}.{name}": x for name, x in part.items()}
        for where, own in named.items():
            yield Part(where, own["_target_"], definition(own["_target_"], where), own)


def _comment(path: Path) -> str:
    """What a preset's first lines say of it."""
    lines = path.read_text(encoding="utf-8").splitlines()
    first = [line.lstrip("# ") for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]]
    return " ".join(first)
