"""Reward functions and a ``load_environment`` as users of other frameworks write them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any


def length(completions: list[Any], **kwargs: Any) -> list[float]:
    return [float(len(c if isinstance(c, str) else c[-1]["content"])) for c in completions]


def equals(
    prompts: list[Any], completions: list[Any], answer: list[str], **kwargs: Any
) -> list[float | None]:
    texts = [c if isinstance(c, str) else c[-1]["content"] for c in completions]
    return [float(text == a) for text, a in zip(texts, answer, strict=True)]


def hangs(completions: list[Any], **kwargs: Any) -> list[float]:
    time.sleep(3600)
    return [1.0]


async def correct(completion: list[dict[str, str]], answer: str) -> float:
    return float(completion[-1]["content"] == answer)


def short(completion: list[dict[str, str]], **kwargs: Any) -> float:
    return 1.0 / (1 + len(completion[-1]["content"]))


def load_environment(size: int = 50) -> Any:
    """The attributes that the documented v0 environment has."""
    rows = [{"question": f"what is {i}?", "answer": str(i)} for i in range(size)]
    rubric = SimpleNamespace(funcs=[correct, short], weights=[1.0, 0.5])
    return SimpleNamespace(get_dataset=lambda: rows, rubric=rubric)
