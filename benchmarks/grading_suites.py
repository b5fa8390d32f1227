"""Agreement of our grader with the public test suites of other graders.

    git clone the five repositories of `SUITES` into one folder, then
    python benchmarks/grading_suites.py FOLDER                # one line a suite
    python benchmarks/grading_suites.py FOLDER --differences  # and each case where the verdicts differ

The cases are read from the checkouts without running their code. What the suites expect is not always right:
docs/environments/math.md says where theirs is debatable and where ours falls short.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ecrl.envs.grading import extract, grade

_FORMULA = re.compile(r"\$\$(.+?)\$\$|\$(.+?)(?<!\\)\$|\\\[(.+?)\\\]|\\\((.+?)\\\)", re.DOTALL)
_PYTHON_BLOCK = re.compile(r"```\s*python\n(.*?)```", re.DOTALL)


@dataclass(frozen=True)
class Case:
    """A gold answer, a prediction, and whether the suite takes it for right."""

    gold: str
    prediction: str
    right: bool


def parametrized(source: str) -> Iterator[Case]:
    """Read pytest's cases of gold, prediction and verdict, without those in other languages than English."""
    for function in ast.walk(ast.parse(source)):
        if not isinstance(function, ast.FunctionDef):
            continue
        for call in function.decorator_list:
            if not isinstance(call, ast.Call) or len(call.args) != 2:
                continue
            names, rows = _literal(call.args[0]), call.args[1]
            if isinstance(names, str) and isinstance(rows, ast.List):
                for row in rows.elts:
                    yield from _case(function.name, [n.strip() for n in names.split(",")], row)


def _case(test: str, names: list[str], row: ast.expr) -> Iterator[Case]:
    cells = [_literal(cell) for cell in row.elts] if isinstance(row, ast.Tuple) else []
    values = dict(zip(names, cells, strict=False))
    if names == ["output_pair"] and len(cells) == 2 and None not in cells:
        yield Case(str(cells[0]), str(cells[1]), "incorrect" not in test)
    elif {"gold", "pred"} <= values.keys() and "language" not in values:
        verdict = values.get("expected", values.get("result"))
        if isinstance(values["gold"], str) and isinstance(values["pred"], str) and verdict is not None:
            yield Case(values["gold"], values["pred"], bool(verdict))


def unittests(source: str) -> Iterator[Case]:
    """Read unit tests that assign two texts and assert that they are equal or not."""
    for function in ast.walk(ast.parse(source)):
        if isinstance(function, ast.FunctionDef) and function.name.startswith("test"):
            texts = [_literal(s.value) for s in function.body if isinstance(s, ast.Assign)]
            if len(texts) == 2:
                yield Case(str(texts[0]), str(texts[1]), "assertTrue" in ast.dump(function))


def documented(source: str) -> Iterator[Case]:
    """Read `test_eq(evaluator.eq(gold, prediction), verdict)` from the code blocks of a page."""
    for block in _PYTHON_BLOCK.findall(source):
        for call in ast.walk(ast.parse(block)):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "test_eq" and len(call.args) == 2:
                inner, verdict = call.args
                if isinstance(inner, ast.Call) and ast.unparse(inner.func) == "evaluator.eq":
                    texts = [_literal(argument) for argument in inner.args[:2]]
                    if all(isinstance(text, str) for text in texts):
                        yield Case(str(texts[0]), str(texts[1]), bool(_literal(verdict)))


#: Name, repository, files, how they are read.
SUITES = (
    ("math-verify", "huggingface/Math-Verify", "tests/test_*.py", parametrized),
    ("lighteval", "huggingface/lighteval", "tests/unit/metrics/test_extractive_match.py", parametrized),
    ("NeMo-Skills", "NVIDIA/NeMo-Skills", "tests/test_math_equal.py", parametrized),
    ("SymEval", "tongyx361/symeval", "README.md", documented),
    ("MATH", "hendrycks/math", "modeling/math_equivalence_test.py", unittests),
)


def _literal(node: ast.expr) -> object:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


def read(folder: Path, repository: str, pattern: str, reader: Callable[[str], Iterator[Case]]) -> list[Case]:
    """Return the distinct cases of a suite in the order of its files."""
    checkout = folder / repository.partition("/")[2]
    files = sorted(checkout.glob(pattern))
    if not files:
        raise SystemExit(f"no {pattern} in {checkout}; clone github.com/{repository} into {folder}")
    return list(dict.fromkeys(case for file in files for case in reader(file.read_text(encoding="utf-8"))))


def ours(case: Case) -> bool:
    """Our verdict. A prediction without a final answer that we can find counts as the answer itself."""
    response = case.prediction
    if extract(response) is None:
        response = f"\\boxed{{{_formula(response)} }}"
    return grade(extract(case.gold) or case.gold, response).correct


def _formula(text: str) -> str:
    """Return the last formula of a text; the text if it has none."""
    found = _FORMULA.findall(text)
    return next(part for part in found[-1] if part).strip() if found else text


def main() -> None:
    """Print the agreement of each suite."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder with the checkouts")
    parser.add_argument(
        "--differences", action="store_true", help="print the cases where the verdicts differ"
    )
    arguments = parser.parse_args()
    total = agreed = 0
    for name, repository, pattern, reader in SUITES:
        cases = read(arguments.folder, repository, pattern, reader)
        differing = [case for case in cases if ours(case) != case.right]
        total, agreed = total + len(cases), agreed + len(cases) - len(differing)
        print(f"{name}: {len(cases) - len(differing)} of {len(cases)}")
        for case in differing if arguments.differences else []:
            wanted = "theirs accepts" if case.right else "theirs refuses"
            print(f"  {wanted} | {case.gold[-150:]!r} | {case.prediction[-150:]!r}")
    print(f"all: {agreed} of {total}")


if __name__ == "__main__":
    main()
