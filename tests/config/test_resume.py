"""What may change when a run goes on, and what may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ecrl.cli import main
from ecrl.config.compose import build_config
from tests.support.cli import refused


def test_what_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resume = f"resume={tmp_path}"
    path = tmp_path / "config.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(build_config([]))))
    for words, says in {
        ("iteration=3",): "Did you mean 'iterations'?",
        ("trainer.devces=2",): "Did you mean 'trainer.devices'?",
        ("update.lr=1",): "'update.lr' cannot change on resume",
        ("strategy.kl_cov.fraction=0.1",): "cannot change on resume",
        ("trainer.precision=bf16-mixed",): "cannot change on resume",
        ("engine._target_=x",): "cannot change on resume",
        ("iterations=many",): "many",
        ("--config-dir", str(tmp_path)): "--config-dir has no use",
    }.items():
        assert says in refused(capsys, "train", resume, *words)
    assert main(["train", "--cfg", resume, "iterations=7", "trainer.accelerator=cpu"]) == 0
    assert "iterations: 7" in capsys.readouterr().out
    moved = ["engine.batch_size=7", "env.kwargs.path=/new/train.jsonl"]
    assert main(["train", "--cfg", resume, *moved]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.engine.batch_size, shown.env.kwargs.path) == (7, "/new/train.jsonl")
    for text, says in {
        "": "holds no configuration",
        "- a": "holds no configuration",
        "a: [b: c": "cannot be read",
        "seed: 1\n": "objective is empty",
        "sed: 1\n": "sed",
    }.items():
        path.write_text(text)
        assert says in refused(capsys, "train", resume)
