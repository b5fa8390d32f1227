"""LoRA: low-rank adapters, injected into the model by peft. https://arxiv.org/abs/2106.09685.

W x + (α/r)·B A x      initially A is random and B is zero
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass(frozen=True)
class AdapterKind:
    """What a server must be able to take.

    Attributes:
        rank: of the adapters.
        layers: last parts of the names of the layers that have one.
    """

    rank: int
    layers: frozenset[str]


def adapter_kind(lm: nn.Module) -> AdapterKind | None:
    """Return what kind of adapters a model has; None if it has none."""
    ranks = {n.rpartition(".")[2]: m.r[ADAPTER] for n, m in lm.named_modules() if isinstance(m, LoraLayer)}
    return AdapterKind(max(ranks.values()), frozenset(ranks)) if ranks else None


def is_adapter(name: str) -> bool:
    """Whether a tensor with this name is a factor of an adapter."""
    return ".lora_A." in name or ".lora_B." in name


def add_adapters(lm: Any, config: LoraConfig) -> None:
    """Add float32 adapters to the chosen linear layers, in place, and freeze all other parameters.

    Raises:
        UsageError: a target module cannot be adapted.
    """
    check_targets(lm, config)
    targets = sorted(_linear_names(lm)) if config.target_modules is None else config.target_modules
    scale: Any = config.alpha  # peft declares an int but accepts any number
    settings = PeftConfig(r=config.r, lora_alpha=scale, target_modules=targets, lora_dropout=0.0)
    inject_adapter_in_model(settings, lm, adapter_name=ADAPTER)
    for layer in lm.modules():
        if isinstance(layer, LoraLayer):  # peft gives adapters the type of their base
            layer.lora_A.float()
            layer.lora_B.float()


def check_targets(lm: Any, config: LoraConfig) -> None:
    """Refuse target modules that are not linear layers.

    The LM head cannot take an adapter, because scoring multiplies with its weight directly.

    Args:
        lm: a transformers causal LM without adapters; it may be on the meta device.
        config: names the target modules.

    Raises:
        UsageError: a name matches nothing, or a module that cannot take an adapter; or the model has no
            linear layers.
    """
    lm_head, names = lm.get_output_embeddings(), sorted(_linear_names(lm))
    if not names:
        raise UsageError(f"model.lora.r: {type(lm).__name__} has no linear layers to adapt; leave it out.")
    for target in config.target_modules or []:
        named = [m for name, m in lm.named_modules() if f".{name}".endswith(f".{target}")]
        if not named or not all(isinstance(m, nn.Linear) and m is not lm_head for m in named):
            raise UsageError(
                f"model.lora.target_modules={config.target_modules}: {target} cannot be adapted; "
                f"the linear layers of this model that can take adapters are {', '.join(names)}."
            )


def fill_adapters(lm: nn.Module, seed: int, into: Any) -> None:
    """Set the adapters' initial values from the seed; they depend on no device and no number of processes.

    Args:
        lm: a model with adapters.
        seed: seed of the run.
        into: function that writes an unsharded tensor into a parameter or its shards.
    """
    with torch.device("cpu"):  # Lightning builds models under the device of the run
        for name, parameter in lm.named_parameters():
            if ".lora_A." in name:
                random = torch.Generator().manual_seed(stable_hash(f"{seed}/{name}") >> 1)
                bound = 1 / math.sqrt(parameter.shape[1])
                into(parameter, torch.empty(parameter.shape).uniform_(-bound, bound, generator=random))
            elif ".lora_B." in name:
                into(parameter, torch.zeros(parameter.shape))


@contextmanager
def without_adapters(lm: nn.Module) -> Iterator[None]:
    """Disable the adapters within the block, so that the model is the initial policy."""
    layers: list[Any] = [m for m in lm.modules() if isinstance(m, LoraLayer)]
    for layer in layers:
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def delta(layer: Any, full_tensor: Any) -> Tensor:
    """Return the adapters' product ``(α/r)·B A``, of the shape of the layer's weight.

    Args:
        layer: a linear layer with adapters.
        full_tensor: function that turns a parameter, sharded or not, into an unsharded tensor.
    """
    a, b = full_tensor(layer.lora_A[ADAPTER].weight), full_tensor(layer.lora_B[ADAPTER].weight)
    product: Tensor = layer.scaling[ADAPTER] * (b @ a)
    return product


@torch.no_grad()
def factors(
    lm: nn.Module, full_tensor: Callable[[Tensor], Tensor], dtype: torch.dtype | None
) -> Iterator[tuple[str, Tensor]]:
    """Yield the adapters of all layers: A as ``LAYER.lora_A.weight``, (α/r)·B as ``LAYER.lora_B.weight``.

    Args:
        lm: a model with adapters.
        full_tensor: as for :func:`delta`.
        dtype: type in which each factor is gathered; None takes its own.
    """
    for name, module in lm.named_modules():
        if isinstance(module, LoraLayer):
            layer: Any = module
            a, b = layer.lora_A[ADAPTER].weight, layer.scaling[ADAPTER] * layer.lora_B[ADAPTER].weight
            for factor, weight in (("A", a), ("B", b)):
                yield f"{name}.lora_{factor}.weight", full_tensor(weight.detach().to(dtype or weight.dtype))


def linear_layers(lm: Any) -> list[tuple[str, nn.Linear]]:
    """Return the linear layers of a model, with their names, but not the LM head."""
    lm_head = lm.get_output_embeddings()
    return [(n, m) for n, m in lm.named_modules() if isinstance(m, nn.Linear) and m is not lm_head]


def _linear_names(lm: Any) -> set[str]:
    """Return the last parts of the names of all linear layers but the LM head."""
    return {name.rsplit(".", 1)[-1] for name, _ in linear_layers(lm)}
