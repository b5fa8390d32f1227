"""Reasoning environments. Importing this package registers the built-in ones with Gymnasium."""

from __future__ import annotations

import gymnasium

from ecrl.envs.base import Problem, ReasoningEnv, Score, item_seed
from ecrl.envs.reasoning_gym.task_names import TASKS
from ecrl.envs.spaces import Text

__all__ = ["Problem", "ReasoningEnv", "Score", "Text", "item_seed"]

_ENTRY_POINTS = {
    "ecrl/Arithmetic-v0": "ecrl.envs.tasks.arithmetic:ArithmeticEnv",
    "ecrl/Bases-v0": "ecrl.envs.tasks.number_bases:BasesEnv",
    "ecrl/Code-v0": "ecrl.envs.code.env:CodeEnv",
    "ecrl/Countdown-v0": "ecrl.envs.tasks.countdown:CountdownEnv",
    "ecrl/CountdownSteps-v0": "ecrl.envs.tasks.countdown_steps:CountdownStepsEnv",
    "ecrl/Curriculum-v0": "ecrl.envs.composite.curriculum:CurriculumEnv",
    "ecrl/Gem-v0": "ecrl.envs.adapters.gem:GemEnv",
    "ecrl/GraphPath-v0": "ecrl.envs.tasks.graph_path:GraphPathEnv",
    "ecrl/GuessNumber-v0": "ecrl.envs.tasks.guess_number:GuessNumberEnv",
    "ecrl/Judge-v0": "ecrl.envs.judge.env:JudgeEnv",
    "ecrl/Knights-v0": "ecrl.envs.tasks.knights:KnightsEnv",
    "ecrl/Math-v0": "ecrl.envs.datasets.math_problems:MathEnv",
    "ecrl/Mixture-v0": "ecrl.envs.composite.mixture:MixtureEnv",
    "ecrl/PythonTool-v0": "ecrl.envs.composite.python_tool:PythonToolEnv",
    "ecrl/RewardFunctions-v0": "ecrl.envs.adapters.trl:RewardFunctionEnv",
    "ecrl/SkyRL-v0": "ecrl.envs.adapters.skyrl:SkyRLEnv",
    "ecrl/Strings-v0": "ecrl.envs.tasks.strings:StringsEnv",
    "ecrl/Sudoku-v0": "ecrl.envs.tasks.sudoku:SudokuEnv",
    "ecrl/Verifiers-v0": "ecrl.envs.adapters.verifiers:VerifiersEnv",
}
_REASONING_GYM = "ecrl.envs.reasoning_gym.env:ReasoningGymEnv"


def _register() -> None:
    for env_id, entry_point in _ENTRY_POINTS.items():
        if env_id not in gymnasium.registry:
            gymnasium.register(env_id, entry_point=entry_point)
    for task in TASKS:
        if f"reasoning_gym/{task}-v0" not in gymnasium.registry:
            gymnasium.register(f"reasoning_gym/{task}-v0", entry_point=_REASONING_GYM, kwargs={"task": task})


_register()
