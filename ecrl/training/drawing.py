"""Draws a run's rollouts: which problems each one poses, by which weights, and what is drawn again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from ecrl.algorithm.objective import Filters
from ecrl.config.schema import Config
from ecrl.engines.base import Sampling
from ecrl.errors import EcrlError
from ecrl.metrics import MetricsRecorder
from ecrl.rollout.batching import kept_by
from ecrl.rollout.collector import Chosen, Collector
from ecrl.rollout.env_pools import TRAIN
from ecrl.rollout.rollout_queue import Rollout, RolloutQueue
from ecrl.rollout.trajectory import Trajectory
from ecrl.training.collecting import Lanes


class Drawing:
    """Draws rollouts, ahead of training if the configuration says so.

    Args:
        config: the run's configuration.
        filters: which groups train, and how often others are drawn in place of the rest.
        collector: plays the episodes.
        lanes: collectors for partial rollouts, which are drawn at the same time; None draws one after the
            other.
        ahead: rollouts of a checkpoint that were drawn ahead.
        next_problem: number of the first problem that was not posed yet.

    Attributes:
        queue: the rollouts, in training order.
    """

    def __init__(
        self,
        config: Config,
        filters: Filters,
        collector: Collector,
        lanes: Lanes | None = None,
        ahead: Sequence[dict[str, Any]] = (),
        next_problem: int = 0,
    ) -> None:
        self._config = config.rollout
        self._env = config.env.id
        self._filters = filters
        self._collector = collector
        self._lanes = lanes
        self._next_problem = next_problem
        self._begun: dict[int, Chosen] = {}
        threads = collector.engine.disaggregated
        self.queue = RolloutQueue(self._draw, self._config.staleness, threads, lanes is not None, self._begin)
        self.queue.load_state_dict(list(ahead))

    def make_room(self) -> None:
        """Wait until the engine's weights may change."""
        if self._lanes is None:
            self.queue.settle()

    def paused(self) -> AbstractContextManager[None]:
        """Pause what is being drawn while the weights change."""
        return nullcontext() if self._lanes is None else self._lanes.engine.paused()

    def sampling(self, temperature: float) -> Sampling:
        """Return how training's completions are drawn."""
        return Sampling(temperature, self._config.top_p, self._config.max_new_tokens, self._config.top_k)

    def state_dict(self) -> dict[str, Any]:
        """Return the rollouts drawn ahead, when they are complete, and the number of the next problem."""
        ahead = self.queue.state_dict()  # before the number, which drawing changes
        return {"ahead": ahead, "next_problem": self._next_problem}

    def close(self) -> None:
        """End what is still being drawn."""
        for collector in (self._collector, *(self._lanes.collectors if self._lanes else ())):
            collector.stop()
        self.queue.close()

    def _begin(self, iteration: int, temperature: float) -> None:
        """Choose the problems of a rollout before later ones, which are drawn at the same time, choose."""
        if self._lanes is not None:
            self._begun[iteration] = self._choose(self._lanes.of(iteration), self.sampling(temperature))

    def _choose(self, collector: Collector, sampling: Sampling) -> Chosen:
        chosen = collector.choose(TRAIN, self._next_problem, self._config.prompts, sampling)
        self._next_problem = chosen.stop
        return chosen

    def _draw(self, iteration: int, version: int, temperature: float, recorder: MetricsRecorder) -> Rollout:
        """Draw the rollout of an iteration, with fresh problems in place of filtered ones."""
        config, sampling = self._config, self.sampling(temperature)
        collector = self._lanes.of(iteration) if self._lanes else self._collector
        wanted = config.prompts * config.group_size
        drawn: list[Trajectory] = []
        kept: list[int] = []
        overlong = failed = 0
        for _ in range(1 + self._filters.max_resample):
            with recorder.timer("verify"):
                chosen = self._begun.pop(iteration, None) or self._choose(collector, sampling)
            overlong += chosen.overlong
            played = collector.collect(
                TRAIN, chosen.problems, config.group_size, sampling, iteration, recorder
            )
            failed += sum(t.failed for t in played)
            new = [t for t in played if t.turns]
            _check_versions(new, version, partial=self._lanes is not None)
            kept += [len(drawn) + i for i in kept_by(self._filters, new)]
            drawn += new
            if len(kept) >= wanted:
                break
        if not drawn:
            raise EcrlError(f"{self._env} failed in each of its {failed} episodes: nothing was drawn.")
        return Rollout(
            iteration, version, temperature, drawn, kept[:wanted], recorder.seconds(), overlong, failed
        )


def _check_versions(trajectories: Iterable[Trajectory], version: int, partial: bool) -> None:
    """Check that completions were drawn by the weights that the engine was sent.

    Raises:
        EcrlError: one was drawn by others; in partial rollouts, by older ones.
    """
    drawn = {v for t in trajectories for v in t.versions}
    stale = {v for v in drawn if v < version or (v > version and not partial)}
    if stale:
        raise EcrlError(
            f"The engine answered with weights of version {sorted(stale)}, but the policy was at version "
            f"{version}: its last weight sync did not take effect."
        )
