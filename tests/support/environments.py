"""The procedural tasks with settings to try, and problems of an environment."""

from __future__ import annotations

from typing import Any

from ecrl.envs import Problem, ReasoningEnv, item_seed
from ecrl.envs.tasks.arithmetic import ArithmeticEnv
from ecrl.envs.tasks.countdown import CountdownEnv
from ecrl.envs.tasks.countdown_steps import CountdownStepsEnv
from ecrl.envs.tasks.graph_path import GraphPathEnv
from ecrl.envs.tasks.guess_number import GuessNumberEnv
from ecrl.envs.tasks.knights import KnightsEnv
from ecrl.envs.tasks.number_bases import BasesEnv
from ecrl.envs.tasks.strings import StringsEnv
from ecrl.envs.tasks.sudoku import SudokuEnv

SETTINGS: dict[type[ReasoningEnv], list[dict[str, Any]]] = {
    CountdownEnv: [{}],
    CountdownStepsEnv: [{}, {"numbers": 3, "low": 5, "high": 40}, {"numbers": 5}],
    ArithmeticEnv: [{}],
    KnightsEnv: [{}, {"people": 2}, {"people": 6, "claims": 4}],
    SudokuEnv: [{}, {"empty": 1}, {"empty": 11}],
    GraphPathEnv: [{}, {"nodes": 3, "edges": 0}, {"nodes": 12, "edges": 20, "weight": 9}],
    StringsEnv: [{}, {"length": 12, "steps": 6, "letters": 3}, {"operations": ["drop"], "steps": 8}],
    BasesEnv: [{}, {"low": 2, "high": 3}, {"high": 36, "maximum": 10**18}],
    GuessNumberEnv: [{}, {"size": 2}, {"size": 1000, "turns": 3}],
}


def problems(env: ReasoningEnv, count: int) -> list[Problem]:
    """The first problems by their item seeds."""
    return [env.reset(seed=item_seed(0, i))[1]["problem"] for i in range(count)]
