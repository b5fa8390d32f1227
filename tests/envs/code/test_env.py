"""Code-v0: by name, its rewards, and the schemas of the published data sets."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import ecrl.envs  # noqa: F401  (registers the environments)
from ecrl.config.compose import build_config
from ecrl.envs.code.env import CodeEnv, extract_program
from ecrl.errors import UsageError

pytestmark = pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")

DOUBLE = {
    "problem": "Print twice the input.",
    "tests": {"inputs": ["1\n", "5\n"], "outputs": ["2\n", "10\n"]},
}


def rows_file(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def file(tmp_path: Path) -> str:
    return rows_file(tmp_path / "f.jsonl", DOUBLE)


RESPONSES = {
    "```python\nprint(2 * int(input()))\n```": (1.0, 1.0),
    "print(2 * int(input()))": (1.0, 1.0),
    "```python\nx\n```\nBetter:\n```python\nprint(2 * int(input()))\n```\nDone.": (1.0, 1.0),
    "```python\nprint(2)\n```": (0.0, 0.5),
    "```python\nprint(int(input()))\n```": (0.0, 0.0),
    "```python\nraise SystemExit(0)\n```": (0.0, 0.0),
    "```python\nimport os; os._exit(0)\n```": (0.0, 0.0),
    "```python\nprint(2 * int(input())); raise ValueError\n```": (0.0, 0.0),
    "```python\nwhile True: pass\n```": (0.0, 0.0),
    "I cannot.": (0.0, 0.0),
    "": (0.0, 0.0),
}


@pytest.mark.parametrize("reward", ["all", pytest.param("pass_rate", marks=pytest.mark.slow)])
def test_by_name(reward: str, file: str) -> None:
    env = gym.make("ecrl/Code-v0", path=file, time_limit=1.0, memory_limit=128, reward=reward)
    for response, expected in RESPONSES.items():
        prompt, _ = env.reset(options={"index": 0})
        assert prompt.startswith("Print twice the input.")
        _, got, terminated, truncated, info = env.step(response)
        assert (terminated, truncated) == (True, False)
        assert got == expected[reward == "pass_rate"], response
        assert info["metrics"]["solved"] == expected[0]


def test_the_last_python_block_counts() -> None:
    assert extract_program("a\n```py\n1\n```\n```bash\nls\n```") == "1\n"
    assert extract_program("```python\n1") == "1"
    assert extract_program("1") == "1"


@pytest.mark.parametrize(
    ("kwargs", "part"),
    [({"sandbox": "docker"}, "bubblewrap"), ({"reward": "half"}, "all, pass_rate")],
)
def test_bad_settings_are_one_line(kwargs: dict[str, Any], part: str, file: str) -> None:
    with pytest.raises(UsageError, match=part):
        CodeEnv(path=file, **kwargs)


ADD = "def add(a, b):\n    return a + b"
#: A row of each published data set, as its card documents it, with a right and a wrong program.
SCHEMAS: dict[str, tuple[dict[str, Any], str, str]] = {
    "kodcode": (
        {
            "question": "Write add.",
            "test": "from solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n",
            "test_info": [{"function_name": "add", "function_declaration": "def add(a, b):"}],
            "solution": ADD,
        },
        ADD,
        ADD.replace("+", "-"),
    ),
    "acecode": (
        {"question": "Write add.", "test_cases": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"]},
        ADD,
        ADD.replace("+", "-"),
    ),
    "eurus2_code": (
        {
            "prompt": [{"role": "system", "content": "…"}, {"role": "user", "content": "Print twice the input."}],
            "ability": "code",
            "reward_model": {"ground_truth": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]}), "style": "rule"},
        },
        "print(2 * int(input()))",
        "print(int(input()))",
    ),
    "livecodebench": (
        {
            "question_content": "Print twice the input.",
            "starter_code": "",
            "public_test_cases": json.dumps([{"input": "1\n", "output": "2\n", "testtype": "stdin"}]),
            "private_test_cases": json.dumps([{"input": "4\n", "output": "8\n", "testtype": "stdin"}]),
            "metadata": "{}",
        },
        "print(2 * int(input()))",
        "print(2)",
    ),
    "humaneval_plus": (
        {
            "prompt": "def add(a, b):\n    \"\"\"Add.\"\"\"\n",
            "entry_point": "add",
            "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n    assert candidate(5, 5) == 10\n",
        },
        ADD,
        ADD.replace("+", "-"),
    ),
    "mbpp_plus": (
        {"prompt": "Write add.", "code": ADD, "test": "assert add(1, 2) == 3\nassert add(2, 2) == 4\n"},
        ADD,
        ADD.replace("+", "-"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_presets_fit_the_published_schemas(name: str, tmp_path: Path) -> None:
    row, right, wrong = SCHEMAS[name]
    kwargs = dict(build_config([f"env={name}"]).env.kwargs) | {"path": rows_file(tmp_path / "r.jsonl", row)}
    env = CodeEnv(**kwargs)
    for program, expected in ((right, 1.0), (wrong, 0.0), ("import os\nos._exit(0)", 0.0)):
        env.reset(options={"index": 0})
        assert env.step(f"```python\n{program}\n```")[1] == expected
