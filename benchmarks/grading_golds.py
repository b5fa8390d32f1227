"""Whether our grader knows published gold answers that are rewritten, and refuses those that are changed.

    clone QwenLM/Qwen2.5-Math and MARIO-Math-Reasoning/MARIO_EVAL from github.com into one folder, then
    python benchmarks/grading_golds.py FOLDER --sample 110 --seed 1

Of MATH, Minerva, OlympiadBench and College Math; plain integers are left out. They are rewritten as models
do (`\\dfrac`, other spaces and braces, without name or unit); changed are a digit, a sign, the order of a
pair. The cases where the grader errs are printed: some are no answers but essays.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from ecrl.envs.grading import extract, grade

_DATA = "Qwen2.5-Math/evaluation/data"
_INTEGER = re.compile(r"[-$]*\d+(?:\.\d+)?\$*")


def golds(folder: Path) -> dict[str, list[str]]:
    """Return the distinct gold answers of each data set, sorted."""

    def rows(path: str) -> list[dict[str, object]]:
        return [json.loads(line) for line in (folder / path).read_text(encoding="utf-8").splitlines()]

    annotated = json.loads((folder / "MARIO_EVAL/data/math_testset_annotation.json").read_text("utf-8"))
    found: dict[str, list[object]] = {
        "MATH": [row["answer"] for row in annotated],
        "Minerva": [extract(str(row["solution"])) for row in rows(f"{_DATA}/minerva_math/test.jsonl")],
        "OlympiadBench": [row["final_answer"] for row in rows(f"{_DATA}/olympiadbench/test.jsonl")],
        "College Math": [row["answer"] for row in rows(f"{_DATA}/college_math/test.jsonl")],
    }
    texts = {name: {_text(answer) for answer in answers if answer} for name, answers in found.items()}
    return {name: sorted(t for t in some if not _INTEGER.fullmatch(t)) for name, some in texts.items()}


def _text(answer: object) -> str:
    text = ", ".join(answer) if isinstance(answer, list) else str(answer)
    return text if "\\$" in text else text.replace("$", "")


def rewritten(gold: str) -> Iterator[str]:
    """Yield the answer in other notation."""
    yield re.sub(r"\\frac(?![a-zA-Z])", r"\\dfrac", gold)
    yield re.sub(r"\^(\d)(?!\d)", r"^{\1}", gold)
    if not re.search(r"\\text|\\begin|!|\d,\d{3}", gold):
        yield re.sub(r"(?<=[-+=,])|(?=[-+=])", " ", gold)
    if "\\!" in gold:
        yield gold.replace("\\!", "")
    if fraction := re.fullmatch(r"\\frac\{(-?\d+)\}\{(\d+)\}", gold):
        yield "/".join(fraction.groups())
    if named := re.fullmatch(r"[a-z]\s*=\s*([^=,]+)", gold):
        yield named.group(1)
    if re.fullmatch(r"(?:[-+\d{}^ ]|\\(?:frac|sqrt))+", gold):
        yield f"z = {gold}"
    if measured := re.fullmatch(r"(.*[\d}])\s*\\(?:text|mbox)\{[^{}]*\}(?:\^\{?\d\}?)?", gold):
        yield measured.group(1)
    if gold.count("(") == gold.count(")") == 1 and "\\left" not in gold:
        yield gold.replace("(", "\\left(").replace(")", "\\right)")


def changed(gold: str, chance: random.Random) -> Iterator[str]:
    """Yield answers that are nearly the gold one."""
    if digits := [match.start() for match in re.finditer(r"\d", gold)]:
        place = chance.choice(digits)
        yield gold[:place] + str((int(gold[place]) + chance.randint(1, 8)) % 9 + 1) + gold[place + 1 :]
    if signs := [match.start() for match in re.finditer(r"[-+]", gold)]:
        place = chance.choice(signs)
        yield gold[:place] + "-+"[gold[place] == "-"] + gold[place + 1 :]
    if pair := re.fullmatch(r"\(([^,()]+),([^,()]+)\)", gold):
        yield f"({pair.group(2)}, {pair.group(1)})"


def main() -> None:
    """Print the counts and the errors."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path, help="the folder with the checkouts")
    parser.add_argument("--sample", type=int, default=110, help="gold answers of each data set")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    chance = random.Random(arguments.seed)
    for name, answers in golds(arguments.folder).items():
        sample = chance.sample(answers, min(arguments.sample, len(answers)))
        right = [(gold, answer) for gold in sample for answer in rewritten(gold) if answer != gold]
        wrong = [(gold, answer) for gold in sample for answer in changed(gold, chance) if answer != gold]
        rejects = [pair for pair in right if not grade(pair[0], f"\\boxed{{{pair[1]}}}").correct]
        accepts = [pair for pair in wrong if grade(pair[0], f"\\boxed{{{pair[1]}}}").correct]
        print(f"{name}: {len(rejects)} of {len(right)} rewritten ones refused, ", end="")
        print(f"{len(accepts)} of {len(wrong)} changed ones accepted")
        for verdict, pairs in (("refused", rejects), ("accepted", accepts)):
            for gold, answer in pairs:
                print(f"  {verdict} | {gold[:120]} | {answer[:120]}")


if __name__ == "__main__":
    main()
