"""The validation sets of a run: their environments by name, and what each takes from ``eval``."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ecrl.config.groups import options, presets
from ecrl.config.schema import Config, EnvConfig, EvalSet
from ecrl.errors import UsageError

#: Mean over the validation sets of each one's avg@k; their k may differ.
VALIDATION_MEAN = "val/mean/avg@k"

_ID = re.compile(r"[:/]")


@dataclass(frozen=True)
class ValidationSet:
    """One validation set with all its settings; see ``EvalSet``.

    Attributes:
        name: stands in its metrics, ``val/NAME/…``.
        key: where its settings stand in the configuration.
        env: its environment.
        problems: number of problems, or ``all``.
        k: answers drawn per problem.
        temperature: of the drawn answers; 0 takes the greedy answer alone.
        top_p: nucleus share.
        max_new_tokens: longest answer, in tokens.
        every: iterations between validations; 0 for never.
    """

    name: str
    key: str
    env: EnvConfig
    problems: int | str
    k: int
    temperature: float
    top_p: float
    max_new_tokens: int
    every: int


def validation_sets(config: Config) -> list[ValidationSet]:
    """Return the validation sets of a run; without ``eval.sets`` the one of its own environment."""
    sets = {name: of for name, of in config.eval.sets.items() if of is not None}
    if not sets:
        return [_filled(env_name(config.env), "eval", EvalSet(), config)]
    return [_filled(name, f"eval.sets.{name}", of, config) for name, of in sets.items()]


def longest_completion(config: Config) -> int:
    """Return the most tokens that a run draws at once, in training or validation."""
    validated = validation_sets(config) if config.eval.every else []
    return max([config.rollout.max_new_tokens, *(of.max_new_tokens for of in validated)])


def env_name(env: EnvConfig) -> str:
    """Return an environment's short name for metrics.

    It is the configured name, or that of its data set (``openai/gsm8k`` → ``gsm8k``), or that of its id
    (``ecrl/Countdown-v0`` → ``countdown``).
    """
    path = env.kwargs.get("path")
    found = env.name or (Path(str(path)).stem if path else env.id.split("/")[-1].rsplit("-v", 1)[0].lower())
    return re.sub(r"[^\w.-]+", "_", found)


def env_id(name: str, config_dir: Path | None) -> str | None:
    """Return the Gymnasium id that stands in place of a name of the ``env`` group; None for such a name."""
    if name in options("env", config_dir) or not _ID.search(name):
        return None
    # The tasks of reasoning-gym have one version, which need not be written.
    task = name.startswith("reasoning_gym/") and not re.search(r"-v\d+$", name)
    return f"{name}-v0" if task else name


def resolve_environments(sets: DictConfig, config_dir: Path | None = None) -> None:
    """Put what its preset says in place of each environment's name.

    Args:
        sets: the node ``eval.sets``, changed in place.
        config_dir: a folder of the user's own config groups.

    Raises:
        UsageError: an unknown name, or a node that is no environment.
    """
    named: dict[str, str] = {}
    present = {str(key): of for key, of in sets.items() if of is not None}
    for key, of in present.items():
        env = of.env
        if isinstance(env, str) and (gymnasium := env_id(env, config_dir)):
            of.env = {"id": gymnasium}
        elif isinstance(env, str):
            named[key] = env
    found = presets({key: ("env", name) for key, name in named.items()}, config_dir) if named else {}
    for key, of in present.items():
        of.env = _checked(f"eval.sets.{key}.env", found.get(key, of.env))


def _checked(key: str, env: Any) -> Any:
    """Check that a node is an environment; None is the run's own."""
    if env is None:
        return None
    if not isinstance(env, DictConfig) or not env.get("id"):
        raise UsageError(f"{key} takes a name (env=…), or {{id: ID, kwargs: {{…}}}}; got {env}.")
    try:
        return OmegaConf.merge(OmegaConf.structured(EnvConfig), env)
    except OmegaConfBaseException as error:
        raise UsageError(f"{key}: {str(error).splitlines()[0]}") from None


def _filled(name: str, key: str, of: EvalSet, config: Config) -> ValidationSet:
    """Give a set what it leaves to ``eval`` and to ``rollout``."""
    env, defaults = of.env or config.env, config.eval

    def given(own: Any, default: Any) -> Any:
        return default if own is None else own

    return ValidationSet(
        name,
        key,
        EnvConfig(env.id, {**env.kwargs, **of.kwargs}, name),
        given(of.problems, defaults.problems),
        given(of.k, defaults.k),
        given(of.temperature, defaults.temperature),
        given(of.top_p, defaults.top_p),
        given(given(of.max_new_tokens, defaults.max_new_tokens), config.rollout.max_new_tokens),
        given(of.every, defaults.every),
    )
