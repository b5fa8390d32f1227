"""Says when a run looks alive but is not: nothing is learnt, all is cut off, entropy is gone or runs away."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, cast

import lightning as L

from ecrl.runs.metrics_file import read_metrics

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule

PATIENCE = 5  # iterations in a row that make a symptom
CUT_OFF = 0.95  # share of responses
COLLAPSED = 0.05  # nats
#: Entropy beyond its start: so many times as much, and so many nats more.
RISEN = 1.25, 0.1
MISMATCH = 0.05  # nats a token

Row = Mapping[str, float | None]


def _always(rows: Sequence[Row], holds: Callable[[Row], bool]) -> bool:
    """Whether something holds in each of the last iterations, and there are enough of them."""
    return len(rows) >= PATIENCE and all(holds(row) for row in rows[-PATIENCE:])


def _value(row: Row, name: str) -> float:
    """The number of that name; NaN, of which nothing holds, where there is none."""
    value = row.get(name)
    return float("nan") if value is None else value


def _without_signal(row: Row) -> bool:
    return row.get("rollout/groups_trained") == 0 or row.get("rollout/zero_variance") == 1


def nothing_learnt(rows: Sequence[Row]) -> str | None:
    """No group tells right from wrong, so no gradient."""
    if not _always(rows, _without_signal):
        return None
    reward = _value(rows[-1], "rollout/reward")
    remedy = (
        "harder problems"
        if reward >= 1
        else "easier problems, a larger rollout.group_size, or more rollout.max_new_tokens"
    )
    return (
        f"nothing was learnt in the last {PATIENCE} iterations: in every group all rewards are equal (mean "
        f"reward {reward:.2f}). Try {remedy}; the table of samples shows what was drawn."
    )


def cut_off(rows: Sequence[Row]) -> str | None:
    """Nearly every response is cut off before its answer."""
    if not _always(rows, lambda r: _value(r, "rollout/truncated") >= CUT_OFF):
        return None
    return (
        f"{_value(rows[-1], 'rollout/truncated'):.0%} of the responses are cut off at "
        "rollout.max_new_tokens; raise it, or see in the table of samples whether answers end at all."
    )


def collapsed(rows: Sequence[Row]) -> str | None:
    """Entropy is spent: hardly anything else is tried."""
    if not _always(rows, lambda r: _value(r, "policy/entropy") < COLLAPSED):
        return None
    return (
        f"policy entropy is {_value(rows[-1], 'policy/entropy'):.3f} nats: it has collapsed, and little more "
        "will be learnt. Go back to an earlier checkpoint with a strategy that holds it (`ecrl strategies`)."
    )


def risen(rows: Sequence[Row]) -> str | None:
    """Entropy has grown beyond where it started."""
    first = _value(rows[0], "policy/entropy") if rows else float("nan")
    factor, more = RISEN
    if not _always(rows, lambda r: _value(r, "policy/entropy") > max(factor * first, first + more)):
        return None
    return (
        f"policy entropy rose from {first:.2f} to {_value(rows[-1], 'policy/entropy'):.2f} nats: a strategy "
        "pushes too hard, or the learning rate is too high."
    )


def engine_differs(rows: Sequence[Row]) -> str | None:
    """The engine draws from another distribution than the trainer's."""
    if not _always(rows, lambda r: _value(r, "mismatch/kl") > MISMATCH):
        return None
    return (
        f"the engine's distribution is {_value(rows[-1], 'mismatch/kl'):.3f} nats a token from the "
        "trainer's; add the strategy importance_correction, or serve in a finer dtype (docs/serving.md)."
    )


SYMPTOMS: tuple[Callable[[Sequence[Row]], str | None], ...] = (
    nothing_learnt,
    cut_off,
    collapsed,
    risen,
    engine_differs,
)


class HealthMonitor(L.Callback):
    """Says each symptom once when it begins, and again only after it was gone.

    It stands behind the metrics writer, whose rows it reads; so a resumed run judges by the whole history.

    Args:
        run_dir: where ``metrics.jsonl`` lies.
        say: shows a line to the user.
    """

    def __init__(self, run_dir: Path, say: Callable[[str], None]) -> None:
        self._path = run_dir / "metrics.jsonl"
        self._say = say
        self._rows: list[Row] = []
        self._said: set[str] = set()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the iterations before the checkpoint."""
        before = read_metrics(self._path) if trainer.is_global_zero and self._path.exists() else []
        self._rows = [row for row in before if row["iteration"]]

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Look at the finished iteration."""
        if not trainer.is_global_zero:
            return
        self._rows.append(cast("PolicyModule", pl_module).report.numbers)
        for symptom in SYMPTOMS:
            text = symptom(self._rows)
            if text and symptom.__name__ not in self._said:
                self._say(f"warning: {text}")
            (self._said.add if text else self._said.discard)(symptom.__name__)
