"""`benchmarks/gpu.py`: that its comparisons can fail, and that all its parts run on a CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from ecrl.policy.lm_head import tiles
from ecrl.policy.lm_head.eager import Eager
from ecrl.policy.lm_head.tiles import Tile, Upstream
from tests.support.paths import ROOT

SCRIPT = ROOT / "benchmarks" / "gpu.py"
PARTS = ["checks", "speed", "training", "remedies", "large"]


class Fused(Eager):
    """Stands for the Triton kernels: torch's operations, and a gradient that is off by a factor."""

    factor = 1.0

    def grad_logits(self, tile: Tile, upstream: Upstream) -> torch.Tensor:
        return super().grad_logits(tile, upstream) * self.factor


@pytest.mark.parametrize("factor", [1.0, 1.02])
def test_a_wrong_gradient_of_one_kernel_is_noticed(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from gpu_parts import checks

    def choose(device: torch.device, dtype: torch.dtype, elements: int) -> Eager:
        return (Fused if tiles.find_spec("triton") else Eager)(elements, dtype, device)

    monkeypatch.setattr(Fused, "factor", factor)
    monkeypatch.setattr(tiles, "choose_backend", choose)
    monkeypatch.setattr(tiles, "find_spec", lambda name: name)
    if factor == 1.0:
        assert checks.check_kernels()["largest relative difference"].startswith("0.0e+00")
        return
    with pytest.raises(RuntimeError, match=r"gradient of (hidden|weight|bias) differs by 2\.00e-02"):
        checks.check_kernels()


def lines(folder: Path, *parts: str) -> list[dict[str, Any]]:
    """Run parts from a folder that is not the checkout, and return their lines."""
    command = [sys.executable, str(SCRIPT), *parts, "--smoke", "--output", str(folder)]
    subprocess.run(command, cwd=folder, check=True, timeout=900, capture_output=True)
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(1000)
def test_all_parts_run_small_on_a_cpu(tmp_path: Path) -> None:
    got = lines(tmp_path)
    assert [line["row"] for line in got if "failed" in line["row"]] == []
    ended = [line["row"] for line in got if line["table"] == "Parts"]
    assert ended == [{"part": part, "outcome": "ended"} for part in PARTS]
    reasons = {line["row"]["left out"] for line in got if "left out" in line["row"]}
    assert all("GPU" in reason or "is not installed" in reason for reason in reasons)
    assert {"Checks", "Update", "Generation", "Remedies", "Stopped and resumed", "Weight sync"} <= {
        line["table"] for line in got
    }
    assert "### Weight sync" in (tmp_path / "results.md").read_text()


def test_a_checkout_need_not_be_installed(tmp_path: Path) -> None:
    code = f"import sys; sys.path[0] = {str(SCRIPT.parent)!r}; import gpu_parts, importlib.util as u; "
    code += "print(u.find_spec('ecrl').origin)"
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == str(ROOT / "ecrl" / "__init__.py")


def test_what_is_not_installed_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    from gpu_parts.report import Report

    def lacking() -> dict[str, str]:
        import no_such_package  # noqa: F401

        return {}

    report = Report(tmp_path, smoke=True, budget=60)
    assert not report.add("T", {"a": "1"}, lacking)
    assert not report.add("T", {"a": "2"}, lambda: {"b": str(1 // 0)})
    assert report.add("T", {"a": "3"}, lambda: {"b": "4"})
    assert not Report(tmp_path, smoke=True, budget=-1).add("T", {"a": "5"}, lambda: {"b": "6"})
    rows = [json.loads(line)["row"] for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert rows == [
        {"a": "1", "left out": "no_such_package is not installed"},
        {"a": "2", "failed": "ZeroDivisionError: integer division or modulo by zero"},
        {"a": "3", "b": "4"},
        {"a": "5", "left out": "no time left"},
    ]
