"""Asks a judge about several responses at once; light to import, for processes of their own."""

from __future__ import annotations

import asyncio
from typing import Any

from ecrl.envs.async_steps import close_shared_loop, resolved
from ecrl.envs.base import Problem
from ecrl.envs.judge.env import JudgeEnv


def rewards(env: JudgeEnv, responses: list[str]) -> list[Any]:
    """The rewards of responses that are judged at once; an error where there is none."""

    async def all_of_them() -> list[Any]:
        asked = [env.score(Problem(f"problem {i}", None), text) for i, text in enumerate(responses)]
        return await asyncio.gather(*asked, return_exceptions=True)

    return [getattr(score, "reward", score) for score in resolved(all_of_them())]


def judge_forty(kwargs: dict[str, Any], results: Any) -> None:
    """Put the rewards of forty responses into a queue."""
    results.put(rewards(JudgeEnv(**kwargs), [str(i) for i in range(40)]))
    close_shared_loop()
