"""How a pass attends: the kind of attention, and the masks of packed rows.

A token attends to the earlier tokens of its own prompt group that belong to the prompt or to its own
response; in layers with a sliding window, only to those fewer than ``window`` positions before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ecrl.algorithm.rollout_batch import SequenceTokens
from ecrl.errors import UsageError
from ecrl.policy.flex import FLEX, block_mask
from ecrl.policy.packing import MicroBatch
from ecrl.policy.varlen import LARGEST_HEAD, VARLEN, can_attend, sequence_bounds

DENSE_ROW = 256  # tokens of a row under sdpa; the dense mask grows with the square of the length
FLEX_TIME = 2.2  # of flash attention's, on the same pairs of query and key: an estimate, see docs/scale.md


def choose_attention(name: str, device: torch.device, bf16: bool, config: Any) -> str:
    """Return transformers' name for ``model.attention``.

    ``auto`` is ``VARLEN`` on a GPU that computes in bfloat16, if its kernel can; ``FLEX`` on a GPU otherwise;
    ``sdpa`` elsewhere.

    Args:
        name: ``model.attention``.
        device: where the policy computes.
        bf16: whether it computes in bfloat16.
        config: transformers' configuration of the model.

    Raises:
        UsageError: ``varlen`` cannot compute this model here.
    """
    gpu = device.type == "cuda"
    possible = gpu and bf16 and can_attend(config)
    if name == "auto":
        return VARLEN if possible else FLEX if gpu else "sdpa"
    if name == "varlen" and not possible:
        raise UsageError(
            "model.attention=varlen needs a GPU, trainer.precision=bf16-mixed, heads of a multiple of 8 and "
            f"at most {LARGEST_HEAD} numbers, and attention without a soft cap; use model.attention=auto."
        )
    return {"varlen": VARLEN, "flex_attention": FLEX}.get(name, name)


def row_limit(attention: str, max_tokens: int, row_tokens: int | None) -> int:
    """Return the longest packed row in tokens: ``row_tokens``, or a default for the kind of attention."""
    if row_tokens is not None:
        return row_tokens
    return DENSE_ROW if attention == "sdpa" else max_tokens


def shares_prompts(name: str, attention: str, config: Any, sequences: Sequence[SequenceTokens]) -> bool:
    """Whether sequences of one prompt share it in their row.

    Args:
        name: ``model.attention``.
        attention: what it is here.
        config: transformers' configuration of the model.
        sequences: all that are scored together, by whichever process.
    """
    prompts = {tuple(s.prompt_ids) for s in sequences}
    saved = sum(len(s.prompt_ids) for s in sequences) - sum(map(len, prompts))
    return sharing_pays(name, attention, config, saved, sum(len(s) ** 2 / 2 for s in sequences))


def sharing_pays(name: str, attention: str, config: Any, saved: float, pairs: float) -> bool:
    """Whether shared prompts save more than flex attention, which they need, costs beside flash attention.

    Args:
        name: ``model.attention``.
        attention: what it is here.
        config: transformers' configuration of the model.
        saved: tokens of prompts that need not be computed again.
        pairs: pairs of query and visible key, with a prompt of its own for each sequence.
    """
    if attention != VARLEN or name == "varlen":
        return attention != VARLEN
    heads, hidden = config.num_attention_heads, config.hidden_size
    size = getattr(config, "head_dim", None) or hidden // heads
    shared = getattr(config, "num_key_value_heads", None) or heads
    # FLOPs of one layer: its products for each token, and attention for each pair.
    products = 2 * hidden * (2 * size * (heads + shared) + 3 * config.intermediate_size)
    return bool(saved * products > (FLEX_TIME - 1) * pairs * 4 * heads * size)


def attention_inputs(
    micro_batch: MicroBatch, attention: str, device: torch.device, config: Any
) -> dict[str, Any]:
    """Build the arguments of a transformers model that say which tokens see which."""
    if attention != VARLEN or micro_batch.branches:
        return {"attention_mask": model_mask(micro_batch, attention, device, config)}
    bounds, longest = sequence_bounds(micro_batch.prompt_group)
    bounds = bounds.to(device)
    torch._dynamo.mark_dynamic(bounds, 0)  # a compiled layer serves any number of sequences
    return {
        "attention_mask": None,
        "cu_seq_lens_q": bounds,
        "cu_seq_lens_k": bounds,
        "max_length_q": longest,
        "max_length_k": longest,
    }


def model_mask(micro_batch: MicroBatch, attention: str, device: torch.device, config: Any) -> Any:
    """Build the ``attention_mask`` argument of a transformers model.

    Returns:
        An :func:`attention_mask`; or a dictionary of two, by the type of layer, if some layers have a sliding
        window.
    """
    window: int | None = getattr(config, "sliding_window", None)
    # The model itself applies the window to a mask that hides only padding.
    whole = window is None or bool(micro_batch.position_ids.max() < window)
    if whole or (attention == "sdpa" and micro_batch.simple):
        return attention_mask(micro_batch, attention, device)
    cut = attention_mask(micro_batch, attention, device, window)
    if getattr(config, "layer_types", None) is None:
        return cut
    return {"full_attention": attention_mask(micro_batch, attention, device), "sliding_attention": cut}


def attention_mask(
    micro_batch: MicroBatch, attention: str, device: torch.device, window: int | None = None
) -> Any:
    """Build the mask of a micro-batch.

    Args:
        micro_batch: ``R`` rows of ``L`` tokens.
        attention: its name in transformers; ``FLEX`` and ``VARLEN`` take block masks.
        device: device of the mask.
        window: size of the sliding window, in positions; None for full attention.

    Returns:
        A block mask; for others, as ``sdpa``, ``[R, L]`` of 0 and 1 if each row holds one sequence, else
        ``[R, 1, L, L]`` bool.
    """
    of_tokens = micro_batch.prompt_group, micro_batch.response_index, micro_batch.position_ids
    group, response, position = (t.to(device, torch.int32) for t in of_tokens)
    if attention in (FLEX, VARLEN):
        return block_mask(group, response, position, window)
    return (group >= 0).long() if micro_batch.simple else _dense(group, response, position, window)


def _dense(group: Tensor, response: Tensor, position: Tensor, window: int | None) -> Tensor:
    same_group = group[:, :, None] == group[:, None, :]
    visible = (response[:, None, :] == 0) | (response[:, :, None] == response[:, None, :])
    causal = torch.ones(group.shape[1], group.shape[1], dtype=torch.bool, device=group.device).tril()
    seen = same_group & visible & causal
    if window is not None:
        seen &= position[:, :, None] - position[:, None, :] < window
    return seen[:, None]
