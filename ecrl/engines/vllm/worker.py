"""Runs inside vLLM's workers: loads weights, and reports which weights the forward pass reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import AutoTokenizer

from ecrl.engines.checksum import Part, Receipt, checksum, read
from ecrl.engines.vllm.adapters import adaptable_layers, clear_adapter, find_factors, set_adapter
from ecrl.engines.vllm.held_weights import Packing, find_weights
from ecrl.engines.vllm.shared_secret import token_of
from ecrl.engines.vllm.weight_channel import ChannelError, Receiver
from ecrl.hashing import stable_hash
from ecrl.policy.lora import is_adapter

#: The extension's name for vLLM: ``LLM(worker_extension_cls=EXTENSION)``.
EXTENSION = "ecrl.engines.vllm.worker.WeightsExtension"


class WeightsExtension:
    """Methods that vLLM mixes into its worker class, to be called by ``collective_rpc`` on all workers.

    The workers of a tensor-parallel engine take whole tensors, of which vLLM's loader keeps their parts.

    Attributes:
        ecrl_version: version of the weights held; −1 if there are none.
        rank: number of this worker in its engine.
    """

    ecrl_version: int = -1
    ecrl_receiver: Receiver | None = None
    model_runner: Any
    device: torch.device
    rank: int

    def ecrl_start(self) -> list[str]:
        """Begin with an adapter that changes nothing; return the names of the layers that can have one."""
        if not self.model_runner.lora_config:
            return []
        clear_adapter(self.model_runner)
        return adaptable_layers(self.model_runner, self._packing())

    def ecrl_load(self, weights: Iterable[tuple[str, Tensor]], version: int) -> None:
        """Load weights one tensor at a time, by their names in the HF checkpoint, and an adapter.

        Adapters come after the weights that they are added to, or alone; weights alone are all there is.
        """
        self.ecrl_stamp(-1)
        for are_factors, part in groupby(weights, key=lambda pair: is_adapter(pair[0])):
            if are_factors:
                set_adapter(self.model_runner, dict(part))
            else:
                self.model_runner.reload_weights(weights_iterator=part)
                self.ecrl_start()  # vLLM dropped the adapter
        self.ecrl_stamp(version)

    def ecrl_join(self, address: str, port: int, first: int, size: int, timeout: float) -> None:
        """Open this worker's end of the trainer's channel; see ``Receiver``.

        Args:
            address: of the trainer.
            port: of the trainer.
            first: rank in the channel of the first worker of this engine.
            size: number of the channel's processes.
            timeout: seconds.
        """
        self._ecrl_leave()
        token = token_of("A vLLM worker")
        self.ecrl_receiver = Receiver(address, port, first + self.rank, size, self.device, token, timeout)

    def ecrl_receive(self, version: int) -> None:
        """Load the weights that the trainer sends through the channel; hangs up if that fails.

        Raises:
            ChannelError: the trainer is gone.
        """
        if self.ecrl_receiver is None:
            raise ChannelError("no channel is open")
        try:
            self.ecrl_load(self.ecrl_receiver.receive(), version)
        except BaseException:
            self._ecrl_leave()
            raise

    def _ecrl_leave(self) -> None:
        if self.ecrl_receiver is not None:
            self.ecrl_receiver.close()
            self.ecrl_receiver = None

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
        """Report the weights that this worker holds.

        Args:
            shapes: shape of every tensor that was sent, by its name in the HF checkpoint.
        """
        model = self.model_runner.get_model()
        held, unsent = find_weights(model, self._packing(), shapes)
        held |= dict(find_factors(model, self._packing(), shapes))
        sums = read({name: checksum(part.view, part.row, part.column) for name, part in held.items()})
        checksums: dict[str, Part | None] = dict.fromkeys(shapes)
        for name, part in held.items():
            checksums[name] = (part.row, part.column, sums[name] or 0)
        return Receipt(version=self.ecrl_version, checksums=checksums, unsent=unsent)

    def _packing(self) -> Packing:
        packing: Packing = getattr(self.model_runner.get_model(), "packed_modules_mapping", {})
        return packing


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
    return AutoTokenizer.from_pretrained(path, trust_remote_code=False)
