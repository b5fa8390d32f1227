"""Reasoning environments. Importing this package registers the built-in ones with Gymnasium."""

from __future__ import annotations

import gymnasium

from ecrl.envs.base import Problem, ReasoningEnv, Score, item_seed
from ecrl.envs.reasoning_gym import TASKS
from ecrl.envs.text import Text

__all__ = ["Problem", "ReasoningEnv", "Score", "Text", "item_seed"]

_ENTRY_POINTS = {
    "ecrl/Arithmetic-v0": "ecrl.envs.arithmetic:ArithmeticEnv",
    "ecrl/Bases-v0": "ecrl.envs.bases:BasesEnv",
    "ecrl/Code-v0": "ecrl.envs.code:CodeEnv",
    "ecrl/Countdown-v0": "ecrl.envs.countdown:CountdownEnv",
    "ecrl/Curriculum-v0": "ecrl.envs.curriculum:CurriculumEnv",
    "ecrl/Gem-v0": "ecrl.envs.adapters.gem:GemEnv",
    "ecrl/GraphPath-v0": "ecrl.envs.graph_path:GraphPathEnv",
    "ecrl/GuessNumber-v0": "ecrl.envs.guess_number:GuessNumberEnv",
    "ecrl/Knights-v0": "ecrl.envs.knights:KnightsEnv",
    "ecrl/Math-v0": "ecrl.envs.math:MathEnv",
    "ecrl/Mixture-v0": "ecrl.envs.mixture:MixtureEnv",
    "ecrl/PythonTool-v0": "ecrl.envs.python_tool:PythonToolEnv",
    "ecrl/RewardFunctions-v0": "ecrl.envs.adapters.trl:RewardFunctionEnv",
    "ecrl/SkyRL-v0": "ecrl.envs.adapters.skyrl:SkyRLEnv",
    "ecrl/Strings-v0": "ecrl.envs.strings:StringsEnv",
    "ecrl/Sudoku-v0": "ecrl.envs.sudoku:SudokuEnv",
    "ecrl/Verifiers-v0": "ecrl.envs.adapters.verifiers:VerifiersEnv",
}
_REASONING_GYM = "ecrl.envs.reasoning_gym:ReasoningGymEnv"


def _register() -> None:
    for env_id, entry_point in _ENTRY_POINTS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point)
    for task in TASKS:
        if f"reasoning_gym/{task}-v0" not in gymnasium.registry:
            gymnasium.register(f"reasoning_gym/{task}-v0", entry_point=_REASONING_GYM, kwargs={"task": task})


_register()
