"""Maths: the grading table, hostile answers, the environment and the published schemas."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

import ecrl.envs  # noqa: F401  (registers the environments)
from ecrl.config.compose import build_config
from ecrl.envs.datasets.math_problems import MathEnv, gold
from ecrl.envs.grading import equivalent, extract, grade
from ecrl.envs.verifiers.pool import VerifierCrashError, VerifierPool, VerifierTimeoutError
from ecrl.errors import UsageError
from tests.support import verifier_faults as faults
from tests.support.grading_table import PAIRS

HOSTILE = {
    "tower": "\\boxed{9^{9^{9^{9^{9}}}}}",
    "plain tower": "\\boxed{9**9**9**9**9}",
    "tower with spaces": "\\boxed{9 ^ { 9 ^ { 9 ^ 9 } } }",
    "power of a power": "\\boxed{((((9^{99})^{99})^{99})^{99})^{99}}",
    "large power": "\\boxed{2^{1000000000}}",
    "small power of a large one": "\\boxed{(10^{300})^{10^{300}}}",
    "million digits": "\\boxed{" + "9" * 1_000_000 + "}",
    "million decimals": "\\boxed{0." + "3" * 1_000_000 + "}",
    "exponent": "\\boxed{1e999999999}",
    "exponent in words": "\\boxed{1 \\times 10^{999999999}}",
    "braces": "\\boxed{" + "{" * 100_000 + "1" + "}" * 100_000 + "}",
    "open braces": "\\boxed{" * 100_000,
    "brackets": "\\boxed{" + "(" * 900 + "1" + ")" * 900 + "}",
    "fractions": "\\boxed{" + "\\frac{1}{" * 150 + "2" + "}" * 150 + "}",
    "roots": "\\boxed{" + "\\sqrt{" * 200 + "2" + "}" * 200 + "}",
    "sympy": "\\boxed{__import__('os').system('touch /tmp/ecrl_was_here')}",
    "eval": "\\boxed{eval(open('/etc/passwd').read())}",
    "lambda": "\\boxed{(lambda: exit())()}",
    "factorial": "\\boxed{100000000!}",
    "factorials": "\\boxed{50!!!!!!}",
    "factorial of a bracket": "\\boxed{(10^9)!}",
    "sum": "\\boxed{\\sum_{n=1}^{10^{12}} \\frac{1}{n^3}}",
    "product": "\\boxed{\\prod_{n=1}^{1000000} n}",
    "integral": "\\boxed{\\int_0^1 e^{-x^{17}} \\sin(x^{19}) dx}",
    "limit": "\\boxed{\\lim_{x \\to 0} \\frac{\\sin(x^{99})}{x^{99}}}",
    "binomial": "\\boxed{\\binom{10^{9}}{5 \\cdot 10^8}}",
    "matrix": "\\boxed{\\begin{pmatrix}" + "1 & " * 5000 + "1\\end{pmatrix}}",
    "small matrix power": "\\boxed{\\begin{pmatrix}1&1\\\\1&0\\end{pmatrix}^{1000000}}",
    "sets in sets": "\\boxed{" + "\\{" * 300 + "1" + "\\}" * 300 + "}",
    "lines after a phrase": "the answer is" + "\n" * 1_000_000,
    "many signs": "\\boxed{1" + "\\pm 1" * 300 + "}",
    "a chain": "\\boxed{" + "<".join(["x"] * 900) + "}",
    "root of a power": "\\boxed{(\\sqrt{2}+\\sqrt{3}+\\sqrt{5})^{300}-1}",
    "list": "\\boxed{" + "1," * 900 + "1}",
    "megabytes": "x" * 8_000_000 + "\\boxed{5}",
    "megabytes of boxes": "\\boxed{1}" * 500_000,
    "megabytes of hashes": "#### 1\n" * 500_000,
    "megabytes of phrases": "the answer is " * 300_000,
    "spaces": "\\boxed{" + " " * 1_000_000 + "}",
    "backslashes": "\\boxed{" + "\\" * 1_900 + "}",
    "commas": "\\boxed{" + "," * 1_900 + "}",
    "expansion": "\\boxed{(a+b+c+d+e+f)^{300}}",
    "names": "\\boxed{" + "+".join(f"x_{{{i}}}" for i in range(90)) + "}",
    "surrogates": "\\boxed{\ud800\udfff}",
    "zero bytes": "\\boxed{\x00\x01}",
    "nan": "\\boxed{nan}",
    "division by zero": "\\boxed{\\frac{1}{0}}",
    "zero to the zero": "\\boxed{\\frac{0}{0}}",
    "binomial of another size": "\\boxed{\\dbinom{999999999}{499999999}}",
    "exponentials": "\\boxed{\\exp(\\exp(10^{30}))}",
    "tower of raised digits": "\\boxed{9⁹⁹⁹⁹⁹⁹⁹⁹⁹}",
    "order of complex numbers": "\\boxed{3 \\le 4i}",
    "brackets of intervals": "\\boxed{" + "]1," * 600 + "}",
    "emphasis": "answer: " + "*" * 1_000_000,
    "phrases in a line": "the answer is 6. " * 200_000,
    "turned around": "\\boxed{\u202e5\u202c1}",
}  # fmt: skip


def mistakes(pairs: list[tuple[str, str, str, bool]]) -> tuple[list[Any], list[Any]]:
    """False accepts and false rejects."""
    accepted = [p for p in pairs if grade(p[1], p[2]).correct and not p[3]]
    rejected = [p for p in pairs if not grade(p[1], p[2]).correct and p[3]]
    return accepted, rejected


def test_the_grading_table() -> None:
    assert len(PAIRS) >= 300
    accepted, rejected = mistakes(PAIRS)
    assert accepted == []
    assert len(rejected) / len(PAIRS) <= 0.03, rejected


@pytest.mark.parametrize(
    "answer", ["1/3", "\\sqrt{2}", "x+1", "\\{1,2\\}", "(1,2]", "\\text{No}", "50\\%", "7_8", "B"]
)
def test_every_answer_equals_itself_and_no_other(answer: str) -> None:
    assert equivalent(answer, answer)
    assert not equivalent(answer, "17")


def test_tolerance_is_for_decimal_gold_answers_only() -> None:
    assert equivalent("3.14159", "3.1415901", 1e-6) and not equivalent("3.14159", "3.1416", 1e-6)
    assert equivalent("3.14159", "3.1416", 1e-4)
    assert not equivalent("\\pi", "3.14159265", 1e-2) and not equivalent("3", "3.0000001", 1e-2)


def test_extraction_rules_in_their_order() -> None:
    assert extract("#### 1 \\boxed{2} the answer is 3") == "2"
    assert extract("#### 1\nthe answer is 3") == "1"
    assert extract("The answer is 3. I am sure.") == "3"
    assert extract("3") is None


@pytest.fixture(scope="module")
def pool() -> Any:
    made = VerifierPool(1, memory=500)
    made.run(grade, "\\sqrt{2}", "\\boxed{\\sqrt{3}}")  # sympy is loaded
    yield made
    made.close()


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("right", ["5", "x^2+\\sqrt{2}"])
def test_hostile_answers_score_nothing_in_time_and_memory(name: str, right: str, pool: VerifierPool) -> None:
    wanted = name == "megabytes" and right == "5"  # a right answer at the end of a long text
    verdict, seconds = pool.run(faults.timed, grade, right, HOSTILE[name], timeout=120.0)
    assert verdict.correct is wanted
    assert seconds < 5  # of the worker's own: the machine may be busy
    assert not Path("/tmp/ecrl_was_here").exists()


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "f.jsonl"
    rows = [{"problem": f"What is ${i}+1$?", "answer": str(i + 1)} for i in range(100)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_by_name(file: str) -> None:
    env = gym.make("ecrl/Math-v0", path=file, problem_column="problem", answer_column="answer")
    prompt, _ = env.reset(options={"index": 6})
    assert "What is $6+1$?" in prompt and "\\boxed{}" in prompt
    _, reward, terminated, truncated, info = env.step("So \\boxed{7.0}.")
    assert (reward, terminated, truncated, info["answer"]) == (1.0, True, False, "7.0")
    env.reset(options={"index": 6})
    assert env.step("So \\boxed{8}.")[1] == 0.0
    for text in HOSTILE.values():
        env.reset(options={"index": 6})
        assert env.step(text)[1] == 0.0


def test_a_grader_that_hangs_or_dies_is_counted(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    env = MathEnv(path=file)
    for error, name in ((VerifierTimeoutError("late"), "timeout"), (VerifierCrashError("dead"), "crash")):

        def judge(self: MathEnv, answer: str, response: str, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(MathEnv, "_judge", judge)
        env.reset(seed=0)
        _, reward, *_, info = env.step("\\boxed{1}")
        assert reward == 0.0 and info["metrics"][name] == 1.0


def test_gold_answers() -> None:
    assert gold(3) == "3" and gold(2.5) == "2.5" and gold(["$12$"]) == "12"
    assert gold("48/2 = 24 clips\n#### 24") == "24"
    assert gold("so \\boxed{\\frac12}") == "\\frac12"
    with pytest.raises(ValueError, match="no answer"):
        gold("so \\boxed{")


def test_bad_settings_are_one_line(file: str) -> None:
    with pytest.raises(UsageError, match="template needs"):
        MathEnv(path=file, template="Solve.")
    with pytest.raises(UsageError, match="no column 'question'; found problem, answer"):
        MathEnv(path=file, problem_column="question")


#: A row of each published data set, as its card documents it.
SCHEMAS: dict[str, list[dict[str, Any]]] = {
    "dapo_math_17k": [
        {
            "data_source": "math_dapo",
            "prompt": [{"role": "user", "content": "What is 3+4? The last line should be Answer: $Answer"}],
            "ability": "MATH",
            "reward_model": {"ground_truth": "7", "style": "rule-lighteval/MATH_v2"},
            "extra_info": {"index": "9a9b"},
        }
    ],
    "eurus2_math": [
        {
            "data_source": "numina",
            "prompt": [{"role": "system", "content": "Think."}, {"role": "user", "content": "What is 3+4?"}],
            "ability": ability,
            "reward_model": {"ground_truth": truth, "style": "rule"},
        }
        for ability, truth in (("code", "{}"), ("math", "7"))
    ],
    "gsm8k": [{"question": "What is 3+4?", "answer": "3+4=<<3+4=7>>7\n#### 7"}],
    "math500": [
        {"problem": "What is 3+4?", "solution": "\\boxed{7}", "answer": "7", "subject": "Algebra", "level": 1}
    ],
    "aime24": [
        {"id": 60, "problem": "What is 3+4?", "solution": "…", "answer": "007", "url": "", "year": "2024"}
    ],
    "aime25": [{"problem": "What is 3+4?", "answer": "7", "id": "0"}],
    "amc": [{"id": 0, "problem": "What is 3+4?", "answer": 7.0, "url": ""}],
    "omni_math": [
        {"domain": ["A"], "difficulty": 8.0, "problem": "What is 3+4?", "solution": "", "answer": "7"}
    ],
    "olympiad_bench": [{"id": 1, "question": "What is 3+4?", "final_answer": ["$7$"], "unit": None}],
    "minerva": [{"question": "What is 3+4?", "solution": "", "answer": "7"}],
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_presets_fit_the_published_schemas(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in SCHEMAS[name]))
    kwargs = dict(build_config([f"env={name}"]).env.kwargs) | {"path": str(path)}
    env = MathEnv(**kwargs)
    prompt, _ = env.reset(options={"index": 0})
    assert "What is 3+4?" in prompt
    response = "Answer: $7$" if name == "dapo_math_17k" else "\\boxed{7}"
    assert env.step(response)[1] == 1.0
    env.reset(options={"index": 0})
    assert env.step("\\boxed{8}")[1] == 0.0


def test_worked_solutions(file: str) -> None:
    env = MathEnv(path=file)
    _, info = env.reset(seed=3)
    rng = np.random.default_rng(0)
    assert env.score(info["problem"], env.solution(info["problem"], rng)).reward == 1.0
    wrong = [
        env.score(info["problem"], env.solution(info["problem"], rng, correct=False)).reward for _ in range(9)
    ]
    assert sum(wrong) < 3
