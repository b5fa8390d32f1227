"""Math-v0: by name, its settings, and the schemas of the published data sets."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import ecrl.envs  # noqa: F401  (registers the environments)
from ecrl.config.compose import build_config
from ecrl.envs.datasets.math_problems import MathEnv, gold
from ecrl.envs.verifiers.pool import VerifierCrashError, VerifierTimeoutError
from ecrl.errors import UsageError
from tests.support.published_rows import MATHS


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


@pytest.mark.parametrize("name", MATHS)
def test_presets_fit_the_published_schemas(name: str, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in MATHS[name]))
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
