"""`ecrl export`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml  # type: ignore[import-untyped]
from transformers import AutoModelForCausalLM

from ecrl.cli import main
from tests.support.hub import hub
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
    card = (tmp_path / "out" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers" and "base_model" not in front  # it was a local folder
    assert "| iterations | 1, each of 8 problems × 4 answers |" in card and "| strategies | none |" in card
    assert "| `policy/entropy` |" in card


@pytest.mark.slow
def test_a_policy_is_pushed_with_its_card(finished_run: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "ecrl",
        "export",
        str(finished_run),
        "--push",
        "me/policy",
        "checkpoint=2",
    ]
    with hub() as server:
        there = os.environ | {"HF_ENDPOINT": server.url, "HF_TOKEN": "hf_mine", "HF_HUB_OFFLINE": "0"}
        done = subprocess.run(command, env=there, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert f"Pushed: {server.url}/me/policy" in done.stdout
    assert server.made == ["policy"] and server.tokens == {"Bearer hf_mine"}
    policy = finished_run / "policy" / "model.safetensors"
    assert server.files["model.safetensors"] == policy.read_bytes()
    assert b"kl_cov" in server.files["README.md"]
    # Nobody listens there any more.
    done = subprocess.run(command, env=there, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith(f"ecrl: me/policy could not be pushed to {server.url}: ")


def test_what_cannot_be_pushed_is_refused_before_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("ecrl.training.hub.get_token", lambda: None)
    (tmp_path / "config.yaml").touch()
    for words, says in {
        ("--push", "me/policy"): "needs a token of the Hugging Face hub: `hf auth login`, or set HF_TOKEN.",
        ("--push", "a/b/c"): "is no name of a model on the hub:",
        ("--push",): "--push needs a name: --push USER/NAME.",
        (): "`ecrl export RUN OUTPUT` takes two folders, got 1;",
    }.items():
        assert main(["export", str(tmp_path), *words]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert says in line
