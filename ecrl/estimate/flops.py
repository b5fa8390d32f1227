"""Work and time of an iteration, by phase: FLOPs over all GPUs, and seconds.

A matrix product costs 2 FLOPs a parameter and token (https://arxiv.org/abs/2001.08361, section 2.1);
attention 4·layers·heads·head_dim a pair of query and visible key. A backward pass costs two forward
passes, or one where the weights are frozen. Decoding is bound by memory: each step reads the weights
and the cache of the sequences at work.
"""

from __future__ import annotations

from dataclasses import dataclass

from ecrl.estimate.architecture import Architecture
from ecrl.estimate.job import CARDS, Job
from ecrl.estimate.memory import concurrent, kv_bytes_per_token
from ecrl.policy.attention import row_limit

DECODE_BANDWIDTH = 0.4  # share of the card's memory bandwidth that decoding reaches; see docs/scale.md


@dataclass(frozen=True)
class Phase:
    """One part of an iteration.

    Attributes:
        flops: over all GPUs.
        seconds: of wall time.
    """

    flops: float
    seconds: float


@dataclass(frozen=True)
class Tokens:
    """Expected tokens of an iteration.

    Attributes:
        own: drawn and trained on.
        passed: in one forward pass over all of it; a prompt counts once for the tails packed with it.
        pairs: of query and visible key in that pass.
    """

    own: float
    passed: float
    pairs: float


def tokens(job: Job) -> Tokens:
    """Expected tokens, every completion taken at its mean length (longer ones attend to more pairs)."""
    prompt, tail = job.given.prompt, job.completion
    attention = job.config.model.attention
    if attention == "auto":
        attention = "sdpa" if job.config.trainer.accelerator == "cpu" else "flex_attention"
    update = job.config.update
    together = (row_limit(attention, update.max_tokens, update.row_tokens) - prompt) // tail
    members = min(max(together, 1), job.config.rollout.group_size)
    units = job.completions / members
    return Tokens(
        own=job.completions * tail,
        passed=job.completions * tail + units * prompt,
        pairs=job.completions * _tail_pairs(prompt, tail) + units * prompt**2 / 2,
    )


def body_flops(model: Architecture, count: float, pairs: float) -> float:
    """One forward pass through the decoder layers.

    Args:
        model: the architecture.
        count: tokens.
        pairs: of query and visible key.
    """
    products = 2 * model.layers * model.layer_parameters * count
    return products + 4 * model.layers * model.heads * model.head_dim * pairs


def head_flops(model: Architecture, count: float) -> float:
    """One pass through the head.

    Args:
        model: the architecture.
        count: tokens to score.
    """
    return 2 * model.head_parameters * count


def iteration(job: Job) -> dict[str, Phase]:
    """Every phase of an iteration that does any work, in order."""
    count = tokens(job)
    speed = job.gpus * CARDS[job.given.gpu].flops * job.given.utilisation
    body, head = body_flops(job.model, count.passed, count.pairs), head_flops(job.model, count.own)
    forward = body + head
    update = job.config.update
    steps = update.minibatches * update.epochs
    works = {
        "old log-probs": 0.0 if job.in_process and job.compute_bytes == 4 else forward,
        "reference": forward * job.has_reference,
        # The first minibatch's log-probs are the old ones; the later ones' must be computed to plan with.
        "planning": forward
        * update.epochs
        * (steps - 1)
        / steps
        * any(s.needs_current for s in job.strategies),
        "forward": forward * update.epochs,
        "backward": forward * update.epochs * (1 if job.config.model.lora.r else 2),
        # The head always makes its tiles again, the layers only under checkpointing.
        "recomputation": update.epochs * (head + body * job.config.model.activation_checkpointing),
    }
    phases = {name: Phase(work, work / speed) for name, work in works.items() if work}
    return {"prefill": _prefill(job, speed), "decode": _decode(job)} | phases


def _prefill(job: Job, speed: float) -> Phase:
    """Each problem's prompt once: its group shares it."""
    prompts, prompt = job.config.rollout.prompts, job.given.prompt
    work = body_flops(job.model, prompts * prompt, prompts * prompt**2 / 2)
    return Phase(work, work / speed)


def _decode(job: Job) -> Phase:
    """Steps at the expected length with all sequences at work, then the longest completion alone."""
    model, prompt, tail = job.model, job.given.prompt, job.completion
    work = body_flops(model, job.completions * tail, job.completions * _tail_pairs(prompt, tail))
    split, size = (1, job.compute_bytes) if job.in_process else (job.engine_tensor_parallel, job.engine_bytes)
    share = job.completions / (job.gpus / split)
    together = max(min(share, _most_at_once(job)), 1)
    speed = CARDS[job.given.gpu].bandwidth * DECODE_BANDWIDTH * split
    weights, cache = size * model.matrix_parameters, kv_bytes_per_token(model, size)
    busy = share / together * tail * (weights + together * (prompt + tail / 2) * cache) / speed
    longest = job.config.rollout.max_new_tokens
    alone = (longest - tail) * (weights + (prompt + longest) * cache) / speed
    return Phase(work + head_flops(model, job.completions * tail), busy + alone)


def _most_at_once(job: Job) -> int:
    if job.in_process:
        return int(job.config.engine["batch_size"])
    card = CARDS[job.given.gpu]
    return (
        card.sequences
        if job.apart
        else min(card.sequences, concurrent(job, job.given.prompt + job.completion))
    )


def _tail_pairs(prompt: float, tail: float) -> float:
    return tail * prompt + tail**2 / 2
