"""Tokenizes the environment's texts: prompts, and the messages between the policy's turns.

The policy's own token ids are never re-tokenized: the ids of a message are appended to them. So training
uses the same ids as the engine, even if the tokenizer would split the joined text differently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from ecrl.config.schema import ChatConfig
from ecrl.errors import UsageError

_PLACEHOLDER = "\x1a"  # stands for the policy's turn in a rendered conversation


class Chat:
    """Renders conversations with the tokenizer's chat template if it has one, else their texts as they are.

    Args:
        tokenizer: the policy's tokenizer.
        config: system message, arguments of the template, and the start of the policy's turns.

    Raises:
        UsageError: the template does not render, or there is none for what is asked.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, config: ChatConfig | None = None) -> None:
        self._tokenizer = tokenizer
        self._config = config or ChatConfig()
        if tokenizer.chat_template:
            self.text("?")
            return
        for key in ("system", "kwargs"):
            if getattr(self._config, key):
                raise UsageError(
                    f"model.chat.{key} is for a chat template, and the tokenizer has none; give one with "
                    "model.chat.template=FILE."
                )

    def text(self, prompt: str, messages: Sequence[Mapping[str, str]] = ()) -> str:
        """Return the text of a problem's prompt, up to where the policy goes on.

        Args:
            prompt: the prompt, which a policy without a chat template reads.
            messages: the conversation that it stands for; if empty, it is one message of the user's.

        Raises:
            UsageError: the template does not render.
        """
        if not self._tokenizer.chat_template:
            return prompt + self._config.prefill
        conversation = [dict(m) for m in messages] or [{"role": "user", "content": prompt}]
        if self._config.system and conversation[0]["role"] != "system":
            conversation.insert(0, {"role": "system", "content": self._config.system})
        return self._render(conversation)

    def opening(self, text: str) -> list[int]:
        """Return the ids of what `text` gave.

        Raises:
            UsageError: there are none.
        """
        if self._tokenizer.chat_template:
            return self._plain(text)
        ids: list[int] = self._tokenizer(text)["input_ids"]
        # Some tokenizers append EOS to every text; the policy must continue the prompt.
        if ids and ids[-1] == self._tokenizer.eos_token_id:
            ids = ids[:-1]
        if not ids:
            raise UsageError(
                f"The environment's prompt {text!r} has no tokens; a prompt needs at least one character."
            )
        return ids

    def reply(self, ended_by: int | None, message: str) -> list[int]:
        """Return the ids of the environment's message between two turns of the policy.

        Args:
            ended_by: the EOS token with which the policy ended its turn; None if the turn was cut off.
            message: the environment's observation.
        """
        if not self._tokenizer.chat_template:
            return self._plain(message + self._config.prefill)
        roles = ("user", "assistant", "user")
        texts = ("?", _PLACEHOLDER, message)
        conversation = [{"role": r, "content": t} for r, t in zip(roles, texts, strict=True)]
        ids = self._plain(self._render(conversation).partition(_PLACEHOLDER)[2])
        # The template ends the policy's turn with EOS, which the policy may have generated already.
        return ids[1:] if ids[:1] == [ended_by] else ids

    def shown(self, ids: Sequence[int]) -> str:
        """Return the text of what the policy reads, special tokens included."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False))

    def response(self, ids: Sequence[int]) -> str:
        """Return the text of the policy's turn for the environment, without special tokens."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))

    def _render(self, conversation: list[dict[str, str]]) -> str:
        try:
            text = self._tokenizer.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=True, **self._config.kwargs
            )
        except (TemplateError, TypeError, ValueError, KeyError) as error:
            roles = ", ".join(message["role"] for message in conversation)
            raise UsageError(
                f"The chat template does not render a conversation of {roles}: {error}. Give another with "
                "model.chat.template=FILE, or other model.chat.kwargs."
            ) from None
        return str(text) + self._config.prefill

    def _plain(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids


def set_template(tokenizer: PreTrainedTokenizerBase, config: ChatConfig) -> None:
    """Give the tokenizer the configured chat template, which it keeps when it is saved.

    Raises:
        UsageError: the file cannot be read.
    """
    if config.template is None:
        return
    shipped = {Path(file.name).stem: file for file in _shipped()}
    try:
        file = shipped.get(config.template) or Path(config.template)
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"model.chat.template={config.template!r} cannot be read: {error}. Give a file, or one of the "
            f"names {', '.join(shipped)}."
        ) from None


def _shipped() -> list[Traversable]:
    """The templates that are part of the package."""
    return sorted((resources.files("ecrl.configs") / "chat_template").iterdir(), key=lambda file: file.name)
