"""Reasoning environments. Importing this package registers the built-in ones with Gymnasium."""

from __future__ import annotations

import gymnasium

from ecrl.envs.base import Problem, ReasoningEnv, Score, item_seed
from ecrl.envs.text import Text

__all__ = ["Problem", "ReasoningEnv", "Score", "Text", "item_seed"]

_ENTRY_POINTS = {
    "ecrl/Arithmetic-v0": "ecrl.envs.arithmetic:ArithmeticEnv",
    "ecrl/Code-v0": "ecrl.envs.code:CodeEnv",
    "ecrl/Countdown-v0": "ecrl.envs.countdown:CountdownEnv",
    "ecrl/Math-v0": "ecrl.envs.math:MathEnv",
    "ecrl/PythonTool-v0": "ecrl.envs.python_tool:PythonToolEnv",
}


def _register() -> None:
    for env_id, entry_point in _ENTRY_POINTS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point)


_register()
