"""Where texts become token ids: prompts, and what an environment says between the policy's turns.

The policy's own ids are never touched: a turn's ids follow them as they are, so the ids that training
sees are the ids that the engine saw, whatever the tokenizer would make of the joined text.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ecrl.errors import UsageError

_MARK = "\x1a"  # stands for the policy's turn in a rendered conversation


class Chat:
    """Speaks a tokenizer's chat template where it has one, plain text otherwise.

    Args:
        tokenizer: the policy's.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def opening(self, prompt: str) -> list[int]:
        """Return the ids of a problem's prompt, up to where the policy's first turn begins.

        Raises:
            UsageError: the prompt has no tokens.
        """
        if self._tokenizer.chat_template:
            return self._plain(self._render([{"role": "user", "content": prompt}]))
        ids: list[int] = self._tokenizer(prompt)["input_ids"]
        # Some tokenizers close every text with EOS; a prompt must stay open.
        if ids and ids[-1] == self._tokenizer.eos_token_id:
            ids = ids[:-1]
        if not ids:
            raise UsageError(
                f"The environment's prompt {prompt!r} has no tokens; a prompt needs at least one character."
            )
        return ids

    def reply(self, ended_by: int | None, message: str) -> list[int]:
        """Return the ids between the policy's turn and its next one: the environment's message.

        Args:
            ended_by: the token with which the policy ended its turn; None where it was cut off.
            message: the environment's observation.
        """
        if not self._tokenizer.chat_template:
            return self._plain(message)
        roles = ("user", "assistant", "user")
        texts = ("?", _MARK, message)
        conversation = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]
        ids = self._plain(self._render(conversation).partition(_MARK)[2])
        # The template closes the policy's turn; what the policy has written is not written twice.
        return ids[1:] if ids[:1] == [ended_by] else ids

    def text(self, ids: Sequence[int]) -> str:
        """Return what the environment reads of the policy's turn, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _render(self, conversation: list[dict[str, str]]) -> str:
        return str(
            self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        )

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
