"""One training run, from a configuration to a finished run directory."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from transformers.utils.logging import disable_progress_bar

from ecrl.algorithm.objective import Objective
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import build_strategies, check_stack
from ecrl.callbacks import ImportanceCorrection
from ecrl.callbacks.curriculum import CurriculumCallback
from ecrl.callbacks.monitors.accuracy import AccuracyMonitor
from ecrl.callbacks.monitors.covariance import CovarianceMonitor
from ecrl.callbacks.monitors.forecast import ForecastMonitor
from ecrl.callbacks.monitors.leading_tokens import LeadingTokens
from ecrl.callbacks.monitors.progress import ProgressMonitor
from ecrl.callbacks.monitors.samples import SampleMonitor
from ecrl.callbacks.monitors.token_picture import TokenPicture
from ecrl.callbacks.monitors.writer import MetricsWriter
from ecrl.config.schema import Config
from ecrl.config.targets import build, resolve
from ecrl.distributed.launch import check_launch, processes
from ecrl.distributed.lightning_strategies import MultiProcessStrategy, SingleProcessStrategy
from ecrl.distributed.process_group import ProcessGroup
from ecrl.envs.composite.curriculum import CurriculumEnv
from ecrl.errors import EcrlError, UsageError
from ecrl.policy.model import check_model, load_tokenizer, save_policy
from ecrl.runs.metrics_file import read_metrics
from ecrl.runs.run_dir import check_run_dir, gone_unless_begun, open_run_dir
from ecrl.runs.versions import versions
from ecrl.training.checkpoint import RunCheckpoint, StopRequest, completed_iterations, find_checkpoint
from ecrl.training.datamodule import RolloutDataModule, make_env
from ecrl.training.module import PolicyModule
from ecrl.training.preflight import check_size
from ecrl.training.warmup import cached_base


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes:
        run_dir: where everything is.
        iterations: finished iterations.
        stopped_by: name of the signal that stopped it early, or None.
        last: the last row of ``metrics.jsonl``.
        seconds: wall time of this process's part.
    """

    run_dir: Path
    iterations: int
    stopped_by: str | None
    last: dict[str, Any]
    seconds: float


def train(
    config: Config, say: Callable[[str], None] = print, command: Sequence[str] | None = None
) -> Outcome:
    """Run or resume a training run.

    Args:
        config: the whole configuration; ``config.resume`` names the run directory to go on from.
        say: shows a line to the user.
        command: words after ``ecrl train``, saved with the run; None if it is made from Python.

    Raises:
        UsageError: something in the configuration cannot work; nothing was written.
        NonFiniteError: training diverged; a checkpoint was left.
    """
    start = time.perf_counter()
    check_launch(config)
    check_size(config)
    trainer, module, datamodule = prepare(
        config,
        say,
        max_epochs=config.iterations,
        check_val_every_n_epoch=config.eval.every or 1,
        limit_val_batches=1.0 if config.eval.every else 0,
    )
    process_group = module.process_group
    checkpoint = process_group.first(lambda: _checkpoint(config))
    done = completed_iterations(checkpoint) if checkpoint else 0
    run_dir = process_group.first(lambda: open_run_dir(config, command, done))
    stop = StopRequest()
    _attach(trainer, config, run_dir, done, module, stop)
    with stop.listening(), gone_unless_begun(run_dir) if process_group.is_first else nullcontext():
        _fit(config, trainer, module, datamodule, checkpoint, stop)
    return _finish(run_dir, module, stop, time.perf_counter() - start)


def prepare(
    config: Config, say: Callable[[str], None] = print, **settings: Any
) -> tuple[L.Trainer, PolicyModule, RolloutDataModule]:
    """Refuse what cannot work, join the other processes, and build trainer, policy and data module.

    Args:
        config: the whole configuration.
        say: shows a line to the user, from the first process only.
        **settings: of Lightning's trainer.
    """
    quiet()
    L.seed_everything(config.seed, verbose=False)
    objective, strategies, warnings = check_parts(config)
    trainer = make_trainer(config, **settings)
    process_group = connect(trainer, config)
    if not process_group.is_first:
        say = _silent
    for warning in warnings:
        say(f"warning: {warning}")
    path = process_group.first(lambda: config.model.path or str(cached_base(config, _announce(say))))
    check_model(path)
    tokenizer = load_tokenizer(path)
    module = PolicyModule(config, path, tokenizer, objective, strategies, process_group)
    return trainer, module, RolloutDataModule(config, objective)


def check_parts(config: Config) -> tuple[Objective, list[Strategy], list[str]]:
    """Build the cheap parts and look at how they fit together; nothing is loaded or started.

    Returns:
        Objective, strategies, and warnings of a line each.

    Raises:
        UsageError: they do not fit.
    """
    objective = build(config.objective)
    strategies = build_strategies(config.strategy)
    if config.rollout.group_size == 1 and objective.needs_groups:
        name = getattr(objective.estimator, "func", objective.estimator).__name__
        raise UsageError(
            f"rollout.group_size=1 leaves the estimator {name} nothing to compare with: every advantage "
            "would be 0. Use a group of 2 or more, or objective=reinforce_pp."
        )
    if config.rollout.group_size == 1 and objective.filters.drop_zero_variance:
        raise UsageError(
            "rollout.group_size=1 makes every group one of zero variance, and all would be dropped; set "
            "objective.filters.drop_zero_variance=false."
        )
    check_run_dir(config)
    for split in ("train", "val") if config.eval.every else ("train",):
        make_env(config.env.id, split, dict(config.env.kwargs)).close()
    if config.model.path:
        check_model(config.model.path)
    resolve(config.engine["_target_"], "engine").check(config)
    warnings = check_stack(config, strategies)
    corrected = any(isinstance(s, ImportanceCorrection) for s in strategies)
    if config.rollout.staleness >= config.iterations:
        warnings.append(
            f"rollout.staleness={config.rollout.staleness} is not below iterations={config.iterations}: the "
            "first weights draw all that the run trains on."
        )
    if config.rollout.staleness and not corrected:
        warnings.append(
            f"rollout.staleness={config.rollout.staleness} trains on what older weights drew; add "
            "importance_correction to strategy=[…] to correct for it."
        )
    return objective, strategies, warnings


def connect(trainer: L.Trainer, config: Config) -> ProcessGroup:
    """Join the run's other processes, if there are any."""
    settings = config.trainer
    if processes(config) == 1:
        return ProcessGroup()
    trainer.strategy.setup_environment()
    return ProcessGroup(settings.tensor_parallel_size, settings.timeout)


def make_trainer(config: Config, **kwargs: Any) -> L.Trainer:
    """A Lightning trainer with what every command shares.

    Raises:
        UsageError: Lightning knows no such accelerator or precision, or it is not on this machine.
    """
    settings = config.trainer
    many = processes(config) > 1
    precision: Any = settings.precision
    strategy: Any = SingleProcessStrategy(_device(settings.accelerator))
    if many:
        strategy = MultiProcessStrategy(processes(config), settings.tensor_parallel_size, settings.timeout)
        # FSDP casts by itself, before it gathers; autocast would gather in float32.
        precision = precision if settings.parallel == "ddp" else "32-true"
    try:
        return L.Trainer(
            accelerator=settings.accelerator,
            devices=settings.devices,
            num_nodes=settings.num_nodes,
            strategy=strategy,
            precision=precision,
            logger=False,
            num_sanity_val_steps=0,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            **kwargs,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UsageError(f"trainer: {error}") from None


def _device(accelerator: str) -> torch.device:
    gpu = accelerator == "gpu" or (accelerator == "auto" and torch.cuda.is_available())
    return torch.device("cuda", 0) if gpu else torch.device("cpu")


def _checkpoint(config: Config) -> Path | None:
    """Return the checkpoint to go on from, if it has iterations left."""
    if config.resume is None:
        return None
    checkpoint = find_checkpoint(Path(config.resume))
    done = completed_iterations(checkpoint)
    if done >= config.iterations:
        raise UsageError(
            f"{config.resume} has {done} iterations behind it; iterations={config.iterations} asks for no "
            "more. `iterations` is the total: set it higher to go on."
        )
    return checkpoint


def _attach(
    trainer: L.Trainer, config: Config, run_dir: Path, done: int, module: PolicyModule, stop: StopRequest
) -> None:
    """Give the trainer its callbacks and its logger, now that the run directory is known."""
    trainer.logger = TensorBoardLogger(
        run_dir,
        name="",
        version="tensorboard",
        default_hp_metric=False,
        purge_step=done + 1 if done else None,
    )
    env = make_env(config.env.id, "train", dict(config.env.kwargs)).unwrapped
    callbacks: list[L.Callback] = [
        *module.strategies,
        *([CurriculumCallback(env.level_schedule)] if isinstance(env, CurriculumEnv) else []),
        CovarianceMonitor(every=config.log.samples_every),
        AccuracyMonitor(),
        LeadingTokens(every=config.log.samples_every),
        TokenPicture(every=config.log.samples_every, count=config.log.samples),
        SampleMonitor(every=config.log.samples_every, count=config.log.samples),
        ForecastMonitor(run_dir, every=config.log.samples_every),
        MetricsWriter(run_dir),
        *([ProgressMonitor()] if config.log.progress else []),
        RunCheckpoint(run_dir, config.checkpoint.every, stop, module.process_group),
    ]
    trainer.callbacks = callbacks  # type: ignore[attr-defined]


def _fit(
    config: Config,
    trainer: L.Trainer,
    module: PolicyModule,
    datamodule: RolloutDataModule,
    checkpoint: Path | None,
    stop: StopRequest,
) -> None:
    if config.eval.every and checkpoint is None:
        trainer.validate(module, datamodule=datamodule, verbose=False)
    if stop.signal is not None:
        raise EcrlError(f"{stop.signal.name} came before the first iteration; nothing was trained.")
    trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint)


def _finish(run_dir: Path, module: PolicyModule, stop: StopRequest, seconds: float) -> Outcome:
    module.process_group.wait()  # the first process has written the last row
    rows = read_metrics(run_dir / "metrics.jsonl")
    last = rows[-1] if rows else {}
    outcome = Outcome(
        run_dir, int(last.get("iteration", 0)), stop.signal.name if stop.signal else None, last, seconds
    )
    save_policy(module.model, module.tokenizer, run_dir / "policy", module.process_group.is_first)
    if not module.process_group.is_first:
        return outcome
    summary = {
        "iterations": outcome.iterations,
        "stopped_by": outcome.stopped_by,
        "seconds": round(seconds, 1),
        "versions": versions(),
        "first": rows[0] if rows else {},
        "last": last,
    }
    aside = run_dir / "summary.json.partial"
    aside.write_text(json.dumps(summary, indent=2) + "\n")
    os.replace(aside, run_dir / "summary.json")
    return outcome


def _announce(say: Callable[[str], None]) -> Callable[[int, int, float], None]:
    def progress(step: int, steps: int, loss: float) -> None:
        if step == 1 or step % 100 == 0 or step == steps:
            say(f"warm start: step {step}/{steps}, loss {loss:.3f} nats/token")

    return progress


def _silent(line: str) -> None:
    """Say nothing."""


def quiet() -> None:
    """Silence what the libraries say about themselves; our own messages stay."""
    redistribution = "torch.distributed.tensor._redistribute"  # warns of every gathered shard
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "transformers", redistribution):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"lightning\.")
    warnings.filterwarnings("ignore", message="torch.distributed is disabled")
    torch.set_float32_matmul_precision("highest")
