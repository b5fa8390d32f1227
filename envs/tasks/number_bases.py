"""Bases: write a number in another base."""

from __future__ import annotations

import re
from string import ascii_lowercase, digits, whitespace

import numpy as np

from ecrl.envs.arguments import check_integer
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.tasks.instructions import ask, final_answer
from ecrl.errors import UsageError

_DIGITS = digits + ascii_lowercase
_NUMBER = re.compile(r"0|[1-9a-z][0-9a-z]*", re.IGNORECASE | re.ASCII)


class BasesEnv(ReasoningEnv):
    """Write a number in another base.

    A prompt is ``1a base 16 to 2``, a right response ``1*16+10=26 26=2*13+0 13=2*6+1 6=2*3+0 3=2*1+1
    1=2*0+1 =11010``. The text after the last ``=`` counts, or the whole response if it has no ``=``. It must
    be digits of the base (``a`` or ``A`` for ten and so on) without leading zeros; spaces around it are
    allowed.

    Args:
        low: smallest base, 2 to 35.
        high: largest base, above ``low``, at most 36.
        maximum: largest number, 10 to 10^18. Numbers of every length in binary are drawn equally often.
        split: ``train`` or ``val``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(self, *, low: int = 2, high: int = 16, maximum: int = 255, split: Split = "train") -> None:
        super().__init__(split=split)
        check_integer("low", low, 2, 35)
        check_integer("high", high, 3, 36)
        check_integer("maximum", maximum, 10, 10**18)
        if low >= high:
            raise UsageError(f"high must be above low={low}, for there to be two bases; got {high}.")
        self.low = low
        self.high = high
        self.maximum = maximum

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw two different bases and a number."""
        source, target = (self.low + rng.choice(self.high - self.low + 1, 2, replace=False)).tolist()
        bits = int(rng.integers(2, self.maximum.bit_length() + 1))
        number = int(rng.integers(1 << (bits - 1), min(1 << bits, self.maximum + 1)))
        given = write(number, source)
        task = f"The number {given} is written in base {source}. Write it in base {target}."
        prompt = f"{given} base {source} to {target}\n"
        return Problem(prompt, write(number, target), messages=ask(task, "its digits"))

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 if the final number is right, in the notation of the base."""
        final = final_answer(response).rpartition("=")[2].strip(whitespace)
        # Compared as strings, because converting a long string of digits to an integer is slow.
        if not _NUMBER.fullmatch(final):
            return Score(0.0, {"valid": 0.0})
        given = final.lower()
        return Score(float(given == problem.answer), {"valid": 1.0}, given)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Convert to decimal, then divide by the target base; a wrong solution errs in one step."""
        number, source, target = re.fullmatch(r"(\S+) base (\d+) to (\d+)\n", problem.prompt).groups()  # type: ignore[union-attr]
        return _work(number, int(source), int(target), 0 if correct else int(rng.integers(1, 10)))


def write(number: int, base: int) -> str:
    """Write a positive integer in a base from 2 to 36, in lower case."""
    text = ""
    while number:
        number, digit = divmod(number, base)
        text = _DIGITS[digit] + text
    return text


def _work(text: str, source: int, target: int, slip: int) -> str:
    """Write every step; ``slip`` is added to the decimal value, which makes the result wrong."""
    steps = []
    value = _DIGITS.index(text[0])
    for digit in map(_DIGITS.index, text[1:]):
        steps.append(f"{value}*{source}+{digit}={value * source + digit}")
        value = value * source + digit
    if slip:
        value += slip
        steps = [*steps[:-1], f"{steps[-1].rpartition('=')[0]}={value}"] if steps else steps
    result, rest = write(value, target), value
    while rest:
        steps.append(f"{rest}={target}*{rest // target}+{rest % target}")
        rest //= target
    return " ".join([*steps, f"={result}"])
