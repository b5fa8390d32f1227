"""Says in a line what rollouts and validations pass over, once each; metrics count all of it."""

from __future__ import annotations

from collections.abc import Callable

from ecrl.rollout.env_pools import TRAIN
from ecrl.rollout.prompt_limit import PromptLimit


class Notices:
    """Shows each kind of line once for each pool of environments.

    Args:
        say: shows a line to the user.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[tuple[str, str]] = set()

    def overlong(self, problems: float, pool: str, limit: PromptLimit, metric: str) -> None:
        """Say that prompts are too long.

        Args:
            problems: how many; of 0 nothing is said.
            pool: where they are from.
            limit: what they exceed.
            metric: which counts them.
        """
        becomes = "their problems are left out" if pool == TRAIN else "they count as wrong"
        if limit.overlong == "truncate":
            becomes = "the policy does not read their middle"
        self._once(
            problems,
            "overlong",
            pool,
            f"{_many(problems, 'prompt is', 'prompts are')} longer than the {limit.tokens} tokens that "
            f"{limit.reason} allows; "
            f"{becomes} (rollout.overlong_prompts={limit.overlong}). {metric} counts them.",
        )

    def failed(self, episodes: float, pool: str, env_id: str, metric: str) -> None:
        """Say that an environment's code raised.

        Args:
            episodes: in how many; of 0 nothing is said.
            pool: where they are from.
            env_id: the environment.
            metric: which counts them.
        """
        self._once(
            episodes,
            "failed",
            pool,
            f"{env_id} failed in {_many(episodes, 'episode', 'episodes')}, which score 0 "
            f"(env.on_error=zero). {metric} counts them; the run's errors/ has the tracebacks.",
        )

    def _once(self, count: float, kind: str, pool: str, line: str) -> None:
        if count and (kind, pool) not in self._said:
            self._said.add((kind, pool))
            where = "training" if pool == TRAIN else f"validation of {pool}"
            self._say(f"warning: in {where}, {line}")


def _many(count: float, one: str, several: str) -> str:
    return f"{count:.0f} {one if count == 1 else several}"
