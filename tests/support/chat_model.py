"""The small chat model and the data files of `examples/small_chat_model.py`, for tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples.small_chat_model import write_data, write_model


@pytest.fixture(scope="session")
def chat_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``dapo_math_17k.jsonl`` and its like, in their published columns."""
    path = tmp_path_factory.mktemp("data")
    write_data(path)
    return path


@pytest.fixture(scope="session")
def chat_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Qwen2 with a byte-pair tokenizer and a chat template."""
    path = tmp_path_factory.mktemp("chat") / "model"
    write_model(path, hidden_size=32, layers=2)
    return path
