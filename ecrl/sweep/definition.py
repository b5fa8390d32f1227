"""The definition of a sweep: arms, which differ in overrides, × seeds; each cell is one run."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError  # type: ignore[import-untyped]

from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.config.keys import key_of
from ecrl.config.schema import Config
from ecrl.errors import UsageError, unknown_name

NAME = "sweep.yaml"
#: The sweep sets these for every cell.
_TAKEN = ("seed", "run_dir", "resume", "output")
#: Cells of one seed draw the same problems only if these are equal in all arms.
_SHARED = ("env", "eval", "rollout.prompts")
_KEYS = ("arms", "seeds", "overrides", "config_dir")
_FORM = 'e.g. arms=\'{grpo: "strategy=[]", small: ["strategy=[clip_cov]", "update.lr=1e-5"]}\''


@dataclass(frozen=True)
class Cell:
    """One run of a sweep.

    Attributes:
        arm: name of its arm.
        seed: of the run.
        run_dir: where it goes.
        overrides: all of them except ``run_dir``.
        iterations: number of iterations of a finished cell.
    """

    arm: str
    seed: int
    run_dir: Path
    overrides: list[str]
    iterations: int

    @property
    def name(self) -> str:
        """The name of its folder."""
        return self.run_dir.name


@dataclass(frozen=True)
class Sweep:
    """Arms × seeds.

    Attributes:
        arms: overrides of each arm, by name; the first is the baseline.
        seeds: each is one run per arm.
        overrides: common to all arms.
        config_dir: a folder of the user's own config groups.
    """

    arms: dict[str, list[str]]
    seeds: list[int]
    overrides: list[str] = field(default_factory=list)
    config_dir: str | None = None

    def cells(self, output: Path) -> list[Cell]:
        """Compose every cell, seed by seed, so that a sweep that is cut off has all arms of its first seeds.

        Raises:
            UsageError: an override that cannot work, two arms that are the same run, or arms that would not
                draw the same problems; names the arms.
        """
        return list(self._cells(output))

    def _cells(self, output: Path) -> Iterator[Cell]:
        configs = {}
        for arm, own in self.arms.items():
            try:
                # An arm's own override replaces the common one.
                words = [*without(self.overrides, own), *own]
                configs[arm] = words, self.compose(words)
            except UsageError as error:
                raise UsageError(f"arm {arm!r}: {error}") from None
        _check_arms({arm: config for arm, (_, config) in configs.items()})
        for seed in self.seeds:
            for arm, (words, config) in configs.items():
                run_dir = output / f"{arm}-{seed}"
                yield Cell(arm, seed, run_dir, [*words, f"seed={seed}"], config.iterations)

    def compose(self, overrides: list[str]) -> Config:
        """Compose the configuration of some overrides."""
        return build_config(overrides, None if self.config_dir is None else Path(self.config_dir))

    def check_grown_from(self, old: Sweep, where: Path) -> None:
        """Refuse to mix the runs of two definitions; this one may add arms and seeds to the old one.

        Raises:
            UsageError: names what differs.
        """
        parts: list[tuple[str, Any, Any]]
        parts = [(f"arm {name!r}", *_apart(arm, self.arms.get(name))) for name, arm in old.arms.items()]
        parts += [("the common overrides", *_apart(old.overrides, self.overrides))]
        parts += [("--config-dir", old.config_dir, self.config_dir)]
        lost = sorted(set(old.seeds) - set(self.seeds))
        parts += [("seeds", old.seeds, self.seeds)] if lost else []
        for what, before, now in parts:
            if before != now:
                raise UsageError(
                    f"{where} holds a sweep of another definition: {what} was {before}, now {now}. Choose "
                    f"another output=, or resume the sweep with: ecrl sweep {where.parent}"
                )

    def save(self, output: Path) -> None:
        """Write the definition beside the runs, to another name first, so that it is never half written."""
        aside = output / f"{NAME}.partial"
        OmegaConf.save(OmegaConf.create(asdict(self)), aside)
        aside.replace(output / NAME)


def sweep_file(word: str) -> Path:
    """Return the file of a sweep.

    Args:
        word: a path, or the name of a sweep that comes with ecrl, such as ``paper_entropy_bonus``.

    Raises:
        UsageError: it looks like a name, and there is no such sweep.
    """
    path = Path(word)
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    if word not in options("sweep"):
        raise unknown_name("sweep", word, options("sweep"))
    return Path(str(resources.files("ecrl.configs"))) / "sweep" / f"{word}.yaml"


def read_sweep(path: Path) -> dict[str, Any]:
    """Read a sweep's YAML file.

    Raises:
        UsageError: it is missing or malformed; names the file.
    """
    try:
        values = parse_yaml(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"{path} cannot be read: {reason}.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{path} holds no sweep; it takes the keys {', '.join(_KEYS)}.")
    return values


def parse_yaml(text: str, what: str) -> Any:
    """Parse a YAML mapping or list, refusing a key that stands twice.

    Raises:
        UsageError: not YAML; names ``what``.
    """
    try:
        return OmegaConf.to_container(OmegaConf.create(text), resolve=False)
    except (OmegaConfBaseException, YAMLError, ValueError) as error:
        raise UsageError(
            f"{what} is not valid YAML; put quotes around overrides: {' '.join(str(error).split())}"
        ) from None
    except AssertionError:  # OmegaConf raises it for a number alone
        raise UsageError(f"{what} is neither a list, e.g. [1,2,3], nor a mapping.") from None


def make_sweep(values: Mapping[str, Any], what: str) -> Sweep:
    """Check the plain values of a definition.

    Args:
        values: ``arms``, ``seeds``, and optionally ``overrides`` and ``config_dir``.
        what: where they come from, for messages.

    Raises:
        UsageError: a key is unknown or missing, or a value has the wrong form.
    """
    for key in values:
        if key not in _KEYS:
            raise unknown_name(f"key in {what}", str(key), _KEYS)
    arms, seeds = values.get("arms"), values.get("seeds")
    if not isinstance(arms, dict) or not arms:
        raise UsageError(f"{what}: arms must map names to overrides, {_FORM}; got {arms!r}.")
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int and s >= 0 for s in seeds):
        raise UsageError(f"{what}: seeds must be whole numbers from 0, e.g. seeds=[1,2,3]; got {seeds!r}.")
    if len(set(seeds)) < len(seeds):
        raise UsageError(f"{what}: a seed stands twice in {seeds}.")
    for name in arms:
        if not re.fullmatch(r"\w[\w.+-]*", str(name)):
            raise UsageError(f"{what}: {name!r} cannot name a folder; an arm takes letters, digits, _ . + -")
    config_dir = values.get("config_dir")
    return Sweep(
        {str(name): _overrides(own, f"{what}: arm {name!r}") for name, own in arms.items()},
        seeds,
        _overrides(values.get("overrides"), what),
        None if config_dir is None else str(config_dir),
    )


def without(overrides: Sequence[str], others: Sequence[str]) -> list[str]:
    """Drop the overrides whose keys the others set."""
    keys = {key_of(o) for o in others}
    return [o for o in overrides if key_of(o) not in keys]


def _overrides(given: Any, what: str) -> list[str]:
    words = [given] if isinstance(given, str) else [] if given is None else given
    if not isinstance(words, list) or not all(isinstance(w, str) and "=" in w for w in words):
        raise UsageError(f"{what} takes one override or a list of them, {_FORM}; got {given!r}.")
    for word in words:
        if key_of(word) in _TAKEN:
            raise UsageError(f"{what}: {word!r} is for the sweep to set, in every cell; drop it.")
    return words


def _check_arms(configs: Mapping[str, Config]) -> None:
    names = list(configs)
    plain = {name: asdict(config) for name, config in configs.items()}
    for i, name in enumerate(names):
        for other in names[:i]:
            if plain[name] == plain[other]:
                raise UsageError(f"arms {other!r} and {name!r} are one and the same run; drop one.")
        for key in _SHARED:
            first, here = (_pick(plain[n], key) for n in (names[0], name))
            if first != here:
                key, first, here = _deepest(key, first, here)
                raise UsageError(
                    f"arm {name!r} differs from {names[0]!r} in {key}, so the two would not draw the same "
                    f"problems: {first!r} and {here!r}. Make two sweeps of them."
                )


def _pick(tree: Any, dotted: str) -> Any:
    for key in dotted.split("."):
        tree = tree[key]
    return tree


def _apart(before: list[str], now: list[str] | None) -> tuple[list[str], list[str] | None]:
    """Return the overrides that only one of the two has; all of them if they differ in order alone."""
    lost, new = [o for o in before if o not in (now or ())], [o for o in now or () if o not in before]
    return (lost, new) if now and (lost or new) else (before, now)


def _deepest(key: str, first: Any, other: Any) -> tuple[str, Any, Any]:
    """Return the first key at which two different trees differ, and both values."""
    while isinstance(first, dict) and isinstance(other, dict):
        child = next(k for k in {**first, **other} if first.get(k, first) != other.get(k, other))
        key, first, other = f"{key}.{child}", first.get(child), other.get(child)
    return key, first, other
