"""Tests with the real vLLM: `make test-vllm`. What needs vLLM or Ray is collected only where these are."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from ecrl.config.schema import ModelConfig
from ecrl.policy.tiny_model import build_model, build_tokenizer
from tests.support.scripted_server import TOKEN

collect_ignore_glob = [] if find_spec("vllm") else ["test_colocated*", "test_server*"]
collect_ignore_glob += [] if find_spec("vllm") and find_spec("ray") else ["test_ray*"]


@pytest.fixture(scope="session", autouse=True)
def secret() -> Iterator[None]:
    """Servers and runs of these tests share a secret."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ECRL_SERVER_TOKEN", TOKEN)
        yield


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As in the other tests, but with heads of size 32, the least that vLLM's CPU attention has."""
    path = tmp_path_factory.mktemp("model") / "tiny"
    tokenizer = build_tokenizer()
    build_model(ModelConfig(hidden_size=64, layers=2, heads=2), tokenizer, seed=0).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
