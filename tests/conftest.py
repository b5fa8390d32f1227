"""A tiny policy on disk, and the shortest run that trains it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from ecrl.config.compose import build_config
from ecrl.config.schema import Config, ModelConfig
from ecrl.policy.tiny_model import build_model, build_tokenizer
from ecrl.training.trainer import quiet
from tests.support.chat_model import chat_data, chat_model  # noqa: F401  # fixtures
from tests.support.runs import run
from tests.support.tiny import FINISHED, LEARNING, STACK, TINY, VALIDATED


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    # Tiny tensors: threads only add noise to the timing, and bits stay the same on any machine.
    torch.set_num_threads(1)
    quiet()


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer policy with a character tokenizer, in HF format."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer = build_tokenizer()
    build_model(ModelConfig(hidden_size=32, layers=2, heads=2), tokenizer, seed=0).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def families(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Random policies of other architectures on disk: grouped heads, head norms, untied embeddings."""
    sizes: dict[str, Any] = {
        "vocab_size": 258,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "eos_token_id": 1,
        "pad_token_id": 0,
        "bos_token_id": None,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = {
            "qwen3": Qwen3ForCausalLM(Qwen3Config(**sizes, tie_word_embeddings=True)),
            "llama": LlamaForCausalLM(LlamaConfig(**sizes)),
            "mistral": MistralForCausalLM(MistralConfig(**sizes)),
        }
    paths = {name: tmp_path_factory.mktemp("families") / name for name in models}
    for name, model in models.items():
        model.save_pretrained(paths[name])
        build_tokenizer().save_pretrained(paths[name])
    return paths


@pytest.fixture
def tiny(tiny_model: Path, tmp_path: Path) -> Callable[..., Config]:
    """Compose the configuration of a tiny run, with overrides."""

    def compose(*overrides: str, config_dir: Path | None = None) -> Config:
        base = [*TINY, f"model.path={tiny_model}", f"run_dir={tmp_path / 'run'}"]
        return build_config([*base, *overrides], config_dir)

    return compose


@pytest.fixture(scope="session")
def validated(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of ten iterations that learns and is validated after each; to be read only."""
    base = [*TINY, f"model.path={tiny_model}", *LEARNING, *VALIDATED]
    return run(base, tmp_path_factory.mktemp("validated") / "run", "iterations=10")


@pytest.fixture(scope="session")
def finished_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of two iterations with two strategies, validation and samples; to be read only."""
    base = [*TINY, f"model.path={tiny_model}", *STACK, *FINISHED]
    return run(base, tmp_path_factory.mktemp("finished") / "run")
