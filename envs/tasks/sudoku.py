"""Sudoku 4×4: every row, column and 2×2 box holds 1 to 4."""

from __future__ import annotations

from functools import cache
from itertools import permutations, product
from string import whitespace

import numpy as np
from numpy.typing import NDArray

from ecrl.envs.arguments import check_integer
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.tasks.instructions import ask, final_answer
from ecrl.errors import UsageError

_SIZE = 4
_CELLS = _SIZE * _SIZE
_DIGITS = "1234"
_MAX_RESPONSE = 1 << 16
_MAX_DRAWS = 10_000

Grid = NDArray[np.int8]


class SudokuEnv(ReasoningEnv):
    """Fill a 4×4 grid so that every row, column and 2×2 box holds 1, 2, 3 and 4.

    A prompt is four rows such as ``1.3.``, with a dot for an empty cell. Exactly one grid fits. The last four
    lines of a response that are not empty count; each must have four digits, and may have spaces.

    Args:
        empty: number of empty cells, 1 to 12. With fewer than 4 given digits, a puzzle has several solutions.
        split: ``train`` or ``val``.

    Raises:
        UsageError: ``empty`` is out of range.
    """

    def __init__(self, *, empty: int = 6, split: Split = "train") -> None:
        super().__init__(split=split)
        check_integer("empty", empty, 1, _CELLS - 4)
        self.empty = empty

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a full grid and remove digits, as long as only one grid fits.

        Raises:
            UsageError: no puzzle with so many empty cells was found.
        """
        grids = _all_grids()
        for _ in range(_MAX_DRAWS):
            grid = grids[rng.integers(len(grids))]
            puzzle, fits = grid.copy(), np.ones(_CELLS, dtype=bool)
            for cell in rng.permutation(_CELLS):
                fits[cell] = False
                if (grids[:, fits] == grid[fits]).all(axis=1).sum() > 1:
                    fits[cell] = True
                elif _CELLS - fits.sum() == self.empty:
                    puzzle[~fits] = 0
                    messages = ask(
                        "Fill the dots of this 4×4 grid so that every row, column and 2×2 box holds 1, 2, 3 "
                        f"and 4.\n\n{_text(puzzle)}",
                        "the four rows, one below the other,",
                    )
                    return Problem(_text(puzzle), (puzzle, _text(grid)), messages=messages)
        raise UsageError(f"Sudoku found no puzzle with {self.empty} empty cells in {_MAX_DRAWS} draws.")

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 for the only grid that fits."""
        _, answer = problem.answer
        given = _parse(final_answer(response))
        if given is None:
            return Score(0.0, {"valid": 0.0})
        return Score(float(given == answer), {"valid": 1.0}, given.strip())

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Fill the cells as ``row,column=digit``, that with the fewest candidates first, then write the grid.

        A wrong solution has a wrong digit in one cell; the other cells are right.
        """
        puzzle, answer = problem.answer
        grid = np.array([int(d) for d in answer if d in _DIGITS], np.int8)
        given = puzzle.copy()
        empty = np.flatnonzero(puzzle == 0).tolist()
        slip = -1 if correct else empty[int(rng.integers(len(empty)))]
        lines = []
        while empty:
            cell = min(empty, key=lambda c: (len(_candidates(given, c)), c))
            empty.remove(cell)
            given[cell] = grid[cell]
            if cell == slip:
                grid[cell] = (grid[cell] - 1 + rng.integers(1, _SIZE)) % _SIZE + 1
            lines.append(f"{cell // _SIZE + 1},{cell % _SIZE + 1}={grid[cell]}")
        return " ".join(lines) + "\n" + _text(grid).strip()


@cache
def _all_grids() -> Grid:
    """Return all 288 full grids, ``[288, 16]``."""
    rows = list(permutations(range(1, _SIZE + 1)))
    grids = np.array([np.concatenate(four) for four in product(rows, repeat=_SIZE)], np.int8)
    right = np.ones(len(grids), dtype=bool)
    for i in range(_SIZE):
        column = [_SIZE * r + i for r in range(_SIZE)]
        corner = _SIZE * (i // 2) * 2 + (i % 2) * 2
        box = [corner, corner + 1, corner + _SIZE, corner + _SIZE + 1]
        for cells in (column, box):
            right &= (np.sort(grids[:, cells], axis=1) == np.arange(1, _SIZE + 1)).all(axis=1)
    return grids[right]


def _candidates(puzzle: Grid, cell: int) -> set[int]:
    """Return the digits that no other cell of the row, the column or the box holds."""
    row, column = divmod(cell, _SIZE)
    board = puzzle.reshape(_SIZE, _SIZE)
    top, left = row // 2 * 2, column // 2 * 2
    seen = {*board[row].tolist(), *board[:, column].tolist()}
    return {1, 2, 3, 4} - seen - set(board[top : top + 2, left : left + 2].ravel().tolist())


def _text(grid: Grid) -> str:
    digits = "".join(str(d) if d else "." for d in grid.tolist())
    return "".join(f"{digits[i : i + _SIZE]}\n" for i in range(0, _CELLS, _SIZE))


def _parse(response: str) -> str | None:
    """Read the last four lines that are not empty as rows of four digits; None if they are not."""
    if len(response) > _MAX_RESPONSE:
        return None
    lines = [line for line in response.split("\n") if line.strip(whitespace)][-_SIZE:]
    rows = ["".join(c for c in line if c not in whitespace) for line in lines]
    if len(rows) != _SIZE or any(len(row) != _SIZE or set(row) - set(_DIGITS) for row in rows):
        return None
    return "".join(f"{row}\n" for row in rows)
