"""How a policy with a chat template is asked for an answer, and how the answer is read from its response."""

from __future__ import annotations

_BOX, _TAG = ("\\boxed{", "}"), ("<answer>", "</answer>")


def ask(task: str, form: str) -> list[dict[str, str]]:
    """Return the conversation that poses a task in words.

    Args:
        task: what to do, in whole sentences.
        form: what the answer is to look like, e.g. ``the final integer``.
    """
    text = f"{task}\n\nThink step by step, then put {form} within \\boxed{{}}."
    return [{"role": "user", "content": text}]


def final_answer(response: str) -> str:
    """Return what the last ``\\boxed{…}`` or ``<answer>…</answer>`` holds; the whole response without either.

    A box or tag that is not closed was cut off, and then the whole response counts.
    """
    opening, closing = max((_BOX, _TAG), key=lambda marks: response.rfind(marks[0]))
    _, found, rest = response.rpartition(opening)
    inner, closed, _ = rest.partition(closing)
    return inner.strip() if found and closed else response
