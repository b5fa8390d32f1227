"""Builds what draws a run's completions: its engine, its environments, and the limit of their prompts."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym

from ecrl.config.eval_sets import validation_sets
from ecrl.config.schema import Config
from ecrl.config.targets import build
from ecrl.engines.base import Engine, Sampling
from ecrl.envs.safe_calls import make
from ecrl.policy.context_window import context_window
from ecrl.rollout.chat import Chat
from ecrl.rollout.collector import Collector
from ecrl.rollout.env_errors import EnvErrors
from ecrl.rollout.env_pools import TRAIN, split_of
from ecrl.rollout.prompt_limit import PromptLimit, prompt_limit
from ecrl.training.scoring import Scorer


def build_collector(config: Config, scorer: Scorer, run_dir: Path | None) -> Collector:
    """Build the collector of a run.

    Args:
        config: the whole configuration.
        scorer: its policy, which is loaded, goes to the engine.
        run_dir: folder of the run, for files about errors; None takes a temporary one.
    """
    engine: Engine = build(config.engine, model=scorer.model, process_group=scorer.process_group)
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
    )
