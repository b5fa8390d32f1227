"""How much slower a configuration trains than compiled layers in bfloat16 with flash attention.

``utilisation`` is the share of the card's speed that those reach. All factors are estimates; docs/scale.md
says where each is from.
"""

from __future__ import annotations

from ecrl.estimate.job import Job
from ecrl.policy.attention import FLEX_TIME
from ecrl.policy.varlen import VARLEN

FLOAT32 = 9.0  # products in float32 without TF32, of their time in bfloat16
AUTOCAST = 0.4  # what the float32 residual stream of autocast adds, of the products' time
UNCOMPILED = 800  # what uncompiled operations between products add: this over the hidden size, likewise
SELECTIVE = 0.08  # what selective checkpointing repeats, of the layers' forward pass


def slowness(job: Job) -> float:
    """Return the factor on the time of all but attention.

    What lies between the products moves numbers in proportion to the hidden size, and products compute in
    proportion to its square.
    """
    full = job.precision == "32-true"
    between = 0.0 if job.compiled else UNCOMPILED / job.model.hidden * job.stream_bytes / 2
    return (FLOAT32 if full else 1.0) + between + (AUTOCAST if job.autocasts else 0.0)


def attention_slowness(job: Job) -> float:
    """Return the factor on the time of attention."""
    flash = job.attention == VARLEN and not job.shares_prompts
    return (FLOAT32 if job.precision == "32-true" else 1.0) * (1.0 if flash else FLEX_TIME)
