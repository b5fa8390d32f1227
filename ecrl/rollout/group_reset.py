"""Poses one problem in the environments of all its copies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym

from ecrl.envs.base import ReasoningEnv
from ecrl.envs.safe_calls import env_id, reset
from ecrl.errors import UsageError


def reset_group(envs: Sequence[gym.Env[str, str]], arguments: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Reset the environments of a group, whose problem may be expensive to draw.

    Where an episode is a problem and a response, two environments draw the problem, which shows whether the
    seed decides it, and the others take it over.

    Args:
        envs: one for each copy, at least one.
        arguments: of their ``reset``.

    Returns:
        What the first one's ``reset`` returned.

    Raises:
        UsageError: they gave different problems; this ends a run whatever ``env.on_error`` says.
        EcrlError: their code failed.
    """
    drawing = envs[:2] if _single_turn(envs[0].unwrapped) else envs
    (prompt, info), *others = [reset(env, **arguments) for env in drawing]
    for other, _ in others:
        if other != prompt:
            raise UsageError(
                f"{env_id(envs[0])} gave two different problems for one seed: {prompt!r} and {other!r}. "
                "A group needs a deterministic `reset(seed=…)`."
            )
    for env in envs[len(drawing) :]:
        options = {**(arguments["options"] or {}), "problem": info["problem"]}
        reset(env, seed=arguments["seed"], options=options)
    return prompt, info


def _single_turn(env: gym.Env[str, str]) -> bool:
    """Whether an environment leaves ``reset`` and ``step`` as the base class has them."""
    return type(env).reset is ReasoningEnv.reset and type(env).step is ReasoningEnv.step
