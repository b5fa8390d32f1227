"""Models and tokenizers that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecrl.policy.tiny_model import build_tokenizer
from tests.support.cli import refused


def test_a_directory_without_a_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    build_tokenizer().save_pretrained(tmp_path)
    assert "holds no model" in refused(capsys, "train", f"model.path={tmp_path}", f"run_dir={tmp_path}/r")
    (tmp_path / "tokenizer_config.json").unlink()
    assert "holds no tokenizer" in refused(capsys, "train", f"model.path={tmp_path}", f"run_dir={tmp_path}/r")
    assert not (tmp_path / "r").exists()


def test_a_tokenizer_without_eos(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for file in tiny_model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    settings["eos_token"] = None
    path.write_text(json.dumps(settings))
    assert "has no EOS token" in refused(capsys, "train", f"model.path={tmp_path}")
