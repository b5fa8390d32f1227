"""A tiny policy on disk, and the shortest run that trains it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from ecrl.compose import build_config
from ecrl.config import Config, ModelConfig
from ecrl.embedded import build_model, build_tokenizer
from ecrl.run import quiet

TINY = [
    "env=tests.tasks:test/Digits-v0",
    "rollout.prompts=8",
    "rollout.group_size=4",
    "rollout.max_new_tokens=8",
    "update.minibatches=2",
    "update.lr=1e-3",
    "eval.every=0",
    "log.progress=false",
    "strategy=[]",
]


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


@pytest.fixture
def tiny(tiny_model: Path, tmp_path: Path) -> Callable[..., Config]:
    """Compose the configuration of a tiny run, with overrides."""

    def compose(*overrides: str, config_dir: Path | None = None) -> Config:
        base = [*TINY, f"model.path={tiny_model}", f"run_dir={tmp_path / 'run'}"]
        return build_config([*base, *overrides], config_dir)

    return compose
