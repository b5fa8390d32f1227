"""Models and tokenizers that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import Mistral3Config, Mistral3ForConditionalGeneration

from ecrl.errors import UsageError
from ecrl.policy.model import empty_policy, load_policy
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


def test_a_model_that_also_takes_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mistral Small 3.1 is one."""
    sizes = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = {"model_type": "mistral", "vocab_size": 258, "num_key_value_heads": 1, "head_dim": 16, **sizes}
    config = Mistral3Config(
        text_config=text, vision_config={"model_type": "pixtral", "head_dim": 16, **sizes}
    )
    Mistral3ForConditionalGeneration(config).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    says = "type 'mistral3', for which transformers has no causal LM"
    for load in (load_policy, empty_policy):
        with pytest.raises(UsageError, match=says):
            load(str(tmp_path), build_tokenizer())
    refused(capsys, "train", f"model.path={tmp_path}", f"run_dir={tmp_path}/r")
    assert not (tmp_path / "r").exists()
