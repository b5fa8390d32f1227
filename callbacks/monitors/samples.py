"""What the policy writes, as a table in TensorBoard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ecrl.callbacks.monitors.periodic import PeriodicMonitor
from ecrl.training.observer import RolloutObserver

if TYPE_CHECKING:
    from ecrl.rollout.trajectory import Trajectory
    from ecrl.training.module import PolicyModule

LONGEST = 600  # characters of a cell
# In one pass, so that no replacement is escaped again.
ESCAPES = str.maketrans(
    {c: f"&#{ord(c)};" for c in "&\\`*_{}[]<>#|~$"} | {"\r": "", "\n": "<br>"},
)


class SampleMonitor(PeriodicMonitor, RolloutObserver):
    """Shows a few completions with the exact prompt, the extracted and the right answer, and the reward.

    Args:
        every: iterations between tables; None takes ``log.samples_every``.
        count: rows of a table; None takes ``log.samples``.
    """

    def __init__(self, *, every: int | None = None, count: int | None = None) -> None:
        super().__init__(every=every)
        self._count = count

    def on_rollout(self, module: PolicyModule, trajectories: Sequence[Trajectory]) -> None:
        """Write the table when it is time; spread over the problems."""
        count = module.config.log.samples if self._count is None else self._count
        if not count or not self.is_due(module, module.iteration + 1):
            return
        step = max(len(trajectories) // count, 1)
        rows = [
            f"| {cell(t.prompt)} | {cell(t.response)} | {cell(t.answer or '')} | {cell(t.gold or '')} "
            f"| {t.reward:.3g} | {'yes' if t.truncated else ''} |"
            for t in trajectories[::step][:count]
        ]
        head = [
            "| prompt | completion | answer | right answer | reward | cut off |",
            "|---|---|---|---|---|---|",
        ]
        module.recorder.text("samples", "\n".join(head + rows))


def cell(text: str) -> str:
    """Escape a text for a Markdown table, shortened in the middle."""
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]} … {text[-LONGEST // 2 :]}"
    return text.translate(ESCAPES) or "&nbsp;"
