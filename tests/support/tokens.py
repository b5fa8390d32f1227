"""Small token batches with known numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ecrl.algorithm.episodes import Episodes
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.config.schema import Config, RolloutConfig, UpdateConfig


def make_tokens(
    logprobs: list[float],
    advantages: list[float],
    *,
    old: list[float] | None = None,
    sequences: list[int] | None = None,
    entropy: list[float] | None = None,
    low: float = 0.8,
    high: float = 1.2,
    key: int = 0,
    **columns: Tensor,
) -> TokenBatch:
    """Tokens of one or several sequences, float32, log-probs with gradient."""
    count = len(logprobs)
    sequence_ids = torch.tensor(sequences or [0] * count)
    starts = {s: i for i, s in reversed(list(enumerate(sequence_ids.tolist())))}
    current = torch.tensor(logprobs, dtype=torch.float32).requires_grad_()
    before = current.detach().clone() if old is None else torch.tensor(old, dtype=torch.float32)
    extra: dict[str, Any] = {"columns": columns}
    return TokenBatch(
        token_ids=torch.arange(count),
        logprobs=current,
        entropy=torch.tensor(entropy or [1.0] * count).requires_grad_(),
        old_logprobs=before,
        engine_logprobs=before,
        advantages=torch.tensor(advantages, dtype=torch.float32),
        sequence_ids=sequence_ids,
        positions=torch.tensor([i - starts[s] for i, s in enumerate(sequence_ids.tolist())]),
        group_ids=torch.zeros(count, dtype=torch.long),
        uid=sequence_ids + 100,
        low=torch.full((count,), low),
        high=torch.full((count,), high),
        clipped=torch.zeros(count, dtype=torch.bool),
        key=key,
        **extra,
    )


def make_episodes(
    rewards: list[float],
    groups: list[int],
    *,
    lengths: list[int] | None = None,
    token_rewards: list[float] | None = None,
    logprobs: list[float] | None = None,
    **columns: Tensor,
) -> Episodes:
    """Episodes of one token each unless lengths say more; the reward comes with the last token."""
    sizes = torch.tensor(lengths or [1] * len(rewards))
    count = int(sizes.sum())
    at_end = torch.zeros(count).index_add(0, sizes.cumsum(0) - 1, torch.tensor(rewards))
    return Episodes(
        rewards=torch.tensor(rewards),
        group_ids=torch.tensor(groups),
        lengths=sizes,
        truncated=torch.zeros(len(rewards), dtype=torch.bool),
        turns=torch.zeros(count, dtype=torch.long),
        token_rewards=at_end if token_rewards is None else torch.tensor(token_rewards),
        logprobs=torch.tensor(logprobs or [-1.0] * count),
        entropy=torch.ones(count),
        columns=columns,
    )


def two_prompts() -> TokenBatch:
    """Prompt 7 has three responses of lengths 2, 1, 1; prompt 3 two of length 1; prompt 9 one."""
    tokens = make_tokens(
        [-1.0, -3.0, -1.0, -3.0, -1.0, -2.0, -0.5],
        [3.0, 3.0, 0.0, 0.0, 1.0, -1.0, 0.0],
        sequences=[0, 0, 1, 2, 3, 4, 5],
    )
    return replace(tokens, group_ids=torch.tensor([7, 7, 7, 7, 3, 3, 9]))


def batch(
    logprobs: list[float],
    advantages: list[float],
    *,
    old: list[float] | None = None,
    entropy: list[float] | None = None,
    key: int = 0,
    **columns: list[float],
) -> TokenBatch:
    """Tokens of one sequence with ratio bounds 0.8 and 1.2."""
    n = len(logprobs)
    return TokenBatch(
        token_ids=torch.zeros(n, dtype=torch.long),
        logprobs=torch.tensor(logprobs),
        entropy=torch.tensor(entropy if entropy is not None else [0.5] * n),
        old_logprobs=torch.tensor(old if old is not None else logprobs),
        engine_logprobs=torch.tensor(logprobs),
        advantages=torch.tensor(advantages),
        sequence_ids=torch.zeros(n, dtype=torch.long),
        positions=torch.arange(n),
        group_ids=torch.zeros(n, dtype=torch.long),
        uid=torch.zeros(n, dtype=torch.long),
        low=torch.full((n,), 0.8),
        high=torch.full((n,), 1.2),
        clipped=torch.zeros(n, dtype=torch.bool),
        key=key,
        columns={name: torch.tensor(column) for name, column in columns.items()},
    )


def config(minibatches: int = 4, epochs: int = 1, surrogate: str = "ppo_clip") -> Config:
    """What strategies check, under a surrogate of ``ecrl.algorithm.losses``."""
    return Config(
        rollout=RolloutConfig(max_new_tokens=1024),  # the paper's shares are of many tokens
        update=UpdateConfig(minibatches=minibatches, epochs=epochs),
        objective={"surrogate": {"_target_": f"ecrl.algorithm.losses.{surrogate}"}},
    )


def near(got: Tensor, wanted: list[float]) -> None:
    """Hold numbers against some worked out by hand."""
    torch.testing.assert_close(got, torch.tensor(wanted, dtype=torch.float32), atol=1e-6, rtol=0)
