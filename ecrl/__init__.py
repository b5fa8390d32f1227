"""Entropy-controlled reinforcement learning of reasoning language models.

    import ecrl

    run = ecrl.train("strategy=[clip_cov]", iterations=100)
    iterations, entropy = run.curve("policy/entropy")
    model, tokenizer = ecrl.load_policy(run)

``__all__`` is the public API. Everything else is private by convention: its name and place may change with
any version. Each public name is imported when it is first used, so that ``import ecrl`` itself is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecrl.algorithm.objective import Objective
    from ecrl.algorithm.strategy import AdvantageMixin, PenaltyMixin, RatioMixin, Strategy, WeightMixin
    from ecrl.algorithm.token_batch import TokenBatch
    from ecrl.config.compose import load_config
    from ecrl.config.schema import Config
    from ecrl.envs.base import Problem, ReasoningEnv, Score
    from ecrl.errors import EcrlError, NonFiniteError, UsageError
    from ecrl.runs.run import Run, load_run
    from ecrl.training.api import load_policy, train
    from ecrl.training.observer import PlanObserver, RolloutObserver
    from ecrl.training.run import evaluate

__version__ = "0.1.0"

__all__ = [
    "AdvantageMixin",
    "Config",
    "EcrlError",
    "NonFiniteError",
    "Objective",
    "PenaltyMixin",
    "PlanObserver",
    "Problem",
    "RatioMixin",
    "ReasoningEnv",
    "RolloutObserver",
    "Run",
    "Score",
    "Strategy",
    "TokenBatch",
    "UsageError",
    "WeightMixin",
    "evaluate",
    "load_config",
    "load_policy",
    "load_run",
    "train",
]

_MODULES = {
    "ecrl.algorithm.objective": ("Objective",),
    "ecrl.algorithm.strategy": ("AdvantageMixin", "PenaltyMixin", "RatioMixin", "Strategy", "WeightMixin"),
    "ecrl.algorithm.token_batch": ("TokenBatch",),
    "ecrl.config.compose": ("load_config",),
    "ecrl.config.schema": ("Config",),
    "ecrl.envs.base": ("Problem", "ReasoningEnv", "Score"),
    "ecrl.errors": ("EcrlError", "NonFiniteError", "UsageError"),
    "ecrl.training.observer": ("PlanObserver", "RolloutObserver"),
    "ecrl.runs.run": ("Run", "load_run"),
    "ecrl.training.api": ("load_policy", "train"),
    "ecrl.training.run": ("evaluate",),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}


if not TYPE_CHECKING:  # a type checker that saw it would accept any name

    def __getattr__(name: str) -> object:
        """Import a public name when it is first used (PEP 562)."""
        if name not in _MODULE_OF:
            raise AttributeError(f"module 'ecrl' has no attribute {name!r}")
        return getattr(import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
