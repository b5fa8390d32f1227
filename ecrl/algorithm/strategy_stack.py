"""Builds the strategy stack from the configuration, and checks how its members fit together."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any

from ecrl.algorithm.objective import has_ratio
from ecrl.algorithm.strategy import RatioMixin, Strategy
from ecrl.config.schema import Config
from ecrl.config.targets import build, require_target
from ecrl.errors import UsageError


def build_strategies(nodes: Mapping[str, Any], given: Sequence[Strategy] = ()) -> list[Strategy]:
    """Instantiate the strategies in config order and name each by its key.

    Args:
        nodes: the configuration's.
        given: objects from Python, which come behind them; one without a name gets that of its class.

    Raises:
        UsageError: a node or an object that is not a strategy, or two of one name.
    """
    strategies = []
    for name, node in nodes.items():
        require_target("strategy", name, node, "Strategy class")
        strategy = build(node)
        if not isinstance(strategy, Strategy):
            raise UsageError(
                f"strategy.{name} built a {type(strategy).__name__}; it must be an ecrl.Strategy."
            )
        strategy.name = name
        strategies.append(strategy)
    return [*strategies, *_named(given, nodes)]


def _named(given: Sequence[object], taken: Iterable[str]) -> list[Strategy]:
    """Name objects by their classes: ``DropLate`` is ``drop_late``."""
    names, strategies = set(taken), list[Strategy]()
    for strategy in given:
        if not isinstance(strategy, Strategy):
            raise UsageError(f"strategies=[…] takes ecrl.Strategy objects, got {strategy!r}.")
        strategy.name = strategy.name or re.sub(r"(?<!^)(?=[A-Z])", "_", type(strategy).__name__).lower()
        if strategy.name in names:
            raise UsageError(f"Two strategies are called {strategy.name}; set the `name` of one.")
        names.add(strategy.name)
        strategies.append(strategy)
    return strategies


def check_stack(config: Config, strategies: list[Strategy]) -> list[str]:
    """Collect the warnings of the objective and of all strategies.

    Raises:
        UsageError: a combination is impossible.
    """
    _refuse_lost_bounds(strategies)
    warnings = _objective_warnings(config)
    for strategy in strategies:
        own = strategy.check(config, [s for s in strategies if s is not strategy])
        if strategy.needs_updates and config.update.minibatches * config.update.epochs == 1:
            own.append(
                "with one update per rollout the policy is still the one that drew it, which leaves nothing "
                "to act on. Raise update.minibatches or update.epochs."
            )
        warnings += [f"{strategy.name}: {warning}" for warning in own]
    return warnings


def _refuse_lost_bounds(strategies: list[Strategy]) -> None:
    """Refuse a strategy whose bounds of the ratio a later one replaces."""
    bounding = [s for s in strategies if isinstance(s, RatioMixin) and s.sets_bounds]
    for before, strategy in pairwise(bounding):
        if strategy.replaces_bounds:
            raise UsageError(
                f"{strategy.name} sets the ratio's bounds anew, so {before.name} before it would do nothing. "
                f"Drop one of them, or put {strategy.name} first."
            )


def _objective_warnings(config: Config) -> list[str]:
    updates = config.update.minibatches * config.update.epochs
    if updates == 1 or has_ratio(config.objective):
        return []
    return [
        "objective: the surrogate `reinforce` has no importance ratio, so all but the first of the "
        f"{updates} updates per rollout are off-policy and biased. Set update.minibatches=1 and "
        "update.epochs=1, or objective.surrogate._target_=ecrl.algorithm.losses.ppo_clip."
    ]
