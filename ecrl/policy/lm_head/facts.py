"""``vocabulary_facts``: numbers that describe each token's whole distribution, without gradient."""

from __future__ import annotations

from math import log, log2

import torch
from torch import Tensor

from ecrl.policy.lm_head.eager import Eager
from ecrl.policy.lm_head.stats import check, precision
from ecrl.policy.lm_head.tiles import Head, scan
from ecrl.policy.lm_head.vocabulary import VocabShard, unwrap


@torch.no_grad()
def vocabulary_facts(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    keep: float = 1.0,
    temperature: float = 1.0,
    bias: Tensor | None = None,
    vocabulary: VocabShard | None = None,
    chunk_logits: int | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Measure each token's distribution in two passes over the tiles of the logits, which are never stored.

    With ``x`` the logits and ``p = softmax(x)``:

        certainty   logsumexp(x) − mean_v x_v = KL(U‖p) + log V, U the uniform distribution
        logit       x_y of the target
        proxy       log(p_y / Σ p_v over {v : p_v ≥ keep·max p}), −inf where the target is none of them

    Args:
        hidden: ``[N, D]``, last hidden states.
        weight: ``[V, D]``; as for ``token_stats``, and so are the arguments that are not named here.
        targets: ``[N]``, token ids.
        keep: share of the largest probability that a token needs to stay, in (0, 1] (min-p).
        temperature: divides the logits.
        bias: ``[V]``, or None.
        vocabulary: which rows ``weight`` holds.
        chunk_logits: elements of one tile of logits.

    Returns:
        ``certainty``, ``logit`` and ``proxy``, ``[N]`` each, nats, in float32 (float64 for float64 inputs).

    Raises:
        ValueError: the shapes do not match, a number is out of range, or a DTensor has another placement.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"vocabulary_facts got keep={keep}; it must lie in (0, 1].")
    weight, bias, vocabulary = unwrap(weight, bias, vocabulary)
    check(hidden, weight, targets, bias, temperature, chunk_logits, has_all_rows=vocabulary is None)
    rows = targets if vocabulary is None else targets - vocabulary.start
    with torch.autocast(hidden.device.type, enabled=False):
        head = Head(hidden, weight, bias, rows, temperature, chunk_logits, *precision(hidden, weight))
        state = scan(head)
        if vocabulary is not None:
            vocabulary.combine(state)
        top, chosen, mass, _ = state
        total = top + mass.log2()
        sums = _sums(head, top, total, keep)
        if vocabulary is not None:
            vocabulary.sum(sums)
    mean, kept = sums[0] / sums[2], sums[1].log2()
    proxy = (chosen - total - kept).masked_fill(chosen < _floor(top, keep), -torch.inf)
    return (total - mean) * log(2), chosen * log(2), proxy * log(2)


def _sums(head: Head, top: Tensor, total: Tensor, keep: float) -> Tensor:
    """Sum of the logits, in bits, mass of the kept tokens, and number of the logits: ``[3, N]``."""
    sums = torch.zeros(3, len(head.hidden), dtype=head.dtype, device=head.hidden.device)
    backend = Eager(head.height * head.width, head.dtype, head.hidden.device)
    floor = _floor(top, keep)[:, None]
    for columns, weight in head.columns():
        for rows in head.rows():
            logits, powers = backend.logits(head.tile(rows, columns, weight))
            sums[0, rows] += logits.sum(1)
            torch.exp2(logits - total[rows, None], out=powers)
            sums[1, rows] += powers.masked_fill_(logits < floor[rows], 0.0).sum(1)
            sums[2, rows] += len(weight)
    return sums


def _floor(top: Tensor, keep: float) -> Tensor:
    """Smallest logit that stays, bits; less a rounding, so that the largest one always does."""
    return top + log2(keep) - 1e-5 * top.abs().clamp(min=1.0)
