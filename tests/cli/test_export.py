"""`ecrl export`."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ecrl.cli import main
from tests.support.runs import run
from tests.support.tiny import TINY

LORA = ["model.lora.r=4", "model.lora.alpha=8", "update.lr=1e-2"]


@pytest.mark.parametrize("extra", [[], LORA])
def test_export_of_a_checkpoint_is_the_policy(extra: list[str], tiny_model: Path, tmp_path: Path) -> None:
    run_dir = run([*TINY, f"model.path={tiny_model}", *extra], tmp_path / "run", "iterations=1")
    assert main(["export", str(run_dir), str(tmp_path / "out")]) == 0
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "out").state_dict()
    policy = AutoModelForCausalLM.from_pretrained(run_dir / "policy").state_dict()
    assert all(torch.equal(exported[name], policy[name]) for name in policy)
    assert main(["export", str(run_dir), str(tmp_path / "out")]) == 2  # nothing is overwritten
