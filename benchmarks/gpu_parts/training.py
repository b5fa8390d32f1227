"""Part c: whole runs of `ecrl train` on the tiny model, and whether a resumed one ends with the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ecrl.runs.metrics_file import is_wall_time
from gpu_parts import ROOT
from gpu_parts.report import Report, Row

NEEDED = ("hydra", "lightning", "gymnasium", "tensorboard")
PRECISIONS = ("32-true", "bf16-mixed")
LIMIT = 240.0  # seconds of one command
SMOKE = [
    "env=arithmetic", "model.hidden_size=32", "model.layers=1", "model.heads=2", "warmup.steps=5",
    "rollout.prompts=4", "rollout.group_size=2", "rollout.max_new_tokens=8", "eval.problems=2", "eval.k=2",
]  # fmt: skip


def measure(report: Report) -> None:
    for precision in PRECISIONS:
        label = {"precision": precision}
        report.add("Stopped and resumed", label, partial(resumed, precision, report.smoke))


def resumed(precision: str, smoke: bool) -> Row:
    """Train 4 iterations at once, and 2 + 2; compare metrics and weights."""
    for name in NEEDED:
        if find_spec(name) is None:
            raise ModuleNotFoundError(name, name=name)
    words = [
        f"trainer.precision={precision}",
        "log.progress=false",
        "eval.every=2",
        *(SMOKE if smoke else ()),
    ]
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder) / "whole", Path(folder) / "parts"
        ecrl_train(*words, f"run_dir={whole}", "iterations=4")
        ecrl_train(*words, f"run_dir={parts}", "iterations=2")
        ecrl_train(f"resume={parts}", "iterations=4")
        one, other = rows(whole), rows(parts)
        weights = [(run / "policy" / "model.safetensors").read_bytes() for run in (whole, parts)]
    names = sorted({name for a, b in zip(one, other, strict=True) for name in differences(a, b)})
    seconds = f"{one[-1]['time/total']:.2f}"
    if names or weights[0] != weights[1]:
        what = ", ".join(names[:3]) or "the weights"
        raise RuntimeError(f"the resumed run differs in {what} ({len(names)} metrics)")
    return {"outcome": "the same bits", "rows": str(len(one)), "seconds of the last iteration": seconds}


def ecrl_train(*words: str) -> None:
    """Run it from this checkout.

    Raises:
        RuntimeError: it failed; with its last line.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", "ecrl", "train", *words],
        capture_output=True, text=True, timeout=LIMIT, env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no message"])[-1])


def rows(run_dir: Path) -> list[dict[str, Any]]:
    """Read the metrics."""
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def differences(one: dict[str, Any], other: dict[str, Any]) -> set[str]:
    """Return the metrics that differ, but for those of the clock."""
    return {name for name in one if one[name] != other.get(name) and not is_wall_time(name)}
