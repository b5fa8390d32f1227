"""How far the engine's sampling distribution lies from the trainer's old policy."""

from __future__ import annotations

from torch import Tensor

from ecrl.algorithm.losses import kl_k3


def mismatch(
    old_logprobs: Tensor, engine_logprobs: Tensor, low: float = 0.5, high: float = 2.0
) -> dict[str, float]:
    """Measure the mismatch of the tokens that an engine drew.

    With ``x = logπ_old − logμ``, μ being what the engine drew with, ``mismatch/kl`` is the mean over
    tokens of ``exp(x) − 1 − x``: the k3 estimator (http://joschu.net/blog/kl-approx.html), unbiased for
    KL(μ‖π_old) at the contexts of the rollout because the samples are μ's.

    Args:
        old_logprobs: ``[N]`` log π_old, the trainer's, nats.
        engine_logprobs: ``[N]`` log μ, the engine's, nats.
        low: lower bound of a token's ratio ``exp(x)``.
        high: upper bound of it.

    Returns:
        ``mismatch/kl`` (nats), ``mismatch/max`` (largest ``|x|``, nats) and ``mismatch/outside`` (share of
        tokens whose ratio lies outside [low, high]); empty where ``N`` is 0.
    """
    if not len(old_logprobs):
        return {}
    x = old_logprobs - engine_logprobs
    outside = (x.exp() < low) | (x.exp() > high)
    return {
        "mismatch/kl": float(kl_k3(-x).mean()),
        "mismatch/max": float(x.abs().max()),
        "mismatch/outside": float(outside.float().mean()),
    }
