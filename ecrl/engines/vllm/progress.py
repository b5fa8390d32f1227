"""Counts the tokens that a server has processed, so that its clients see whether it gets on."""

from __future__ import annotations

from typing import Any


class Progress:
    """A stat logger of vLLM, and the factory of itself.

    Attributes:
        tokens: tokens of prompts and completions that were processed since the start.
    """

    def __init__(self) -> None:
        self.tokens = 0

    def __call__(self, *_: Any, **__: Any) -> Progress:
        """Give vLLM this logger."""
        return self

    def record(self, scheduler_stats: Any, iteration_stats: Any, *_: Any, **__: Any) -> None:
        """Count one step."""
        if iteration_stats is not None:
            self.tokens += iteration_stats.num_generation_tokens + iteration_stats.num_prompt_tokens

    def log_engine_initialized(self) -> None:
        """Say nothing."""

    def log(self) -> None:
        """Say nothing."""

    def record_sleep_state(self, *_: Any, **__: Any) -> None:
        """Say nothing."""
