"""Builds what draws a run's completions: its engine, its environments, and the limit of their prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import gymnasium as gym

from ecrl.config.eval_sets import validation_sets
from ecrl.config.schema import Config
from ecrl.config.targets import build
from ecrl.engines.base import Engine, Sampling
from ecrl.envs.safe_calls import make
from ecrl.policy.context_window import context_window
from ecrl.rollout.busy_clock import BusyClock
from ecrl.rollout.chat import Chat
from ecrl.rollout.collector import Collector
from ecrl.rollout.env_errors import EnvErrors
from ecrl.rollout.env_pools import TRAIN, split_of
from ecrl.rollout.prompt_limit import PromptLimit, prompt_limit
from ecrl.rollout.shared_engine import EngineLine, SharedEngine
from ecrl.training.scoring import Scorer


def build_collector(config: Config, scorer: Scorer, run_dir: Path | None) -> Collector:
    """Build the collector of a run.

    Args:
        config: the whole configuration.
        scorer: its policy, which is loaded, goes to the engine.
        run_dir: folder of the run, for files about errors; None takes a temporary one.
    """
    engine: Engine = build(config.engine, model=scorer.model, process_group=scorer.process_group)
    return _collector(config, scorer, run_dir, engine, BusyClock("engine"))


def build_lanes(config: Config, scorer: Scorer, run_dir: Path | None, first: Collector) -> Lanes:
    """Build collectors for rollouts that are drawn at the same time, with environments of their own.

    Args:
        config: the whole configuration.
        scorer: as for ``first``.
        run_dir: likewise.
        first: the run's collector, whose engine they share.
    """
    shared = SharedEngine(first.engine)
    lines = [
        cast("Engine", EngineLine(shared)) for _ in range(config.rollout.staleness + 1)
    ]  # all that they use
    lanes = [_collector(config, scorer, run_dir, line, first.engine_clock) for line in lines]
    for lane in lanes:
        lane.share_options(first)
    return Lanes(shared, lanes)


@dataclass(frozen=True)
class Lanes:
    """Collectors that draw at the same time.

    Attributes:
        engine: what they share.
        collectors: rollout i is drawn by the one with number i modulo their number.
    """

    engine: SharedEngine
    collectors: list[Collector]

    def of(self, iteration: int) -> Collector:
        """Return the collector of an iteration's rollout."""
        return self.collectors[iteration % len(self.collectors)]


def _collector(
    config: Config, scorer: Scorer, run_dir: Path | None, engine: Engine, clock: BusyClock
) -> Collector:
    sets = {of.name: of.env for of in validation_sets(config)}
    window = context_window(scorer.model.lm.config)

    def make_env(pool: str) -> gym.Env[str, str]:
        env = config.env if pool == TRAIN else sets[pool]
        return make(env.id, split_of(pool), dict(env.kwargs))

    def limit(pool: str, sampling: Sampling) -> PromptLimit:
        return prompt_limit(config, window, sampling.max_new_tokens, training=pool == TRAIN)

    return Collector(
        make_env,
        engine,
        Chat(scorer.tokenizer, config.model.chat),
        config.seed,
        # Its own channel: it may speak from a thread while the trainer does.
        scorer.process_group.another(),
        config.trainer.timeout,
        limit,
        EnvErrors(config.env.on_error, run_dir),
        clock,
    )
