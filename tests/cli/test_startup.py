"""What a command need not wait for: torch and Lightning take seconds to import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT

LIGHT = [
    ["train", "--help"],
    ["eval", "--help"],
    ["warmup", "--help"],
    ["train", "iteration=3"],
    ["train", "rollout.promts=3"],
    ["train", "strategy=[clip_cv]"],
    ["train", "-m", "seed=1,2", "rollout.promts=3"],
    ["train", "eval.k=0"],
    ["eval", "eval.l=3"],
    ["trian"],
    ["export"],
    ["export", "no_such_run", "output"],
    ["train", "run_dir=."],
    ["train", "resume=no_such_run"],
    ["rollouts", ".", "where=reward"],
    ["replay", ".", "iteration=1", "strategy=[kl_cov]"],
    ["export", "--help"],
    ["sweep", "--help"],
    ["sweep", "no_such_sweep"],
    ["doctor", "--help"],
    ["plan", "--help"],
    ["plan", "gpu=h1000"],
    ["plan", "rollout.promts=3"],
    ["report", "--help"],
    ["rollouts", "--help"],
    ["rollouts", "no_such_run"],
    ["replay", "--help"],
    ["replay", "no_such_run", "iteration=1"],
    ["strategies", "--help"],
    ["envs"],
    ["strategies"],
    ["strategies", "show", "kl_cov"],
    ["strategies", "show", "prime"],
]

PROGRAM = f"""
import sys
from ecrl.cli import main
for words in {LIGHT!r}:
    main(words)
    assert "torch" not in sys.modules, words
"""


def test_help_lists_and_mistakes_come_without_torch(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").touch()
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert "Did you mean 'rollout.prompts'?" in run.stderr
