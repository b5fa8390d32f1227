"""Tokenizes the environment's texts: prompts, and the messages between the policy's turns.

The policy's own token ids are never re-tokenized: the ids of a message are appended to them. So training
uses the same ids as the engine, even if the tokenizer would split the joined text differently.
"""

from __future__ import annotations

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from ecrl.errors import UsageError

_PLACEHOLDER = "\x1a"  # stands for the policy's turn in a rendered conversation


class Chat:
    """Renders texts with the tokenizer's chat template if it has one, else as plain text.

    Args:
        tokenizer: the policy's tokenizer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer

    def opening(self, prompt: str) -> list[int]:
        """Return the ids of a problem's prompt, up to the start of the policy's first turn.

        Raises:
            UsageError: the prompt has no tokens.
        """
        if self._tokenizer.chat_template:
            return self._plain(self._render([{"role": "user", "content": prompt}]))
        ids: list[int] = self._tokenizer(prompt)["input_ids"]
        # Some tokenizers append EOS to every text; the policy must continue the prompt.
        if ids and ids[-1] == self._tokenizer.eos_token_id:
            ids = ids[:-1]
        if not ids:
            raise UsageError(
                f"The environment's prompt {prompt!r} has no tokens; a prompt needs at least one character."
            )
        return ids

    def reply(self, ended_by: int | None, message: str) -> list[int]:
        """Return the ids of the environment's message between two turns of the policy.

        Args:
            ended_by: the EOS token with which the policy ended its turn; None if the turn was cut off.
            message: the environment's observation.
        """
        if not self._tokenizer.chat_template:
            return self._plain(message)
        roles = ("user", "assistant", "user")
        texts = ("?", _PLACEHOLDER, message)
        conversation = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]
        ids = self._plain(self._render(conversation).partition(_PLACEHOLDER)[2])
        # The template ends the policy's turn with EOS, which the policy may have generated already.
        return ids[1:] if ids[:1] == [ended_by] else ids

    def text(self, ids: Sequence[int]) -> str:
        """Return the text of the policy's turn for the environment, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _render(self, conversation: list[dict[str, str]]) -> str:
        return str(
            self._tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
        )

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids
