"""The guide's environment, as it is written there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT


@pytest.mark.slow
def test_the_shortest_environment_works_as_written(tmp_path: Path) -> None:
    guide = (ROOT / "docs" / "guides" / "environment.md").read_text()
    code = re.findall(r"```python\n# (\S+)\n(.*?)```", guide, re.DOTALL)
    assert len(code) == 1
    file, text = tmp_path / code[0][0], code[0][1]
    assert len([line for line in text.splitlines() if line.strip()]) < 15
    file.parent.mkdir()
    file.write_text(text)
    command = [sys.executable, "-m", "ecrl", "envs", "show", "mypkg.reverse:me/Reverse-v0"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "reverse " in done.stdout, done.stderr
    check = subprocess.run(
        [*command[:4], "check", command[-1]], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert check.returncode == 0 and "skip" in check.stdout, check.stdout + check.stderr
