"""How much slower a configuration trains than compiled layers in bfloat16 with flash attention.

``utilisation`` is the share of the card's speed that those reach. All factors are estimates; docs/scale.md
says where each is from.
"""

from __future__ import annotations

from ecrl.estimate.job import Job
from ecrl.policy.attention import FLEX_TIME
from ecrl.policy.varlen import VARLEN

FLOAT32 = 0.61  # products in float32, of their time in 16 bits: this share of the ratio of the card's peaks
AUTOCAST = 0.4  # what a float32 residual stream under autocast adds, of the products' time
UNCOMPILED = 800  # what uncompiled operations between products add: this over the hidden size, likewise
SELECTIVE = 0.08  # what selective checkpointing repeats, of the layers' forward pass


def slowness(job: Job) -> float:
    """Return the factor on the time of all but attention.

    What lies between the products moves numbers in proportion to the hidden size, and products compute in
    proportion to its square.
    """
    between = 0.0 if job.compiled else UNCOMPILED / job.model.hidden * job.stream_bytes / 2
    wide_stream = job.autocasts and job.stream_bytes == 4
    return _products(job) + between + (AUTOCAST if wide_stream else 0.0)


def attention_slowness(job: Job) -> float:
    """Return the factor on the time of attention."""
    flash = job.attention == VARLEN and not job.shares_prompts
    return _products(job) * (1.0 if flash else FLEX_TIME)


def _products(job: Job) -> float:
    """Return the time of matrix products, of that in 16 bits."""
    card = job.given.card
    return FLOAT32 * card.flops / card.full_flops if job.precision == "32-true" else 1.0
