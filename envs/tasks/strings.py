"""Strings: apply named operations to a string, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import ascii_lowercase, whitespace

import numpy as np

from ecrl.envs.arguments import check_integer
from ecrl.envs.base import Problem, ReasoningEnv, Score, Split
from ecrl.envs.tasks.instructions import ask, final_answer
from ecrl.errors import UsageError

_MAX_RESPONSE = 1 << 16

#: What each operation does to a string; only `drop` uses the letter.
OPERATIONS: dict[str, Callable[[str, str], str]] = {
    "reverse": lambda text, _: text[::-1],
    "sort": lambda text, _: "".join(sorted(text)),
    "rotate": lambda text, _: text[1:] + text[:1],
    "double": lambda text, _: "".join(c + c for c in text),
    "halve": lambda text, _: text[::2],
    "drop": lambda text, letter: text.replace(letter, ""),
    "next": lambda text, _: "".join(_other(c, 1) for c in text),
}
#: What each means, for a policy that is asked in words.
_MEANINGS = {
    "reverse": "reverse: backwards",
    "sort": "sort: alphabetically",
    "rotate": "rotate: the first letter moves to the end",
    "double": "double: every letter twice",
    "halve": "halve: keep the 1st, 3rd, 5th … letter",
    "drop": "drop x: remove every x",
    "next": "next: replace every letter by the next one of the alphabet, z by a",
}
_MAX_TEXT = 256


class StringsEnv(ReasoningEnv):
    """Apply operations to a string, one after the other.

    A prompt is ``abca: reverse, drop b``, a right response ``reverse=acba drop b=aca``. The text after the
    last ``=`` counts, or the whole response if it has no ``=``; white space around it is ignored. The
    operations are ``reverse``, ``sort`` (alphabetically), ``rotate`` (the first letter moves to the end),
    ``double`` (every letter twice), ``halve`` (keep the 1st, 3rd, 5th … letter), ``drop x`` (remove every
    ``x``), ``next`` (replace every letter by the next one of the alphabet, z by a).

    Args:
        length: number of letters in the string, 2 to 32.
        steps: number of operations, 1 to 8.
        letters: size of the alphabet, which begins with ``a``, 2 to 26.
        operations: names of the operations to draw from, each once.
        split: ``train`` or ``val``.

    Raises:
        UsageError: an argument is out of range.
    """

    def __init__(
        self,
        *,
        length: int = 5,
        steps: int = 2,
        letters: int = 26,
        operations: Sequence[str] = tuple(OPERATIONS),
        split: Split = "train",
    ) -> None:
        super().__init__(split=split)
        check_integer("length", length, 2, 32)
        check_integer("steps", steps, 1, 8)
        check_integer("letters", letters, 2, 26)
        known = isinstance(operations, list | tuple) and all(o in OPERATIONS for o in operations)
        if not known or not operations or len(set(operations)) < len(operations):
            raise UsageError(
                f"operations must be some of {', '.join(OPERATIONS)}, each once; got {operations!r}."
            )
        self.length = length
        self.steps = steps
        self.letters = letters
        self.operations = tuple(operations)

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a string, then operations whose results are neither empty nor too long."""
        start = "".join(ascii_lowercase[i] for i in rng.integers(self.letters, size=self.length).tolist())
        text, names = start, []
        for _ in range(self.steps):
            name, text = self._operation(text, rng)
            names.append(name)
        steps = ", ".join(names)
        meanings = "; ".join(_MEANINGS[name] for name in dict.fromkeys(n.split()[0] for n in names))
        task = f"Begin with the string {start} and apply in this order: {steps}. ({meanings}.)"
        return Problem(f"{start}: {steps}\n", text, messages=ask(task, "the result"))

    def score(self, problem: Problem, response: str) -> Score:
        """Give 1 if the final string is exactly the right one."""
        if len(response) > _MAX_RESPONSE:
            return Score(0.0, {"valid": 0.0})
        final = final_answer(response).rpartition("=")[2].strip(whitespace)
        if not final or set(final) - set(ascii_lowercase):
            return Score(0.0, {"valid": 0.0})
        return Score(float(final == problem.answer), {"valid": 1.0}, final)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        """Write each step as ``operation=text``. A wrong solution gets one letter wrong and goes on."""
        text, _, names = problem.prompt.strip().partition(": ")
        steps = names.split(", ")
        slip_at = -1 if correct else int(rng.integers(len(steps)))
        lines = []
        for number, name in enumerate(steps):
            text = apply(name, text)
            if number == slip_at and text:
                text = _slip(text, rng)
            lines.append(f"{name}={text}")
        return " ".join(lines)

    def _operation(self, text: str, rng: np.random.Generator) -> tuple[str, str]:
        """Draw an operation whose result is not empty, and not too long if any result is short."""
        results = {}
        for operation in self.operations:
            name = f"drop {text[int(rng.integers(len(text)))]}" if operation == "drop" else operation
            if result := apply(name, text):
                results[name] = result
        short = [name for name in results if len(results[name]) <= _MAX_TEXT] or list(results)
        if not short:  # only `drop` is allowed and one letter is left: drop a letter that is not there
            return f"drop {_other(text[0], 1)}", text
        name = short[int(rng.integers(len(short)))]
        return name, results[name]


def apply(operation: str, text: str) -> str:
    """Apply an operation to a string; it is named as in the prompt, e.g. ``drop b``."""
    name, _, letter = operation.partition(" ")
    return OPERATIONS[name](text, letter)


def _slip(text: str, rng: np.random.Generator) -> str:
    """Replace a random letter by another one."""
    place = int(rng.integers(len(text)))
    return text[:place] + _other(text[place], int(rng.integers(1, 26))) + text[place + 1 :]


def _other(letter: str, steps: int) -> str:
    """Return the letter that comes ``steps`` places later in the alphabet; a comes after z."""
    return ascii_lowercase[(ord(letter) - ord("a") + steps) % 26]
