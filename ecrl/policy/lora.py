"""Low-rank adapters by peft, placed inside the model. https://arxiv.org/abs/2106.09685.

W x + (α/r)·B A x      A random, B zero at the start
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig as PeftConfig
from peft import inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from ecrl.config.schema import LoraConfig
from ecrl.errors import UsageError
from ecrl.hashing import stable_hash

ADAPTER = "default"


def add_adapters(lm: Any, config: LoraConfig) -> None:
    """Put adapters beside the chosen linear layers, in place, and freeze all else.

    Raises:
        UsageError: a target module that cannot be adapted.
    """
    check_targets(lm, config)
    targets = sorted(_linear_names(lm)) if config.target_modules is None else config.target_modules
    scale: Any = config.alpha  # peft's annotation says int, its arithmetic takes any number
    settings = PeftConfig(r=config.r, lora_alpha=scale, target_modules=targets, lora_dropout=0.0)
    inject_adapter_in_model(settings, lm, adapter_name=ADAPTER)


def check_targets(lm: Any, config: LoraConfig) -> None:
    """Refuse to adapt anything but linear layers. The head is none: scoring reads its bare matrix.

    Args:
        lm: a transformers causal LM without adapters; it needs no storage.
        config: names its target modules.

    Raises:
        UsageError: a name that is not that of linear layers alone, or a model without any.
    """
    head, names = lm.get_output_embeddings(), sorted(_linear_names(lm))
    if not names:
        raise UsageError(f"model.lora.r: {type(lm).__name__} has no linear layers to adapt; leave it out.")
    for target in config.target_modules or []:
        named = [m for name, m in lm.named_modules() if f".{name}".endswith(f".{target}")]
        if not named or not all(isinstance(m, nn.Linear) and m is not head for m in named):
            raise UsageError(
                f"model.lora.target_modules={config.target_modules}: {target} cannot be adapted; "
                f"this model's linear layers but its head are {', '.join(names)}."
            )


def fill_adapters(lm: nn.Module, seed: int, into: Any) -> None:
    """Draw the adapters' start from the seed, the same however many processes there are.

    Args:
        lm: a model with adapters.
        seed: of the run.
        into: writes a whole tensor into a parameter or its shards.
    """
    for name, parameter in lm.named_parameters():
        if ".lora_A." in name:
            random = torch.Generator().manual_seed(stable_hash(f"{seed}/{name}") >> 1)
            bound = 1 / math.sqrt(parameter.shape[1])
            into(parameter, torch.empty(parameter.shape).uniform_(-bound, bound, generator=random))
        elif ".lora_B." in name:
            into(parameter, torch.zeros(parameter.shape))


def has_adapters(lm: nn.Module) -> bool:
    """Whether the model carries adapters."""
    return any(isinstance(m, LoraLayer) for m in lm.modules())


@contextmanager
def without_adapters(lm: nn.Module) -> Iterator[None]:
    """The model as it was before training: its adapters are off within the block."""
    layers: list[Any] = [m for m in lm.modules() if isinstance(m, LoraLayer)]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def delta(layer: Any, whole: Any) -> Tensor:
    """The adapters' product ``(α/r)·B A``, of the shape of the layer's weight.

    Args:
        layer: a linear layer with adapters.
        whole: turns a parameter, sharded or not, into a whole tensor.
    """
    a, b = whole(layer.lora_A[ADAPTER].weight), whole(layer.lora_B[ADAPTER].weight)
    product: Tensor = layer.scaling[ADAPTER] * (b @ a)
    return product


def _linear_names(lm: Any) -> set[str]:
    head = lm.get_output_embeddings()
    return {n.rsplit(".", 1)[-1] for n, m in lm.named_modules() if isinstance(m, nn.Linear) and m is not head}
