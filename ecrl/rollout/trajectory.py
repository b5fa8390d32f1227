"""A finished episode: the policy's turns and the environment's messages between them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ecrl.engines.base import Completion


@dataclass(frozen=True)
class Turn:
    """One turn of the policy, with the environment's message before it.

    Attributes:
        context_ids: tokens of the environment since the last turn; never trained on.
        completion: the policy's own tokens.
        reward: what the environment gave for this turn.
    """

    context_ids: list[int]
    completion: Completion
    reward: float = 0.0


@dataclass(frozen=True)
class Trajectory:
    """One episode.

    Attributes:
        prompt_ids: token ids of the first observation.
        turns: the policy's turns; the first has no context. None if the problem was not posed to it.
        problem_id: identifies the problem; trajectories of the same problem form a group.
        sample_index: index of this trajectory within its group.
        reward: sum of the episode's rewards.
        terminated: whether the episode reached its end.
        truncated: whether the episode was cut off by a limit on tokens or turns.
        metrics: numbers that the environment reported at the end.
        answer: the extracted final answer, as written; None if there is none.
        prompt: the first observation, as the policy reads it.
        response: the policy's own text, all turns joined.
        vote: class of equivalent answers to the problem that it belongs to, from 0; None without an answer,
            or where votes are not counted.
        gold: the right answer, if the environment tells it.
        overlong: whether the prompt was too long, so that the policy read only a part of it, or nothing;
            then there are no turns.
        failed: whether the environment's code raised, so that the reward is 0.
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
    vote: int | None = None
    gold: str | None = None
    overlong: bool = False
    failed: bool = False

    @property
    def num_tokens(self) -> int:
        """Number of tokens that the policy generated."""
        return sum(len(turn.completion.token_ids) for turn in self.turns)

    @property
    def versions(self) -> set[int]:
        """Versions of the weights that generated it."""
        completions = [turn.completion for turn in self.turns]
        return {v for c in completions for v in (c.weights_version, *(earlier for earlier, _ in c.earlier))}
