"""The figures of docs/strategies.md are drawn from the runs of a sweep; unfinished ones are left out."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from pathlib import Path

from tests.support.paths import ROOT


def write_run(folder: Path, entropy: float) -> None:
    """A run of three iterations with a validation before the first and after the last."""
    folder.mkdir()
    rows = [{"iteration": i, "policy/entropy": entropy / i} for i in (1, 2, 3)]
    rows[-1]["val/countdown/avg@16"] = 0.4
    rows.insert(0, {"iteration": 0, "val/countdown/avg@16": 0.2})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "config.yaml").write_text("")


def test_finished_methods_are_drawn_beside_grpo(tmp_path: Path) -> None:
    for arm, entropy in {"grpo": 0.6, "clip_cov_small": 0.5, "opo": 0.4}.items():
        write_run(tmp_path / f"{arm}-0", entropy)
    for arm in ("grpo", "clip_cov_small"):
        (tmp_path / f"{arm}-0" / "summary.json").write_text("{}")
    output = tmp_path / "figures"
    words = [
        sys.executable,
        str(ROOT / "benchmarks" / "method_figures.py"),
        str(tmp_path),
        "--output",
        str(output),
    ]
    done = subprocess.run(words, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "2 methods drawn" in done.stdout
    assert sorted(path.name for path in output.iterdir()) == ["clip_cov_small.svg", "curves.csv"]
    assert "avg@16" in (output / "clip_cov_small.svg").read_text()
    rows = list(csv.DictReader((output / "curves.csv").open()))
    assert [r["value"] for r in rows if r["method"] == "clip_cov_small"] == [
        "0.5",
        "0.25",
        "0.1667",
        "0.2",
        "0.4",
    ]
