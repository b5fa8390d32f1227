"""The policy's optimizer, the schedule of its learning rate, and the bytes of its state."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import get_scheduler

from ecrl.config.schema import ModelConfig, ScheduleConfig, UpdateConfig
from ecrl.config.targets import build, resolve
from ecrl.errors import UsageError
from ecrl.policy.model import PolicyModel
from ecrl.policy.tiny_model import build_model, build_tokenizer

NODE = "update.optimizer"


def build_optimizer(update: UpdateConfig, model: PolicyModel) -> torch.optim.Optimizer:
    """Build the optimizer over a policy's trained parameters.

    Its constructor takes ``params`` as torch's do, or ``model`` if it must tell parameters apart. Learning
    rate and weight decay are those of ``update``. Where torch has a fused kernel, that is used.

    Raises:
        UsageError: no such optimizer, or a value that it refuses.
    """
    takes = inspect.signature(resolve(str(update.optimizer["_target_"]), NODE)).parameters
    trained = [p for p in model.parameters() if p.requires_grad]
    arguments: dict[str, Any] = {"model": model} if "model" in takes else {"params": trained}
    arguments["lr"] = update.lr
    if "weight_decay" in takes:
        arguments["weight_decay"] = update.weight_decay
    elif update.weight_decay:
        raise UsageError(
            f"{NODE}: {_name(update)} has no weight decay, got update.weight_decay={update.weight_decay}."
        )
    node = update.optimizer
    if "fused" in takes and node.get("fused") is None and not node.get("foreach"):
        arguments["fused"] = True
    try:
        optimizer: Any = build(node | {"_partial_": True})(**arguments)
    except (ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"{NODE}: {' '.join(str(error).split())}") from None
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise UsageError(f"{NODE} built a {type(optimizer).__name__}; it must be a torch optimizer.")
    return optimizer


def _name(update: UpdateConfig) -> str:
    return str(update.optimizer["_target_"]).rpartition(".")[2]


# ---------------------------------------------------------------- learning rate


def schedule(settings: ScheduleConfig, steps: int) -> Callable[[int], float]:
    """Return transformers' schedule: the factor on the learning rate of each optimizer step, counted from 0.

    Args:
        settings: ``update.schedule``.
        steps: optimizer steps of the whole run.
    """
    name = "constant_with_warmup" if settings.name == "constant" else settings.name
    unused = torch.optim.SGD([torch.zeros(1)])  # the schedulers are made for an optimizer
    scheduler: Any = get_scheduler(name, unused, settings.warmup, steps)
    (factor,) = scheduler.lr_lambdas
    return lambda step: float(factor(step))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups; 8-bit optimizers keep it in a tensor."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


# ---------------------------------------------------------------- memory


@dataclass(frozen=True)
class StateBytes:
    """Bytes of optimizer state that one parameter takes.

    Attributes:
        matrix: one in a weight matrix of a layer.
        other: one in the embedding or the LM head.
    """

    matrix: float
    other: float

    def total(self, matrices: float, others: float) -> float:
        """Bytes for so many parameters of each kind."""
        return matrices * self.matrix + others * self.other


def state_bytes(update: UpdateConfig, dtype: torch.dtype = torch.float32) -> StateBytes:
    """Measure what the optimizer keeps, by a step of zero gradients on a model of one small layer.

    Args:
        update: names the optimizer.
        dtype: type of the trained weights.

    Raises:
        UsageError: it cannot be built, or takes no plain step.
    """
    model = _small_model(dtype)
    optimizer = build_optimizer(update, model)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    try:
        with torch.compiler.set_stance("force_eager"):  # 8-bit optimizers compile their step
            optimizer.step()
    except (TypeError, RuntimeError) as error:
        raise UsageError(
            f"{NODE}: {_name(update)} takes no plain step: {' '.join(str(error).split())}"
        ) from None
    finally:
        model.zero_grad()
    lm: Any = model.lm
    matrix, other = lm.base_model.layers[0].mlp.gate_proj.weight, lm.get_input_embeddings().weight
    return StateBytes(*(_bytes(optimizer.state[p]) / p.numel() for p in (matrix, other)))


@cache
def _small_model(dtype: torch.dtype) -> PolicyModel:
    tokenizer = build_tokenizer()
    lm: Any = build_model(ModelConfig(hidden_size=128, layers=1, heads=1), tokenizer, seed=0)
    return PolicyModel(lm.to(dtype), [int(tokenizer.eos_token_id)], int(tokenizer.pad_token_id))


def _bytes(state: Mapping[str, Any]) -> int:
    """Bytes of all tensors of a parameter's state; those of 8 bits are made of several."""
    total = 0
    for value in state.values():
        if hasattr(value, "__tensor_flatten__"):
            parts, _ = value.__tensor_flatten__()
            total += _bytes({part: getattr(value, part) for part in parts})
        elif isinstance(value, Tensor) and value.ndim:  # the number of the step is one number
            total += value.numel() * value.element_size()
    return total
