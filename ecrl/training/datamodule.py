"""The DataModule: an epoch's training data is a fresh rollout of the current policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
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
from ecrl.errors import EcrlError
from ecrl.metrics import MetricsRecorder
from ecrl.policy.weights import HFWeights
from ecrl.rollout.batching import (
    build_batch,
    kept_by,
    sequence_entropy,
    split_minibatches,
    with_advantages,
)
from ecrl.rollout.collector import Chosen, Collector
from ecrl.rollout.env_pools import TRAIN
from ecrl.rollout.rollout_metrics import rollout_entropy, rollout_metrics
from ecrl.rollout.rollout_queue import Rollout, RolloutQueue
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.collecting import Lanes, build_collector, build_lanes
from ecrl.training.idle_time import IdleTime
from ecrl.training.notices import Notices
from ecrl.training.observer import RolloutObserver
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
        self._queue: RolloutQueue | None = None
        self._idle: IdleTime | None = None
        self._restored: list[dict[str, Any]] = []
        self._next_problem = 0
        self._lanes: Lanes | None = None
        self._begun: dict[int, Chosen] = {}  # the problems of rollouts that are drawn at the same time
        self._notices = Notices(say)

    @property
    def module(self) -> PolicyModule:
        """The module under training: it counts iterations and records metrics."""
        module: Any = self.trainer.lightning_module if self.trainer else None
        return module  # type: ignore[no-any-return]

    @property
    def collector(self) -> Collector:
        """Made at first use, when the policy is on its device."""
        if self._collector is None:
            run_dir = self.module.run_dir if self.module else None
            self._collector = build_collector(self.config, self.scorer, run_dir)
        return self._collector

    @property
    def queue(self) -> RolloutQueue:
        """Rollouts in training order."""
        if self._queue is None:
            staleness, engine = self.config.rollout.staleness, self.collector.engine
            if self.config.rollout.partial:
                run_dir = self.module.run_dir if self.module else None
                self._lanes = build_lanes(self.config, self.scorer, run_dir, self.collector)
            self._queue = RolloutQueue(
                self._draw, staleness, engine.disaggregated, self.config.rollout.partial, self._begin
            )
            self._queue.load_state_dict(self._restored)
        return self._queue

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
            queue = self.queue
            if self._lanes is None:
                with self.idle.waiting.running():
                    queue.settle()
            with module.recorder.timer("sync"), self._lanes.engine.paused() if self._lanes else nullcontext():
                self._sync()
            with self.idle.waiting.running():
                rollout = queue.next(iteration, module.version, module.temperature)
            self.collector.engine.sleep()
            for part, seconds in rollout.seconds.items():
                module.recorder.add_seconds(part, seconds)
            batch = self._prepare(rollout)
        yield from split_minibatches(batch, update.minibatches, update.epochs, self.config.seed, iteration)

    def _draw(self, iteration: int, version: int, temperature: float, recorder: MetricsRecorder) -> Rollout:
        """Draw the rollout of an iteration, with fresh problems in place of filtered ones."""
        rollout, filters = self.config.rollout, self.objective.filters
        sampling = self._sampling(temperature)
        collector = self._lanes.of(iteration) if self._lanes else self.collector
        wanted = rollout.prompts * rollout.group_size
        drawn: list[Trajectory] = []
        kept: list[int] = []
        overlong = failed = 0
        rounds = 1 + filters.max_resample
        for _ in range(rounds):
            with recorder.timer("verify"):
                chosen = self._begun.pop(iteration, None) or self._choose(collector, sampling)
            overlong += chosen.overlong
            played = collector.collect(
                TRAIN, chosen.problems, rollout.group_size, sampling, iteration, recorder
            )
            failed += sum(t.failed for t in played)
            new = [t for t in played if t.turns]
            _check_versions(new, version, partial=rollout.partial)
            kept += [len(drawn) + i for i in kept_by(filters, new)]
            drawn += new
            if len(kept) >= wanted:
                break
        if not drawn:
            raise EcrlError(
                f"{self.config.env.id} failed in each of its {failed} episodes: nothing was drawn."
            )
        return Rollout(
            iteration, version, temperature, drawn, kept[:wanted], recorder.seconds(), overlong, failed
        )

    def _begin(self, iteration: int, temperature: float) -> None:
        """Choose the problems of a rollout before others that are drawn at the same time choose theirs."""
        if self._lanes is not None:
            self._begun[iteration] = self._choose(self._lanes.of(iteration), self._sampling(temperature))

    def _choose(self, collector: Collector, sampling: Sampling) -> Chosen:
        chosen = collector.choose(TRAIN, self._next_problem, self.config.rollout.prompts, sampling)
        self._next_problem = chosen.stop
        return chosen

    def _sampling(self, temperature: float) -> Sampling:
        rollout = self.config.rollout
        return Sampling(temperature, rollout.top_p, rollout.max_new_tokens)

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
        return with_advantages(batch, self.objective)

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
            record("rollout/partial", float(np.mean([_is_partial(t) for t in rollout.drawn])))
        limit = self.collector.prompt_limit(TRAIN, self._sampling(rollout.temperature))
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
            evaluation = evaluate(due, sizes, self._answer, mean=len(due) == len(self.sets))
        for of in due:
            self._notice(of, evaluation.metrics)
        return evaluation

    def _notice(self, of: ValidationSet, metrics: Mapping[str, float]) -> None:
        """Say what the answers to a validation set passed over."""
        overlong, errors = f"val/{of.name}/overlong_prompts", f"val/{of.name}/env_errors"
        limit = self.collector.prompt_limit(of.name, sampling_of(of))
        self._notices.overlong(metrics[overlong], of.name, limit, overlong)
        self._notices.failed(metrics.get(errors, 0), of.name, of.env.id, errors)

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
            if self._queue is not None:
                self._queue.settle()
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

    def teardown(self, stage: str) -> None:
        """Release the engine."""
        if stage == "validate":
            return
        if self._queue is not None:
            self._queue.close()
            self._queue = None
        if self._collector is not None:
            self._collector.engine.close()
            self._collector = self._idle = self._lanes = None

    def state_dict(self) -> dict[str, Any]:
        """Return the rollouts drawn ahead, and the number of the problem that comes next."""
        ahead = self.queue.state_dict()  # ends what is being drawn
        return {"ahead": ahead, "next_problem": self._next_problem}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rollouts of a checkpoint."""
        self._restored = state_dict["ahead"]
        self._next_problem = state_dict["next_problem"]


def _is_partial(trajectory: Trajectory) -> bool:
    """Whether more than one version of the weights drew it."""
    completions = [turn.completion for turn in trajectory.turns]
    return len({v for c in completions for v in (c.weights_version, *(e for e, _ in c.earlier))}) > 1


def _check_versions(trajectories: Iterable[Trajectory], version: int, partial: bool) -> None:
    """Check that completions were drawn by the weights that the engine was sent.

    Raises:
        EcrlError: one was drawn by others; in partial rollouts by older ones.
    """
    drawn = {c.completion.weights_version for t in trajectories for c in t.turns}
    stale = {v for v in drawn if v < version or (v > version and not partial)}
    if stale:
        raise EcrlError(
            f"The engine answered with weights of version {sorted(stale)}, but the policy was at version "
            f"{version}: its last weight sync did not take effect."
        )
