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
from tests.support.published_rows import PROGRAMS

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


@pytest.mark.parametrize("name", PROGRAMS)
def test_presets_fit_the_published_schemas(name: str, tmp_path: Path) -> None:
    row, right, wrong = PROGRAMS[name]
    kwargs = dict(build_config([f"env={name}"]).env.kwargs) | {"path": rows_file(tmp_path / "r.jsonl", row)}
    env = CodeEnv(**kwargs)
    for program, expected in ((right, 1.0), (wrong, 0.0), ("import os\nos._exit(0)", 0.0)):
        env.reset(options={"index": 0})
        assert env.step(f"```python\n{program}\n```")[1] == expected
