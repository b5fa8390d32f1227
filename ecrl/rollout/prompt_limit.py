"""The longest prompt that a policy reads, and what becomes of a longer one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ecrl.config.schema import Config
from ecrl.errors import UsageError


@dataclass(frozen=True)
class PromptLimit:
    """The most tokens that a policy reads before a turn.

    Attributes:
        tokens: how many; None for no limit.
        reason: what sets the limit, for messages.
        overlong: ``rollout.overlong_prompts``.
    """

    tokens: int | None = None
    reason: str = ""
    overlong: str = "drop"

    def exceeded(self, ids: Sequence[int]) -> bool:
        """Whether a prompt is too long."""
        return self.tokens is not None and len(ids) > self.tokens

    def cut(self, ids: list[int], prompt: str, place: str) -> list[int] | None:
        """Return what the policy reads of a prompt that is too long; None for nothing.

        What stays of a truncated prompt are its beginning and its end.

        Args:
            ids: the prompt.
            prompt: its text, for messages.
            place: names the problem in messages.

        Raises:
            UsageError: ``overlong`` is ``error``.
        """
        if self.tokens is None or self.overlong == "drop":
            return None
        if self.overlong == "error":
            raise UsageError(
                f"The prompt of {place} has {len(ids)} tokens, but {self.reason} allows {self.tokens}: "
                f"{prompt if len(prompt) <= 80 else prompt[:79] + '…'!r}. "
                "Raise the limit, or set rollout.overlong_prompts=drop or truncate."
            )
        end = self.tokens // 2
        return ids[: self.tokens - end] + ids[len(ids) - end :]


def prompt_limit(config: Config, window: int | None, max_new_tokens: int, training: bool) -> PromptLimit:
    """Return the limit beside completions of a length.

    Args:
        config: the whole configuration.
        window: tokens that the model can read and write together; None for no limit.
        max_new_tokens: the most tokens of a completion.
        training: the sequences are trained on, so that ``update.max_tokens`` must hold each.
    """
    wholes = {f"the model's window of {window} tokens": window}
    if longest := config.engine.get("max_model_len"):
        wholes[f"engine.max_model_len={longest}"] = longest
    if training:
        wholes[f"update.max_tokens={config.update.max_tokens}"] = config.update.max_tokens
    limits = {
        f"{name}, beside {max_new_tokens} new ones,": max(whole - max_new_tokens, 1)
        for name, whole in wholes.items()
        if whole is not None
    }
    if config.rollout.max_prompt_tokens is not None:
        limits["rollout.max_prompt_tokens"] = config.rollout.max_prompt_tokens
    reason = min(limits, key=lambda name: limits[name], default="")
    return PromptLimit(limits.get(reason), reason, config.rollout.overlong_prompts)
