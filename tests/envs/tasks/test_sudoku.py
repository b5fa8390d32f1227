"""Sudoku of four by four."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from ecrl.envs import Problem
from ecrl.envs.tasks.sudoku import SudokuEnv, _all_grids
from tests.support.environments import problems


def test_there_are_288_grids() -> None:
    assert _all_grids().shape == (288, 16)


@pytest.mark.parametrize("empty", [1, 6, 10, 12])
def test_sudokus_have_one_solution_by_backtracking(empty: int) -> None:
    env = SudokuEnv(empty=empty)
    for problem in problems(env, 5):
        rows = problem.prompt.split()
        assert sum(row.count(".") for row in rows) == empty
        solutions = _fill([list(row) for row in rows])
        assert len(solutions) == 1
        assert env.score(problem, "so:\n" + solutions[0]).reward == 1.0


def _fill(board: list[list[str]]) -> list[str]:
    for r, c in product(range(4), repeat=2):
        if board[r][c] == ".":
            found = []
            for digit in "1234":
                box = [board[r // 2 * 2 + i][c // 2 * 2 + j] for i, j in product(range(2), repeat=2)]
                if digit not in board[r] and digit not in [row[c] for row in board] and digit not in box:
                    board[r][c] = digit
                    found += _fill(board)
                    board[r][c] = "."
            return found
    return ["\n".join("".join(row) for row in board)]


@pytest.mark.parametrize(
    ("response", "reward", "valid"),
    [
        ("1234\n3412\n2143\n4321", 1, 1),
        ("1 2 3 4\n\n3 4 1 2\n2 1 4 3\n4 3 2 1\n", 1, 1),
        ("1,1=1\n1234\n3412\n2143\n4321", 1, 1),
        ("1234\n3412\n2143\n4312", 0, 1),
        ("2143\n3412\n1234\n4321", 0, 1),
        ("1234341221434321", 0, 0),
        ("1234\n3412\n2143", 0, 0),
        ("1234\n3412\n2143\n432", 0, 0),
        ("1234\n3412\n2143\n4325", 0, 0),
        ("1234\n3412\n2143\n4321\nok", 0, 0),
        ("１234\n3412\n2143\n4321", 0, 0),
    ],
)
def test_sudoku_by_hand(response: str, reward: float, valid: float) -> None:
    problem = Problem("", (np.zeros(16, np.int8), "1234\n3412\n2143\n4321\n"))
    score = SudokuEnv().score(problem, response)
    assert (score.reward, score.metrics) == (reward, {"valid": valid})
