"""Arguments of ``vllm.SamplingParams``, which the engines pass in process or as JSON to a server."""

from __future__ import annotations

from typing import Any

from ecrl.engines.base import Sampling


def completion_params(sampling: Sampling, key: int, eos_ids: list[int]) -> dict[str, Any]:
    """Return the parameters of one completion.

    Args:
        sampling: how to sample.
        key: key of the completion's own random stream, of which vLLM takes 63 bits.
        eos_ids: token ids that end a completion.
    """
    return {
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "max_tokens": sampling.max_new_tokens,
        "seed": key & (2**63 - 1),
        "stop_token_ids": eos_ids,
        "ignore_eos": True,  # only the policy's own stop tokens count
        "logprobs": 0,  # of the sampled token alone
        "detokenize": False,
    }


def probe_params() -> dict[str, Any]:
    """Return the parameters that ask for the log-probabilities of a prompt's tokens."""
    return {"max_tokens": 1, "temperature": 0, "prompt_logprobs": 0, "detokenize": False}
