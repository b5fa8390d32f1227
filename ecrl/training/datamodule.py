"""The DataModule: an epoch's training data is a fresh rollout of the current policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import lightning as L

from ecrl.algorithm.objective import Objective
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.config.schema import Config
from ecrl.config.targets import build
from ecrl.engines.base import Engine, Sampling
from ecrl.envs.safe_calls import make
from ecrl.errors import EcrlError
from ecrl.metrics import MetricsRecorder
from ecrl.policy.weights import HFWeights
from ecrl.rollout.batching import kept_by, split_minibatches
from ecrl.rollout.collector import Collector, Split
from ecrl.rollout.queue import Rollout, RolloutQueue
from ecrl.rollout.trajectory import Trajectory

if TYPE_CHECKING:
    from ecrl.training.module import PolicyModule

#: Validation problems answered at once, so that memory does not grow with ``eval.problems``.
VAL_COMPLETIONS = 1024


def make_env(env_id: str, split: Split, kwargs: dict[str, Any]) -> gym.Env[str, str]:
    """Make one environment; see `ecrl.envs.safe_calls.make`."""
    return make(env_id, split, kwargs)


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
    """Collects rollouts and splits them into optimizer minibatches.

    Args:
        config: the run's configuration.
        objective: its estimator and filters.
    """

    def __init__(self, config: Config, objective: Objective) -> None:
        super().__init__()
        self.config = config
        self.objective = objective
        self._collector: Collector | None = None
        self._queue: RolloutQueue | None = None
        self._restored: list[dict[str, Any]] = []

    @property
    def module(self) -> PolicyModule:
        """The policy under training."""
        module: Any = self.trainer.lightning_module if self.trainer else None
        return module  # type: ignore[no-any-return]

    @property
    def collector(self) -> Collector:
        """Made at first use, when the policy is on its device."""
        if self._collector is None:
            engine: Engine = build(
                self.config.engine, model=self.module.model, process_group=self.module.process_group
            )
            kwargs = dict(self.config.env.kwargs)
            self._collector = Collector(
                lambda split: make_env(self.config.env.id, split, kwargs),
                engine,
                self.module.tokenizer,
                self.config.seed,
                # Its own channel: it may speak from a thread while the trainer does.
                self.module.process_group.another(),
                self.config.trainer.timeout,
            )
        return self._collector

    @property
    def queue(self) -> RolloutQueue:
        """Rollouts in training order."""
        if self._queue is None:
            self._queue = RolloutQueue(
                self._draw, self.config.rollout.staleness, self.collector.engine.disaggregated
            )
            self._queue.load_state_dict(self._restored)
        return self._queue

    def train_dataloader(self) -> _Batches:
        """Each pass over it is one iteration: it collects a rollout when its first batch is asked for."""
        update = self.config.update
        return _Batches(self._iteration, update.minibatches * update.epochs)

    def _iteration(self) -> Iterator[RolloutBatch]:
        """Collect a rollout with the current policy and yield its optimizer minibatches."""
        iteration, update = self.module.iteration, self.config.update
        # Lightning autocasts training and validation steps; a rollout belongs to the same precision.
        with self.trainer.precision_plugin.forward_context():  # type: ignore[union-attr]
            self.queue.settle()
            self._sync()
            rollout = self.queue.next(iteration, self.module.version, self.module.temperature)
            self.collector.engine.sleep()
            for part, seconds in rollout.seconds.items():
                self.module.recorder.add_seconds(part, seconds)
            # Log-probs of other weights or another engine are no old log-probs of the trainer's.
            logprobs_exact = self.collector.engine.logprobs_exact and rollout.version == self.module.version
            batch = self.module.prepare(rollout, logprobs_exact)
        yield from split_minibatches(batch, update.minibatches, update.epochs, self.config.seed, iteration)

    def val_dataloader(self) -> _Batches:
        """Return the validation problems, in chunks."""
        chunk = max(VAL_COMPLETIONS // self.config.eval.k, 1)
        problems = self.config.eval.problems
        chunks = [range(i, min(i + chunk, problems)) for i in range(0, problems, chunk)]
        return _Batches(lambda: iter(chunks), len(chunks))

    def validate(self, problems: Sequence[int]) -> tuple[list[Trajectory], list[Trajectory]]:
        """Answer validation problems ``k`` times at random and once greedily."""
        if self._queue is not None:
            self._queue.settle()
        self._sync()
        settings, limit = self.config.eval, self.config.rollout.max_new_tokens
        # Its time counts as validation's, as a whole.
        unseen = MetricsRecorder()

        def answer(copies: int, temperature: float) -> list[Trajectory]:
            sampling = Sampling(temperature, 1.0, limit)
            return self.collector.collect("val", problems, copies, sampling, self.module.iteration, unseen)

        answers = answer(settings.k, settings.temperature), answer(1, 0.0)
        self.collector.engine.sleep()
        return answers

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
            self._collector = None

    def state_dict(self) -> dict[str, Any]:
        """Return the rollouts drawn ahead."""
        return {"ahead": self.queue.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with the rollouts of a checkpoint."""
        self._restored = state_dict["ahead"]

    def _draw(self, iteration: int, version: int, temperature: float, recorder: MetricsRecorder) -> Rollout:
        """Draw the rollout of an iteration, with fresh problems in place of filtered ones."""
        rollout, filters = self.config.rollout, self.objective.filters
        sampling = Sampling(temperature, rollout.top_p, rollout.max_new_tokens)
        wanted = rollout.prompts * rollout.group_size
        drawn: list[Trajectory] = []
        kept: list[int] = []
        rounds = 1 + filters.max_resample
        for attempt in range(rounds):
            first = (iteration * rounds + attempt) * rollout.prompts
            problems = range(first, first + rollout.prompts)
            new = self.collector.collect("train", problems, rollout.group_size, sampling, iteration, recorder)
            _check_versions(new, version)
            kept += [len(drawn) + i for i in kept_by(filters, new)]
            drawn += new
            if len(kept) >= wanted:
                break
        return Rollout(iteration, version, temperature, drawn, kept[:wanted], recorder.seconds())

    def _sync(self) -> None:
        engine = self.collector.engine
        engine.wake()
        engine.sync_weights(HFWeights(self.module.model.lm), self.module.version)


def _check_versions(trajectories: Iterable[Trajectory], version: int) -> None:
    stale = {c.completion.weights_version for t in trajectories for c in t.turns} - {version}
    if stale:
        raise EcrlError(
            f"The engine answered with weights of version {sorted(stale)}, but the policy was at version "
            f"{version}: its last weight sync did not take effect."
        )
