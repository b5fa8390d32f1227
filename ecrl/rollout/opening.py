"""What the policy reads of a problem before its first turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gymnasium as gym

from ecrl.envs.base import ReasoningEnv
from ecrl.envs.safe_calls import as_text, env_id, user_code
from ecrl.errors import EcrlError
from ecrl.rollout.chat import Chat
from ecrl.rollout.env_errors import EnvErrors
from ecrl.rollout.group_reset import reset_group
from ecrl.rollout.prompt_limit import PromptLimit


@dataclass(frozen=True)
class Opening:
    """What the policy reads of a problem before its first turn.

    Attributes:
        text: the prompt as the policy reads it.
        ids: its token ids; None if the policy does not read it.
        gold: the right answer, if the environment tells it.
        overlong: whether the prompt is too long, so that it was left out or cut.
    """

    text: str = ""
    ids: list[int] | None = None
    gold: str | None = None
    overlong: bool = False


class Reader:
    """Poses problems in their environments, and tokenizes their prompts.

    Args:
        chat: tokenizes prompts and messages.
        errors: what happens when an environment's code raises.
    """

    def __init__(self, chat: Chat, errors: EnvErrors) -> None:
        self._chat = chat
        self._errors = errors

    def open(
        self, envs: Sequence[gym.Env[str, str]], arguments: dict[str, Any], limit: PromptLimit, place: str
    ) -> Opening | None:
        """Pose a problem in the environments of its copies, which share its prompt, so it is tokenized once.

        Args:
            envs: one for each copy.
            arguments: of their ``reset``.
            limit: the longest prompt.
            place: names the problem in the name of a file.

        Returns:
            What the policy reads; None if an environment's code failed, and that does not end the run.

        Raises:
            EcrlError: the environments' code failed.
            UsageError: they gave different problems, or the prompt is empty or too long.
        """
        try:
            prompt, info = reset_group(envs, arguments)
            with user_code(f"{env_id(envs[0])}.reset"):
                messages = info.get("messages", ())
                for message in messages:
                    as_text(message["role"], "role of a message")
                    as_text(message["content"], "content of a message")
        except EcrlError as error:
            self._errors.judge(error, f"reset-{place}")
            return None
        return self._read(envs[0], prompt, messages, limit, place)

    def _read(
        self,
        env: gym.Env[str, str],
        prompt: str,
        messages: Sequence[Mapping[str, str]],
        limit: PromptLimit,
        place: str,
    ) -> Opening:
        text = self._chat.text(prompt, messages)
        ids: list[int] | None = (whole := self._chat.opening(text))
        overlong = limit.exceeded(whole)
        if overlong:
            ids = limit.cut(whole, prompt, place)
            text = text if ids is None else self._chat.shown(ids)
        try:
            gold = gold_of(env)
        except EcrlError as error:
            self._errors.judge(error, f"gold-{place}", prompt=text)
            gold = None
        return Opening(text, ids, gold, overlong)


def gold_of(env: gym.Env[str, str]) -> str | None:
    """Ask an environment that was just reset for the right answer.

    Raises:
        EcrlError: the environment's code failed.
    """
    inner = env.unwrapped
    if not isinstance(inner, ReasoningEnv):
        return None
    with user_code(f"{env_id(env)}.gold"):
        gold = inner.gold(inner.problem)
        return None if gold is None else as_text(gold, "right answer")
