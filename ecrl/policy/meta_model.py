"""Builds the model on the meta device, to know its shapes before anything is loaded."""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from ecrl.config.schema import ModelConfig
from ecrl.errors import UsageError
from ecrl.policy.tiny_model import build_model, build_tokenizer


def meta_model(config: ModelConfig) -> nn.Module:
    """Build the model on the meta device, where parameters have shapes but no storage.

    Its parameters are float32; its configuration names the type of its files. The ``config.json`` is read
    from its directory or the hub cache. For the models of the shipped experiments, the published numbers are
    part of the package.

    Raises:
        UsageError: the model's configuration is not on this machine, or it is not a causal LM.
    """
    with torch.device("meta"):
        if config.path is None:
            return build_model(config, build_tokenizer(), seed=0)
        numbers = _hf_config(config.path)
        of_files = numbers.dtype
        try:
            model: Any = AutoModelForCausalLM.from_config(numbers, dtype=torch.float32)
        except ValueError as error:
            raise UsageError(f"model.path={config.path!r}: {str(error).splitlines()[0]}") from None
        model.config.dtype = of_files
        policy: nn.Module = model
        return policy


def model_config(config: ModelConfig) -> Any:
    """Return the model's own configuration, from its ``config.json`` alone.

    Raises:
        UsageError: it is not on this machine.
    """
    return meta_model(config).config if config.path is None else _hf_config(config.path)


def _hf_config(path: str) -> Any:
    if not Path(path).is_dir() and path in published():
        return AutoConfig.for_model(**published()[path])
    try:
        return AutoConfig.from_pretrained(path, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        raise UsageError(
            f"model.path={path!r} has no config here, and plan downloads nothing; give a directory, download "
            f"its config.json first, or use one of {', '.join(published())}."
        ) from None


@cache
def published() -> dict[str, dict[str, Any]]:
    """Return the numbers of the published ``config.json`` files, by hub id."""
    text = (resources.files("ecrl.policy") / "architectures.json").read_text()
    numbers: dict[str, dict[str, Any]] = json.loads(text)
    return numbers
