"""Checks of the environments and their problems, before a model is loaded."""

from __future__ import annotations

import re
from collections.abc import Sequence

import gymnasium as gym
import numpy as np

from ecrl.config.eval_sets import ValidationSet, validation_sets
from ecrl.config.schema import Config, EnvConfig
from ecrl.envs.base import Split
from ecrl.envs.datasets.pass_rates import read_pass_rates
from ecrl.envs.safe_calls import make
from ecrl.errors import UsageError
from ecrl.rollout.problem_order import keys, size


def check_environments(config: Config, splits: Sequence[Split]) -> list[str]:
    """Make the environments of training and of each validation set, compare their problems, and close them.

    Returns:
        Warnings, a line each.

    Raises:
        UsageError: one cannot be made, validation asks for more problems than there are, or training would
            pose problems of the validation.
    """
    train = _make("env", config.env, "train") if "train" in splits else None
    for of in validation_sets(config) if "val" in splits else ():
        whose = "env" if of.key == "eval" else of.key
        env = _make(whose, of.env, "val")
        _check_count(of, env)
        if train is not None and config.eval.shared == "refuse":
            _check_shared(of, train, env)
        env.close()
    if train is None:
        return []
    warnings = [*_size_warnings(config, train), *_pass_rate_warnings(config)]
    train.close()
    return warnings


def _make(whose: str, settings: EnvConfig, split: Split) -> gym.Env[str, str]:
    """Make an environment; a refused argument is named as the configuration does."""
    try:
        return make(settings.id, split, dict(settings.kwargs))
    except UsageError as error:
        named = re.match(r"\w+", str(error))
        if named and named[0] in settings.kwargs:
            raise UsageError(f"{whose}.kwargs.{error}") from None
        raise


def _size_warnings(config: Config, train: gym.Env[str, str]) -> list[str]:
    wanted, there = config.rollout.prompts, size(train)
    if there is None or there >= wanted:
        return []
    return [
        f"{config.env.id} has {there} problems for training, fewer than rollout.prompts={wanted}, so an "
        "iteration poses some of them more than once."
    ]


def _pass_rate_warnings(config: Config) -> list[str]:
    """Warn of pass rates that were measured with another model."""
    file = config.env.kwargs.get("pass_rates")
    if not file:
        return []
    theirs, ours = read_pass_rates(str(file)).measured.get("model"), config.model.path
    if theirs == ours:
        return []
    return [
        f"env.kwargs.pass_rates={file} was measured with model.path={theirs}, not {ours}; how hard a problem "
        "is depends on the model."
    ]


def _check_count(of: ValidationSet, env: gym.Env[str, str]) -> None:
    wanted, there = of.problems, size(env)
    if isinstance(wanted, int) and there is not None and wanted > there:
        raise UsageError(
            f"{of.key}.problems={wanted}, but {of.env.id} has only {there} for validation; leave it out, or "
            f"set {of.key}.problems=all."
        )


def _check_shared(of: ValidationSet, train: gym.Env[str, str], val: gym.Env[str, str]) -> None:
    of_training, of_validation = keys(train), keys(val)
    if of_training is None or of_validation is None:
        return
    shared = int(np.isin(of_validation, of_training).sum())
    if not shared:
        return
    whose, where = (of.env.id, "env") if of.key == "eval" else (of.key, of.key)
    raise UsageError(
        f"{shared} of the {len(of_validation)} validation problems of {whose} are problems of training too, "
        f"so validation would measure what was learnt by heart. Validate on other rows "
        f"({where}.kwargs.val_path=FILE), or on one row in ten ({where}.kwargs.val_path=null "
        f"{where}.kwargs.val_part=null); eval.shared=allow trains all the same, and eval.every=0 without "
        "validation."
    )
