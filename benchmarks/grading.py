"""Accuracy of graders of mathematical answers on the hand-written table of the tests.

    python benchmarks/grading.py

Our grader was developed on this table; docs/environments/math.md has its accuracy on each batch when the
batch was new.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import sympy
from latex2sympy2_extended import latex2sympy
from math_verify import parse, verify

sys.path.insert(0, str(Path(__file__).parent.parent))

from ecrl.envs.grading import extract, grade
from tests.support.grading_table import PAIRS


def string_match(gold: str, response: str) -> bool:
    """Whether the extracted answer equals the gold answer, ignoring spaces."""
    answer = extract(response)
    return answer is not None and "".join(answer.split()) == "".join(gold.split())


def bare_sympy(gold: str, response: str) -> bool:
    """Whether the difference between the extracted and the gold answer simplifies to zero."""
    answer = extract(response)
    try:
        return answer is not None and sympy.simplify(latex2sympy(answer) - latex2sympy(gold)) == 0
    except Exception:  # parser and simplifier raise errors of many kinds
        return False


def math_verify(gold: str, response: str) -> bool:
    """math-verify, used as its documentation shows."""
    return bool(verify(parse(f"${gold}$"), parse(response)))


def ours(gold: str, response: str) -> bool:
    """The grader of ecrl."""
    return grade(gold, response).correct


GRADERS: dict[str, Callable[[str, str], bool]] = {
    "plain string match": string_match,
    "bare sympy": bare_sympy,
    "math-verify 0.9": math_verify,
    "ecrl": ours,
}


def main() -> None:
    """Print the table."""
    parts = {
        "all": PAIRS,
        **{batch: [p for p in PAIRS if p[0] == batch] for batch in dict.fromkeys(p[0] for p in PAIRS)},
    }
    print("| pairs | grader | accuracy | false accepts | false rejects |\n|---|---|---|---|---|")
    for part, pairs in parts.items():
        for name, grader in GRADERS.items():
            verdicts = [(grader(gold, response), right) for _, gold, response, right in pairs]
            accepts = sum(got and not right for got, right in verdicts)
            rejects = sum(right and not got for got, right in verdicts)
            accuracy = 1 - (accepts + rejects) / len(pairs)
            print(f"| {part} ({len(pairs)}) | {name} | {accuracy:.1%} | {accepts} | {rejects} |")


if __name__ == "__main__":
    main()
