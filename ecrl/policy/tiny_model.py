"""The tiny model: a small, randomly initialised Qwen2 architecture with a character tokenizer."""

from __future__ import annotations

import torch
from tokenizers import pre_tokenizers
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer

from ecrl.config.schema import SMALL_MODEL, ModelConfig
from ecrl.errors import UsageError


def build_tokenizer() -> Qwen2Tokenizer:
    """Build a tokenizer with one token for each byte (so one for each ASCII character), padding and EOS.

    It is Qwen2's byte-level tokenizer without merges, because ``AutoTokenizer`` picks the class by the
    model's type, and Qwen2's class would silently split another tokenizer's vocabulary differently.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["<pad>", "<eos>", *alphabet])}
    return Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[],
        unk_token=None,  # type: ignore[arg-type]
        eos_token="<eos>",
        pad_token="<pad>",
    )


def build_model(config: ModelConfig, tokenizer: Qwen2Tokenizer, seed: int) -> Qwen2ForCausalLM:
    """Build a randomly initialised model of the configured size.

    Raises:
        UsageError: ``model.hidden_size`` is not a multiple of twice ``model.heads``.
    """
    if config.hidden_size % (2 * config.heads):
        raise UsageError(
            f"model.hidden_size={config.hidden_size} must be a multiple of 2 × model.heads={config.heads}."
        )
    numbers = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        intermediate_size=4 * config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        dtype="float32",
    )
    setattr(numbers, SMALL_MODEL, True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Qwen2ForCausalLM(numbers)
