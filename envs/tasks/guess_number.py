"""Guess the number: the smallest environment with several turns."""

from __future__ import annotations

import re
from string import whitespace
from typing import Any

import numpy as np

from ecrl.envs.arguments import check_integer
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.tasks.instructions import ask, final_answer

_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_LOWEST = 1000  # a range begins at 1 to 1000, so that problems differ


class GuessNumberEnv(ReasoningEnv):
    """Guess a hidden number; the environment answers each wrong guess with ``higher`` or ``lower``.

    A prompt is ``Guess my number from 137 to 168.``; a response is one integer in decimal notation, with
    spaces allowed around it. After a wrong guess, or a response that is not a number, the next turn begins.
    The right guess earns 1 and ends the episode; after the last turn the episode is ``truncated``.

    Args:
        size: how many numbers the range has, 2 to 1,000,000.
        turns: most guesses, 1 to 64; None allows as many as halving the range needs.
        split: ``train`` or ``val``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(self, *, size: int = 32, turns: int | None = None, split: Split = "train") -> None:
        super().__init__(split=split)
        check_integer("size", size, 2, 1_000_000)
        if turns is not None:
            check_integer("turns", turns, 1, 64)
        self.size = size
        self.turns = turns or size.bit_length()
        self._turn = 0

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a range and a number in it."""
        low = int(rng.integers(1, _LOWEST + 1))
        high = low + self.size - 1
        number = int(rng.integers(low, high + 1))
        prompt = f"Guess my number from {low} to {high}.\n"
        task = f"{prompt}I answer each guess by higher or lower; you have {self.turns} guesses."
        return Problem(prompt, number, f"{number} in {low} to {high}", ask(task, "one guess"))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a problem and begin with the first turn."""
        self._turn = 0
        return super().reset(seed=seed, options=options)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        """Score a guess; if it is wrong, say whether the number is higher or lower."""
        self._turn += 1
        score = self.score(self.problem, action)
        found = score.reward == 1.0
        info = {"metrics": {**score.metrics, "turns": float(self._turn)}, "answer": score.answer}
        if found or self._turn >= self.turns:
            return "", score.reward, found, not found, info
        if score.answer is None:
            return "\nWrite a number.\n", 0.0, False, False, info
        hint = "higher" if int(score.answer) < self.problem.answer else "lower"
        return f"\n{hint}\n", 0.0, False, False, info

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 for the right number."""
        guess = final_answer(response).strip(whitespace)
        if not _NUMBER.fullmatch(guess):
            return Score(0.0, {"valid": 0.0})
        return Score(float(int(guess) == problem.answer), {"valid": 1.0}, guess)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write one guess: the number itself, or another number of the range."""
        if correct:
            return str(problem.answer)
        low, high = map(int, re.findall(r"[0-9]+", problem.prompt))
        size = high - low + 1
        return str(low + (problem.answer - low + int(rng.integers(1, size))) % size)
