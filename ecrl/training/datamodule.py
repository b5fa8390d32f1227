"""The DataModule: an epoch's training data is a fresh rollout of the current policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning as L
import numpy as np
from torch import Tensor

from ecrl.algorithm.mismatch import mismatch
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.rollout_batch import REFERENCE_LOGPROBS, RolloutBatch
from ecrl.algorithm.strategy import Strategy
from ecrl.config.eval_sets import ValidationSet, validation_sets
from ecrl.config.schema import Config
from ecrl.engines.base import Sampling
from ecrl.envs.async_steps import close_shared_loop
from ecrl.metrics import MetricsRecorder
from ecrl.policy.weights import HFWeights
from ecrl.rollout.batching import (
    build_batch,
    sequence_entropy,
    split_minibatches,
    with_advantages,
)
from ecrl.rollout.collector import Collector
from ecrl.rollout.env_pools import TRAIN
from ecrl.rollout.rollout_metrics import rollout_entropy, rollout_metrics
from ecrl.rollout.rollout_queue import Rollout, RolloutQueue
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.collecting import build_collector, build_lanes
from ecrl.training.drawing import Drawing
from ecrl.training.idle_time import IdleTime
from ecrl.training.notices import Notices
from ecrl.training.observer import DataObserver, RolloutObserver
from ecrl.training.scoring import Scorer
from ecrl.training.validation import Evaluation, due_sets, evaluate, number_of_problems, sampling_of

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule


class _Batches:
    """Ready-made batches of known number; Lightning iterates over it once an epoch."""

    def __init__(self, make: Callable[[], Iterator[Any]], length: int) -> None:
        self._make = make
        self._length = length

    def __iter__(self) -> Iterator[Any]:
        return self._make()

    def __len__(self) -> int:
        return self._length


class RolloutDataModule(L.LightningDataModule):
    """Collects rollouts, scores them, and splits them into optimizer minibatches.

    Args:
        config: the run's configuration.
        objective: its estimator and filters.
        strategies: may add columns to a rollout.
        scorer: scores what was drawn; its policy goes to the engine.
        say: shows a line to the user, from the first process only.
    """

    def __init__(
        self,
        config: Config,
        objective: Objective,
        strategies: Sequence[Strategy],
        scorer: Scorer,
        say: Callable[[str], None] = print,
    ) -> None:
        super().__init__()
        self.config = config
        self.objective = objective
        self.strategies = list(strategies)
        self.scorer = scorer
        self.sets = validation_sets(config)
        self._collector: Collector | None = None
        self._drawing: Drawing | None = None
        self._idle: IdleTime | None = None
        self._restored: dict[str, Any] = {}
        self._notices = Notices(say)

    @property
    def module(self) -> PolicyModule:
        """The module under training: it counts iterations and records metrics."""
        module: Any = self.trainer.lightning_module if self.trainer else None
        return module  # type: ignore[no-any-return]

    @property
    def _run_dir(self) -> Path | None:
        return self.module.run_dir if self.module else None

    @property
    def collector(self) -> Collector:
        """Made at first use, when the policy is on its device."""
        if self._collector is None:
            self._collector = build_collector(self.config, self.scorer, self._run_dir)
        return self._collector

    @property
    def drawing(self) -> Drawing:
        """Draws the rollouts; made at first use, when it is known where the run goes on."""
        if self._drawing is None:
            lanes = None
            if self.config.rollout.partial:
                lanes = build_lanes(self.config, self.scorer, self._run_dir, self.collector)
            self._drawing = Drawing(
                self.config, self.objective.filters, self.collector, lanes, **self._restored
            )
        return self._drawing

    @property
    def queue(self) -> RolloutQueue:
        """Rollouts in training order."""
        return self.drawing.queue

    @property
    def idle(self) -> IdleTime:
        """Measures when engine and trainer have nothing to do."""
        if self._idle is None:
            self._idle = IdleTime(self.collector.engine_clock)
        return self._idle

    # ---------------------------------------------------------------- training

    def train_dataloader(self) -> _Batches:
        """Each pass over it is one iteration: it collects a rollout when its first batch is asked for."""
        update = self.config.update
        return _Batches(self._iteration, update.minibatches * update.epochs)

    def _iteration(self) -> Iterator[RolloutBatch]:
        """Collect a rollout with the current policy and yield its optimizer minibatches."""
        module, update = self.module, self.config.update
        iteration = module.iteration
        with self._precision():
            with self.idle.waiting.running():
                self.drawing.make_room()
            with module.recorder.timer("sync"), self.drawing.paused():
                self._sync()
            with self.idle.waiting.running():
                rollout = self.queue.next(iteration, module.version, module.temperature)
            self.collector.engine.sleep()
            for part, seconds in rollout.seconds.items():
                module.recorder.add_seconds(part, seconds)
            batch = self._prepare(rollout)
        yield from split_minibatches(batch, update.minibatches, update.epochs, self.config.seed, iteration)

    def _prepare(self, rollout: Rollout) -> RolloutBatch:
        """Turn a rollout into a batch: old log-probs, what observers and strategies add, then advantages."""
        module = self.module
        batch = build_batch([rollout.drawn[i] for i in rollout.kept], rollout.iteration)
        batch = replace(batch, temperature=rollout.temperature)
        # Log-probs of other weights or of another engine are not the trainer's old log-probs.
        if not self.collector.engine.logprobs_exact or rollout.version != module.version:
            if self.config.rollout.old_logprobs == "engine":
                batch = replace(batch, own_logprobs=False)
            else:
                with module.recorder.timer("score"):
                    logprobs, entropy = self.scorer.score(batch)
                batch = replace(batch, old_logprobs=logprobs, old_entropy=entropy)
        if len(batch):
            module.policy_entropy = float(sequence_entropy(batch).mean())
        else:  # no group trains, as in a collapsed run: show the entropy of what was drawn
            drawn = rollout_entropy(rollout.drawn)
            module.policy_entropy = float("nan") if drawn is None else drawn
        module.recorder.record("rollout/groups_trained", len(set(batch.group_ids.tolist())))
        self._observe(rollout.drawn, batch)
        self._count(rollout)
        with module.recorder.timer("score"):
            batch = replace(batch, columns=self._columns(batch))
        with module.recorder.timer("auxiliary") if module.auxiliary else nullcontext():
            for auxiliary in module.auxiliary if len(batch) else ():
                columns = auxiliary.learn(batch, module.recorder)
                batch = replace(batch, columns={**batch.columns, **columns})
        batch = with_advantages(batch, self.objective)
        for callback in module.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, DataObserver):
                callback.on_batch(module, rollout, batch)
        return batch

    def _columns(self, batch: RolloutBatch) -> dict[str, Tensor]:
        """The named ``[N]`` tensors that strategies and the objective read."""
        columns = dict(batch.columns)
        for strategy in self.strategies:
            columns |= strategy.extra_columns(batch)
        if self.objective.needs_reference and REFERENCE_LOGPROBS not in columns:
            columns[REFERENCE_LOGPROBS] = self.scorer.reference_logprobs(batch)
        return columns

    def _observe(self, trajectories: Sequence[Trajectory], batch: RolloutBatch) -> None:
        """Record the metrics of a rollout before any filter, and how far the engine is from the trainer."""
        module, numbers = self.module, rollout_metrics(trajectories)
        if batch.own_logprobs:
            numbers |= mismatch(batch.old_logprobs, batch.engine_logprobs)
        for name, value in numbers.items():
            module.recorder.record(name, value)
        for callback in module.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, RolloutObserver):
                callback.on_rollout(module, trajectories)

    def _count(self, rollout: Rollout) -> None:
        """Record what the rollout passed over."""
        record = self.module.recorder.record
        record("rollout/overlong_prompts", rollout.overlong)
        if self.config.rollout.partial:
            record("rollout/partial", float(np.mean([len(t.versions) > 1 for t in rollout.drawn])))
        limit = self.collector.prompt_limit(TRAIN, self.drawing.sampling(rollout.temperature))
        self._notices.overlong(rollout.overlong, TRAIN, limit, "rollout/overlong_prompts")
        if self.config.env.on_error == "zero":
            record("rollout/env_errors", rollout.failed)
            self._notices.failed(rollout.failed, TRAIN, self.config.env.id, "rollout/env_errors")

    # ---------------------------------------------------------------- validation

    def val_dataloader(self) -> _Batches:
        """Each pass over it gives one batch: what the policy earns on the sets that are due."""
        return _Batches(self._validation, 1)

    def _validation(self) -> Iterator[Evaluation]:
        """Validate when the batch is asked for: Lightning also makes an iterator that it does not use."""
        yield self._validate()

    def _validate(self) -> Evaluation:
        module = self.module
        # In an epoch's validation Lightning does not yet count the iteration as finished.
        at_start = self.trainer.state.fn == "validate"  # type: ignore[union-attr]
        due = due_sets(self.sets, 0 if at_start else module.iteration + 1)
        with self.idle.left_out(), module.recorder.timer("validate"), self._synced():
            sizes = {of.name: self.collector.problems(of.name) for of in due}
            evaluation = evaluate(due, sizes, self._answer_and_show, mean=len(due) == len(self.sets))
        for of in due:
            self._notice(of, evaluation.metrics)
        return evaluation

    def _notice(self, of: ValidationSet, metrics: Mapping[str, float]) -> None:
        """Say what the answers to a validation set passed over."""
        overlong, errors = f"val/{of.name}/overlong_prompts", f"val/{of.name}/env_errors"
        limit = self.collector.prompt_limit(of.name, sampling_of(of))
        self._notices.overlong(metrics[overlong], of.name, limit, overlong)
        self._notices.failed(metrics.get(errors, 0), of.name, of.env.id, errors)

    def _answer_and_show(
        self, of: ValidationSet, problems: Sequence[int], copies: int, sampling: Sampling
    ) -> list[Trajectory]:
        answers = self._answer(of, problems, copies, sampling)
        for callback in self.trainer.callbacks:  # type: ignore[union-attr]
            if isinstance(callback, DataObserver):
                callback.on_answers(self.module, of.name, answers, greedy=sampling.temperature == 0)
        return answers

    def _answer(
        self, of: ValidationSet, problems: Sequence[int], copies: int, sampling: Sampling
    ) -> list[Trajectory]:
        # Generation and verification count as validation's time, as a whole.
        unseen = MetricsRecorder()
        return self.collector.collect(of.name, problems, copies, sampling, self.module.iteration, unseen)

    def probe(self, problems: int) -> list[Trajectory]:
        """Answer problems of the first validation set once each, with the current policy.

        Args:
            problems: number of problems; fewer where the set has fewer. Those that the policy does not read
                have no answer.
        """
        of = self.sets[0]
        with self._synced():
            count = min(problems, number_of_problems(of, self.collector.problems(of.name)))
            answers = self._answer(of, range(count), 1, sampling_of(of))
        return [answer for answer in answers if answer.turns]

    @contextmanager
    def _synced(self) -> Iterator[None]:
        """Draw within the block with the current policy."""
        with self._precision():
            if self._drawing is not None:
                self._drawing.queue.settle()
            self._sync()
            yield
            self.collector.engine.sleep()

    # ---------------------------------------------------------------- both

    def _precision(self) -> Any:
        """Lightning autocasts training steps only; a rollout is drawn and scored in the same precision."""
        return self.trainer.precision_plugin.forward_context()  # type: ignore[union-attr]

    def _sync(self) -> None:
        engine = self.collector.engine
        engine.wake()
        model = self.scorer.model
        engine.sync_weights(HFWeights(model.lm, model.device), self.module.version)

    def transfer_batch_to_device(self, batch: Any, device: Any, dataloader_idx: int) -> Any:
        """Leave batches where they are: scoring moves what it needs."""
        return batch

    def on_exception(self, exception: BaseException) -> None:
        """End what is being drawn: else the process would wait for it at its end."""
        if self._drawing is not None:
            self._drawing.close()
        close_shared_loop()

    def teardown(self, stage: str) -> None:
        """Release the engine, and what asynchronous environments hold."""
        if stage == "validate":
            return
        if self._drawing is not None:
            self._drawing.close()
            self._drawing = None
        if self._collector is not None:
            self._collector.engine.close()
            self._collector = self._idle = None
        close_shared_loop()

    def state_dict(self) -> dict[str, Any]:
        """Return the rollouts drawn ahead, and the number of the problem that comes next."""
        return self.drawing.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rollouts of a checkpoint."""
        self._restored = state_dict
