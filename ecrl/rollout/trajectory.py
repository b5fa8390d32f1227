"""One episode, as it was played: the policy's turns and what the environment said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ecrl.engines.base import Completion


@dataclass(frozen=True)
class Turn:
    """One move of the policy: the environment's tokens that came before it, then its own.

    Attributes:
        context_ids: tokens of the environment since the last turn; never trained on.
        completion: the policy's own tokens.
    """

    context_ids: list[int]
    completion: Completion


@dataclass(frozen=True)
class Trajectory:
    """One episode.

    Attributes:
        prompt_ids: token ids of the first observation.
        turns: the policy's moves; the first has no context of its own.
        problem_id: identifies the problem; trajectories that share it form a group.
        sample_index: index of this trajectory within its group.
        reward: sum of the episode's rewards.
        terminated: the episode ended by itself.
        truncated: it was cut off by a token or turn limit.
        metrics: numbers the environment reported at the end.
        answer: the extracted final answer, for majority votes; None if there is none.
        prompt: the first observation as text.
        response: the policy's own text.
    """

    prompt_ids: list[int]
    turns: list[Turn]
    problem_id: int
    sample_index: int
    reward: float
    terminated: bool
    truncated: bool
    metrics: Mapping[str, float]
    answer: str | None
    prompt: str
    response: str

    @property
    def num_tokens(self) -> int:
        """Number of tokens the policy itself wrote."""
        return sum(len(turn.completion.token_ids) for turn in self.turns)
