"""``token_stats``: LM head, log-probability and entropy as one differentiable function."""

from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from ecrl.policy.lm_head.tiles import Head, Upstream, pull_back, scan
from ecrl.policy.lm_head.vocabulary import VocabShard, unwrap


def token_stats(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    vocabulary: VocabShard | None = None,
    chunk_logits: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Compute the log-probability of each target, and the entropy over the whole vocabulary.

    Both are differentiable (once) with respect to ``hidden``, ``weight`` and ``bias``. Tokens whose upstream
    gradients are zero cost nothing in the backward pass. Besides inputs and gradients, memory holds two tiles
    and a few ``[N]`` vectors. On CUDA with Triton, the element-wise work is fused into two kernels (not yet
    run on a GPU; tested in Triton's interpreter).

    If the vocabulary is sharded over processes, each process gets the results over the whole vocabulary, the
    whole gradient of ``hidden``, and the gradient of its own rows of ``weight`` and ``bias``.

    Args:
        hidden: ``[N, D]``, last hidden states.
        weight: ``[V, D]``, weight of the LM head: a tensor, a process's own rows of it (with ``vocabulary``),
            or a DTensor placed as ``Shard(0)``.
        targets: ``[N]``, token ids below ``V``; any other gives NaN.
        temperature: divides the logits.
        bias: ``[V]``, bias of the LM head, sharded like ``weight``, or None.
        vocabulary: which rows ``weight`` holds; None if it holds all of them or is a DTensor.
        chunk_logits: elements of one tile of logits; None takes a default for the device.

    Returns:
        Log-probabilities ``[N]`` and entropies ``[N]``, nats, from logits accumulated in float32
        (float64 for float64 inputs).

    Raises:
        ValueError: the shapes do not match, a number is not positive, or a DTensor has another placement.
    """
    weight, bias, vocabulary = unwrap(weight, bias, vocabulary)
    check(hidden, weight, targets, bias, temperature, chunk_logits, has_all_rows=vocabulary is None)
    apply: Any = _TokenStats.apply
    logprobs, entropy = apply(hidden, weight, bias, targets, vocabulary, temperature, chunk_logits)
    return logprobs, entropy


class _TokenStats(torch.autograd.Function):
    """The autograd function; for backward it saves its inputs and two ``[N]`` vectors."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        vocabulary: VocabShard | None,
        temperature: float,
        chunk_logits: int | None,
    ) -> tuple[Tensor, Tensor]:
        ctx.vocabulary = vocabulary
        ctx.settings = temperature, chunk_logits, *precision(hidden, weight)
        rows = targets if vocabulary is None else targets - vocabulary.start
        with torch.autocast(hidden.device.type, enabled=False):
            state = scan(Head(hidden, weight, bias, rows, *ctx.settings))
            if vocabulary is not None:
                vocabulary.combine(state)
            top, chosen, mass, moment = state
            # Entropy is a sum of two non-negative terms, so nothing cancels if p is nearly one-hot.
            entropy = (mass.log2() - moment / mass) * log(2)
            total = top + mass.log2()
            chosen = chosen.masked_fill(chosen == -torch.inf, torch.nan)  # target outside the vocabulary
        ctx.save_for_backward(hidden, weight, bias, rows, total, entropy)
        ctx.set_materialize_grads(False)
        return (chosen - total) * log(2), entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropy: Tensor | None) -> tuple[Any, ...]:
        hidden, weight, bias, targets, total, entropy = ctx.saved_tensors
        if grad_entropy is not None and not grad_entropy.any():
            grad_entropy = None
        if grad_logprobs is None:
            grad_logprobs = torch.zeros_like(entropy)
        active = grad_logprobs != 0
        if grad_entropy is not None:
            active |= grad_entropy != 0
        # If all rows are active, the common case, nothing is copied.
        rows = slice(None) if active.all() else active.nonzero().squeeze(1)
        with torch.autocast(hidden.device.type, enabled=False):
            head = Head(hidden[rows], weight, bias, targets[rows], *ctx.settings)
            grad_entropy_rows = None if grad_entropy is None else grad_entropy[rows]
            upstream = Upstream(total[rows], entropy[rows], grad_logprobs[rows], grad_entropy_rows)
            d_hidden, d_weight, d_bias = pull_back(head, upstream, ctx.needs_input_grad)
        if d_hidden is not None and not isinstance(rows, slice):
            d_hidden = d_hidden.new_zeros(hidden.shape).index_copy_(0, rows, d_hidden)
        if d_hidden is not None and ctx.vocabulary is not None:
            ctx.vocabulary.sum(d_hidden)
        return d_hidden, d_weight, d_bias, None, None, None, None


def precision(hidden: Tensor, weight: Tensor) -> tuple[torch.dtype, torch.dtype]:
    """Return the types of the logits and of the operands of matrix products.

    CUDA can accumulate half-precision operands in float32; on other devices they are converted first.
    """
    widest = torch.promote_types(hidden.dtype, weight.dtype)
    if widest == torch.float64:
        return widest, widest
    if hidden.device.type != "cuda":
        return torch.float32, torch.float32
    return torch.float32, torch.get_autocast_dtype("cuda") if torch.is_autocast_enabled("cuda") else widest


def check(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    temperature: float,
    chunk_logits: int | None,
    has_all_rows: bool,
) -> None:
    """Refuse shapes that do not match and numbers that are not positive.

    Raises:
        ValueError: says what was given and what is wanted.
    """
    given = [hidden, weight, targets] + ([] if bias is None else [bias])
    fits = [t.dim() for t in given] == [2, 2, 1, 1][: len(given)] and (len(weight) > 0 or not has_all_rows)
    fits = fits and hidden.shape[1] == weight.shape[1] and len(hidden) == len(targets)
    if not fits or (bias is not None and len(bias) != len(weight)):
        raise ValueError(
            f"token_stats got hidden, weight, targets[, bias] of shapes {[tuple(t.shape) for t in given]}; "
            "it takes [N, D], [V, D], [N][, [V]] with V > 0: flatten batch and time first."
        )
    if not temperature > 0 or (chunk_logits is not None and chunk_logits < 1):
        raise ValueError(
            f"token_stats got temperature={temperature}, chunk_logits={chunk_logits}; both must be positive."
        )
