"""Says in a line what rollouts and validations pass over, once each; metrics count all of it."""

from __future__ import annotations

from collections.abc import Callable

from ecrl.config.schema import Config
from ecrl.envs.base import Split
from ecrl.rollout.prompt_limit import PromptLimit

_WHERE: dict[Split, str] = {"train": "training", "val": "validation"}
_DROPPED: dict[Split, str] = {"train": "their problems are left out", "val": "they count as wrong"}


class Notices:
    """Shows each kind of line once.

    Args:
        config: the whole configuration.
        say: shows a line to the user.
    """

    def __init__(self, config: Config, say: Callable[[str], None]) -> None:
        self._config = config
        self._say = say
        self._said: set[tuple[str, Split]] = set()

    def overlong(self, problems: int, split: Split, limit: PromptLimit, metric: str) -> None:
        """Say that prompts are too long.

        Args:
            problems: how many; of 0 nothing is said.
            split: where they are from.
            limit: what they exceed.
            metric: which counts them.
        """
        choice = self._config.rollout.overlong_prompts
        becomes = _DROPPED[split] if choice == "drop" else "the policy does not read their middle"
        self._once(
            problems,
            ("overlong", split),
            f"in {_WHERE[split]}, {problems} prompts are longer than the {limit.tokens} tokens that "
            f"{limit.reason} allows; {becomes} (rollout.overlong_prompts={choice}). {metric} counts them.",
        )

    def failed(self, episodes: int, split: Split, metric: str) -> None:
        """Say that the environment's code raised.

        Args:
            episodes: in how many; of 0 nothing is said.
            split: where they are from.
            metric: which counts them.
        """
        self._once(
            episodes,
            ("failed", split),
            f"in {_WHERE[split]}, {self._config.env.id} failed in {episodes} episodes, which score 0 "
            f"(env.on_error=zero). {metric} counts them; the run's errors/ has the tracebacks.",
        )

    def _once(self, count: int, kind: tuple[str, Split], line: str) -> None:
        if count and kind not in self._said:
            self._said.add(kind)
            self._say(f"warning: {line}")
