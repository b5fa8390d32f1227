"""The dimensions of a model's architecture, read from a copy on the meta device."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from typing import Any

from torch import nn

from ecrl.config.schema import ModelConfig
from ecrl.errors import UsageError
from ecrl.policy.decoder_layers import decoder_layers
from ecrl.policy.meta_model import meta_model


@dataclass(frozen=True)
class Architecture:
    """A dense decoder-only transformer.

    Attributes:
        name: ``model.path``, or ``tiny``.
        parameters: parameters of the whole model; a tied LM head counts once.
        layer_parameters: parameters of one decoder layer.
        layers: number of decoder layers.
        hidden: width of the residual stream.
        intermediate: width inside the MLP.
        heads: number of query heads.
        kv_heads: number of key-value heads.
        head_dim: width of an attention head.
        vocabulary: rows of the embedding.
        linears: name, inputs and outputs of each linear layer of one decoder layer.
        config: transformers' configuration.
    """

    name: str
    parameters: int
    layer_parameters: int
    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    linears: tuple[tuple[str, int, int], ...]
    config: Any = field(repr=False)

    @property
    def root_parameters(self) -> int:
        """Parameters outside the decoder layers: embedding, LM head, last norm."""
        return self.parameters - self.layers * self.layer_parameters

    @property
    def head_parameters(self) -> int:
        """Parameters of the LM head's matrix, tied or not."""
        return self.vocabulary * self.hidden

    @property
    def matrix_parameters(self) -> int:
        """Parameters in matrix products with every token: all but the embedding, which is a look-up."""
        return self.layers * self.layer_parameters + self.head_parameters

    @property
    def linear_parameters(self) -> int:
        """Parameters of the matrices of all linear layers but the LM head."""
        return self.layers * sum(inputs * outputs for _, inputs, outputs in self.linears)

    @property
    def largest_matrix(self) -> int:
        """Parameters of the largest of them."""
        return max(inputs * outputs for _, inputs, outputs in self.linears)

    def adapter_parameters(self, rank: int, targets: list[str] | None) -> int:
        """Count the parameters of LoRA adapters, ``r·(in + out)`` for each adapted linear layer.

        Args:
            rank: r.
            targets: names of the linear layers to adapt; None takes all but the LM head.
        """
        return self.layers * sum(
            rank * (inputs + outputs)
            for name, inputs, outputs in self.linears
            if targets is None or name in targets
        )


def architecture(config: ModelConfig) -> Architecture:
    """Read the dimensions of a model; nothing is downloaded and no weights are allocated.

    Raises:
        UsageError: the model is unknown, not on this machine, or not a dense decoder.
    """
    return _architecture(config.path, config.hidden_size, config.layers, config.heads)


@cache
def _architecture(path: str | None, hidden_size: int, depth: int, heads: int) -> Architecture:
    lm = meta_model(ModelConfig(path=path, hidden_size=hidden_size, layers=depth, heads=heads))
    name = path or "tiny"
    layers = decoder_layers(lm)
    numbers: Any = lm.config
    if getattr(numbers, "num_experts", None) or getattr(numbers, "num_local_experts", None):
        raise UsageError(f"model.path={name!r} is a mixture of experts; `ecrl plan` knows dense models only.")
    return Architecture(
        name=name,
        parameters=_count(lm),
        layer_parameters=_count(layers[0]),
        layers=len(layers),
        hidden=numbers.hidden_size,
        intermediate=numbers.intermediate_size,
        heads=numbers.num_attention_heads,
        kv_heads=getattr(numbers, "num_key_value_heads", None) or numbers.num_attention_heads,
        head_dim=getattr(numbers, "head_dim", None) or numbers.hidden_size // numbers.num_attention_heads,
        vocabulary=numbers.vocab_size,
        linears=tuple(
            (name.rpartition(".")[2], module.in_features, module.out_features)
            for name, module in layers[0].named_modules()
            if isinstance(module, nn.Linear)
        ),
        config=numbers,
    )


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
