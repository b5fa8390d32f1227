"""Reads and writes the policy's weights by their HF names, one unsharded tensor at a time."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

import torch
from huggingface_hub import snapshot_download
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, Replicate

from ecrl.errors import UsageError
from ecrl.policy.lora import delta, factors, is_adapter
from ecrl.policy.quantization import dequantised, is_quantised

Part = Literal["merged", "base", "adapters"]

#: Files with a model's weights. Mistral's models also come as `consolidated.safetensors`, with other names.
WEIGHT_FILES = ("model*.safetensors", "pytorch_model*.bin")


def full_tensor(tensor: Tensor, device: torch.device | None = None) -> Tensor:
    """Return an unsharded tensor; a collective if it is a DTensor.

    Args:
        tensor: with or without shards.
        device: where it is gathered; None gathers where the shards are, which in host memory is slow.
    """
    tensor = tensor if device is None else tensor.to(device)
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


@contextmanager
def unsharded(lm: nn.Module) -> Iterator[None]:
    """Keep the layers that FSDP wraps whole and cast between the forward passes of the block.

    After it they are sharded again, so that no pass sees them as they were before an update.
    """
    layers = [m for m in lm.modules() if isinstance(m, FSDPModule)]
    for layer in layers:
        layer.set_reshard_after_forward(False, recurse=False)
    try:
        yield
    finally:
        for layer in layers:
            layer.set_reshard_after_forward(True, recurse=False)
            layer.reshard()


class HFWeights:
    """Iterable of pairs of HF name and weight; can be iterated over repeatedly.

    Adapters are merged in float32, and quantised matrices come as the layers compute with them. Tied weights
    come once. Each tensor is unsharded, and made only when the iteration reaches it. Every
    process of a sharded run must iterate to the end.

    Args:
        lm: the policy's transformers model.
        device: where each tensor is gathered and made; None takes that of its parameter.
        dtype: type in which each tensor is gathered and made; None takes that of its parameter.
        parts: what comes, in order: the ``merged`` weights, those of the ``base``, or the ``adapters`` on
            their own, see ``lora.factors``.
    """

    def __init__(
        self,
        lm: nn.Module,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
        parts: Sequence[Part] = ("merged",),
    ) -> None:
        self._lm = lm
        self._device = device
        self._dtype = dtype
        self._parts = parts

    def cast(self, dtype: torch.dtype) -> HFWeights:
        """Return the same weights in another type; shards are cast before they are gathered."""
        return HFWeights(self._lm, self._device, dtype, self._parts)

    def apart(self, base: bool) -> HFWeights:
        """Return the adapters on their own, after the weights that they are added to if ``base``."""
        return HFWeights(self._lm, self._device, self._dtype, ("base", "adapters") if base else ("adapters",))

    def __iter__(self) -> Iterator[tuple[str, Tensor]]:
        whole = partial(full_tensor, device=self._device)
        for part in self._parts:
            if part == "adapters":
                yield from factors(self._lm, whole, self._dtype)
            else:
                yield from _hf_weights(self._lm, whole, self._dtype, merged=part == "merged")


@torch.no_grad()
def _hf_weights(
    lm: nn.Module, whole: Callable[[Tensor], Tensor], dtype: torch.dtype | None, merged: bool
) -> Iterator[tuple[str, Tensor]]:
    layers = lm.named_modules() if merged else ()
    adapted = {f"{n}.base_layer.weight": m for n, m in layers if isinstance(m, LoraLayer)}
    for name, parameter in lm.named_parameters():
        if is_adapter(name):
            continue
        held = dequantised(parameter) if is_quantised(parameter) else parameter.detach()
        if name in adapted:
            tensor = whole(held) + delta(adapted[name], whole)  # float32, so that it is rounded once
            tensor = tensor.to(dtype or tensor.dtype)
        else:
            tensor = whole(held.to(dtype or held.dtype))
        yield name.replace(".base_layer.", "."), tensor


def local_tensor(tensor: Tensor) -> Tensor:
    """Return this process's shard of a tensor, or the tensor itself if it has no shards."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_part(tensor: Tensor, parameter: Tensor) -> Tensor:
    """Return the part of an unsharded tensor that lies where this process's shard of a parameter does."""
    tensor = tensor.to(parameter.device)
    if not isinstance(parameter, DTensor):
        return tensor
    mesh = parameter.device_mesh
    replicated = DTensor.from_local(tensor, mesh, [Replicate()] * mesh.ndim, run_check=False)
    return replicated.redistribute(placements=parameter.placements).to_local()


@torch.no_grad()
def write_whole(parameter: Tensor, tensor: Tensor) -> None:
    """Copy an unsharded tensor into a parameter, or this process's part of it into its shard."""
    local_tensor(parameter).copy_(local_part(tensor, parameter))


def read_weights(lm: nn.Module, path: str) -> None:
    """Fill a model, sharded or not, from its files, tensor by tensor.

    Args:
        lm: a transformers causal LM, with or without adapters, whose parameters have storage.
        path: directory in HF format or hub id.

    Raises:
        UsageError: a weight of the model is not in the files.
    """
    missing = {
        name.replace(".base_layer.", "."): p for name, p in lm.named_parameters() if ".lora_" not in name
    }
    for name, tensor in _stored(path, missing):
        write_whole(missing.pop(name), tensor)
    if missing:
        raise UsageError(
            f"model.path={path!r} lacks {len(missing)} weights of {type(lm).__name__}, e.g. "
            f"{sorted(missing)[0]}; a model whose files use other names for its weights cannot be sharded "
            "yet: use trainer.parallel=ddp."
        )


def _stored(path: str, wanted: Container[str]) -> Iterator[tuple[str, Tensor]]:
    """Read the wanted tensors of a model's files, one at a time."""
    for file in _weight_files(path):
        if file.suffix == ".bin":
            try:
                stored = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
            except UnpicklingError:
                raise UsageError(f"{file} is not loaded, because it is damaged or holds code.") from None
            yield from ((name, tensor) for name, tensor in stored.items() if name in wanted)
            continue
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (not a dictionary)
                if name in wanted:
                    yield name, tensors.get_tensor(name)


def _weight_files(path: str) -> list[Path]:
    """Find the files of the first kind that the model has."""
    for pattern in WEIGHT_FILES:
        known = Path(path).is_dir()
        folder = Path(path) if known else Path(snapshot_download(path, allow_patterns=pattern))
        if files := sorted(folder.glob(pattern)):
            return files
    return []


def state_of(lm: nn.Module, device: torch.device, keep: bool = True) -> dict[str, Tensor]:
    """Return the HF state dict on the CPU, as ``save_pretrained`` writes it; empty unless ``keep``.

    Args:
        lm: the policy's transformers model.
        device: where shards are gathered.
        keep: whether this process needs it.
    """
    return {name: tensor.cpu().clone() for name, tensor in HFWeights(lm, device) if keep}
