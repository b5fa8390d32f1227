"""Runs inside vLLM's workers: loads weights, and reports which weights the forward pass reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ecrl.engines.checksum import Receipt, checksum, read
from ecrl.engines.vllm.weight_channel import Channel
from ecrl.hashing import stable_hash

#: The extension's name for vLLM: ``LLM(worker_extension_cls=EXTENSION)``.
EXTENSION = "ecrl.engines.vllm.worker.WeightsExtension"


class WeightsExtension:
    """Methods that vLLM mixes into its worker class, to be called by ``collective_rpc``.

    One worker holds the whole model: checksums are of unsharded tensors, so the tensor-parallel size is 1.

    Attributes:
        ecrl_version: version of the weights held; −1 if there are none.
    """

    ecrl_version: int = -1
    ecrl_channel: Channel
    model_runner: Any
    device: torch.device

    def ecrl_load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Load weights one tensor at a time, by their names in the HF checkpoint."""
        self.ecrl_stamp(-1)
        self.model_runner.reload_weights(weights_iterator=weights)
        self.ecrl_stamp(version)

    def ecrl_join(self, address: str, port: int, rank: int, size: int, timeout: float) -> None:
        """Open this worker's end of the trainer's channel; see ``Channel``."""
        self.ecrl_channel = Channel(address, port, rank, size, self.device, timeout)
        self.ecrl_channel.open()

    def ecrl_receive(self, version: int) -> None:
        """Load the weights that the trainer sends through the channel."""
        self.ecrl_load(self.ecrl_channel.receive(), version)

    def ecrl_model(self) -> dict[str, Any]:
        """Describe the model, to compare it with the policy before anything is sent."""
        held = self.model_runner.model_config
        return {
            **describe(held.hf_text_config, _tokenizer(held.tokenizer)),
            "dtype": str(held.dtype).removeprefix("torch."),
            "max_model_len": held.max_model_len,
        }

    def ecrl_stamp(self, version: int) -> None:
        """Store the version of the weights; −1 before they change otherwise than by ``ecrl_load``."""
        self.ecrl_version = version

    def ecrl_receipt(self, shapes: Mapping[str, Sequence[int]]) -> Receipt:
        """Report the weights that the engine holds.

        Args:
            shapes: shape of every tensor that was sent, by its name in the HF checkpoint.
        """
        model = self.model_runner.get_model()
        # Duplicates are kept, so that both names of a tied embedding lead to its parameter.
        parameters = dict(model.named_parameters(remove_duplicate=False))
        views, unsent = find_weights(parameters, getattr(model, "packed_modules_mapping", {}), shapes)
        sums = {name: checksum(views[name]) if name in views else None for name in shapes}
        return Receipt(version=self.ecrl_version, checksums=read(sums), unsent=unsent)


def describe(config: Any, tokenizer: Any) -> dict[str, int]:
    """Return numbers that identify a model: its sizes, and a hash of its vocabulary.

    Args:
        config: transformers configuration of the model's text part.
        tokenizer: the model's transformers tokenizer.
    """
    sizes = {name: getattr(config, name) for name in ("vocab_size", "hidden_size", "num_hidden_layers")}
    return {**sizes, "vocabulary": stable_hash(json.dumps(sorted(tokenizer.get_vocab().items())))}


@cache
def _tokenizer(path: str) -> Any:
    """Load the model's tokenizer, which a server that works on token ids has not loaded."""
    return AutoTokenizer.from_pretrained(path)


def find_weights(
    parameters: Mapping[str, Tensor],
    packing: Mapping[str, Sequence[str]],
    shapes: Mapping[str, Sequence[int]],
) -> tuple[dict[str, Tensor], list[str]]:
    """Find a checkpoint's tensors in a vLLM model, which stacks some of them and pads vocabularies.

    Args:
        parameters: vLLM's parameters, by vLLM's names.
        packing: names of the checkpoint's modules that vLLM stacks into one, in order, by vLLM's name.
        shapes: shapes of the checkpoint's tensors, by the checkpoint's names.

    Returns:
        A view of the rows of each tensor that was found with its shape; and the names of tensors that the
        model needs but ``shapes`` lacks.
    """
    views: dict[str, Tensor] = {}
    complete: set[int] = set()
    missing: list[tuple[str, Tensor]] = []
    for name, parameter in parameters.items():
        parts = _checkpoint_names(name, packing)
        row = 0
        for part in parts:
            if part in shapes:
                view = parameter.detach()[row : row + shapes[part][0]]
                row += shapes[part][0]
                if list(view.shape) == list(shapes[part]):
                    views[part] = view
        absent = [part for part in parts if part not in shapes]
        missing += [(part, parameter) for part in absent]
        if not absent:
            complete.add(id(parameter))
    # A tied weight is complete if it was sent under any of its names.
    return views, [part for part, parameter in missing if id(parameter) not in complete]


def _checkpoint_names(name: str, packing: Mapping[str, Sequence[str]]) -> list[str]:
    """Return the checkpoint's names of the tensors in one vLLM parameter, in the order of its rows."""
    prefix, _, leaf = name.rpartition(".")
    prefix, _, module = prefix.rpartition(".")
    return [f"{prefix}.{part}.{leaf}" for part in packing[module]] if module in packing else [name]
