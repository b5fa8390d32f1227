"""Writes every rollout and every answer of a validation as a Parquet part, while training goes on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L

from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.token_batch import TokenBatch
from ecrl.rollout.part_rows import (
    ScoredTokens,
    TrainedTokens,
    response_columns,
    scored_tokens,
    token_columns,
    trained_tokens,
)
from ecrl.rollout.rollout_queue import Rollout
from ecrl.rollout.trajectory import Trajectory
from ecrl.runs.rollouts import PartWriter, part_path, prune_rollouts
from ecrl.training.background import Background
from ecrl.training.observer import DataObserver

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule

MOST_PENDING = 1  # writes that wait; with more, rollouts would pile up in memory


@dataclass(frozen=True)
class _Update:
    """A rollout, what trains of it, and its minibatches as the first pass over it scored them."""

    rollout: Rollout
    batch: RolloutBatch
    step: int
    scored: list[ScoredTokens] = field(default_factory=list)

    @property
    def facts(self) -> dict[str, Any]:
        """See ``facts_of``."""
        batch = self.batch
        return {"step": self.step, "temperature": batch.temperature, "own_logprobs": batch.own_logprobs}


class RolloutWriter(L.Callback, DataObserver):
    """Writes the parts of ``rollouts/``, on the first process, which sees all that is drawn.

    What cannot be written is said once, and training goes on. At a checkpoint all parts so far are on disk.

    Args:
        run_dir: folder of the run.
        tokens: whether each token is written too.
        keep: number of last iterations whose parts stay; None keeps all.
        say: shows a line to the user.
    """

    def __init__(self, run_dir: Path, tokens: bool, keep: int | None, say: Callable[[str], None]) -> None:
        self._run_dir = run_dir
        self._tokens = tokens
        self._keep = keep
        self._say = say
        self._background = Background(MOST_PENDING)
        self._update: _Update | None = None
        self._answered: dict[Path, None] = {}
        self._text_of: Callable[[int], str] | None = None
        # Of the background's thread alone:
        self._open: dict[Path, PartWriter] = {}
        self._lost: set[Path] = set()

    # ---------------------------------------------------------------- what is seen

    def on_batch(self, module: PolicyModule, rollout: Rollout, batch: RolloutBatch) -> None:
        """Keep a rollout until its update is over."""
        self._learn_to_decode(module)
        self._update = _Update(rollout, batch, module.version)

    def on_tokens(self, module: PolicyModule, tokens: TokenBatch) -> None:
        """Keep the first pass over the batch."""
        update = self._update
        if update is not None and sum(len(s.logprobs) for s in update.scored) < update.batch.num_tokens:
            update.scored.append(scored_tokens(tokens))

    def on_answers(self, module: PolicyModule, of: str, answers: Sequence[Trajectory], greedy: bool) -> None:
        """Add answers to the part of a validation, which is complete when the validation is over."""
        self._learn_to_decode(module)
        at_start = module.trainer.state.fn == "validate"
        iteration = 0 if at_start else module.iteration + 1
        path = part_path(self._run_dir, iteration, of)
        self._answered[path] = None
        self._background.submit(self._append, path, iteration, answers, greedy)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Complete the parts of a validation."""
        for path in self._answered:
            self._background.submit(self._complete, path)
        self._answered.clear()
        if trainer.state.fn == "validate":  # training begins by deleting what is incomplete
            self._background.wait()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write the rollout of a finished iteration."""
        self._hand_over()

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Write the rollout of an iteration that failed; one that was interrupted at once is left."""
        if isinstance(exception, Exception):
            self._hand_over()
        self._background.close()

    def on_save_checkpoint(
        self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Have all parts on disk that a run going on from here would not write again."""
        self._background.wait()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write what is not written yet."""
        self._background.close()

    def _learn_to_decode(self, module: PolicyModule) -> None:
        """Take a tokenizer of our own: another thread cannot use one that is in use."""
        if self._tokens and self._text_of is None:
            tokenizer = deepcopy(module.tokenizer)
            self._text_of = cache(lambda token: str(tokenizer.decode([token])))

    def _hand_over(self) -> None:
        if self._update is not None:
            update, self._update = self._update, None
            self._background.submit(self._write_update, update)

    # ---------------------------------------------------------------- in the background

    def _write_update(self, update: _Update) -> None:
        drawn, iteration = update.rollout.drawn, update.rollout.iteration + 1
        trained: list[TrainedTokens | None] = [None] * len(drawn)
        for i, tokens in zip(update.rollout.kept, trained_tokens(update.batch, update.scored), strict=True):
            trained[i] = tokens
        path = part_path(self._run_dir, iteration)
        self._write(path, iteration, drawn, trained, facts=update.facts)
        self._complete(path)
        prune_rollouts(self._run_dir, iteration, self._keep)

    def _append(self, path: Path, iteration: int, answers: Sequence[Trajectory], greedy: bool) -> None:
        self._write(path, iteration, answers, [None] * len(answers), greedy)

    def _write(
        self,
        path: Path,
        iteration: int,
        trajectories: Sequence[Trajectory],
        trained: Sequence[TrainedTokens | None],
        greedy: bool = False,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        columns = response_columns(trajectories, iteration, trained, greedy)
        if self._text_of is not None:
            columns |= token_columns(trajectories, trained, self._text_of)
        with self._lost_with_a_word(path):
            if path not in self._open and path not in self._lost:
                self._open[path] = PartWriter(path, self._tokens, facts)
            if path in self._open:
                self._open[path].write(columns)

    def _complete(self, path: Path) -> None:
        with self._lost_with_a_word(path):
            if path in self._open:
                self._open[path].close()
                del self._open[path]

    @contextmanager
    def _lost_with_a_word(self, path: Path) -> Iterator[None]:
        """Go on without a part that the block cannot write; the first one is said."""
        try:
            yield
        except (OSError, ImportError) as error:
            if path in self._open:
                self._open.pop(path).discard()
            said, reason = bool(self._lost), " ".join(str(error).split())
            self._lost.add(path)
            if not said:
                with suppress(OSError):  # where the disk is full, the run's log cannot take it either
                    self._say(f"log.rollouts: {path} cannot be written ({reason}); training goes on.")
