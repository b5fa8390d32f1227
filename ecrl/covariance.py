"""The token covariance that drives policy entropy. https://arxiv.org/abs/2505.22617."""

from __future__ import annotations

from torch import Tensor


def token_covariance(logprobs: Tensor, advantages: Tensor) -> Tensor:
    """``Cov_i = (logπ_i − mean_j logπ_j)·(A_i − mean_j A_j)``, means over all given tokens.

    Its mean is the covariance of log-probability and advantage; where that is positive, a policy
    gradient step lowers the entropy.

    Args:
        logprobs: ``[N]`` of the current policy, nats, over the whole optimizer minibatch.
        advantages: ``[N]``.

    Returns:
        ``[N]``, nats × the advantage's unit.
    """
    return (logprobs - logprobs.mean()) * (advantages - advantages.mean())
