"""One training run, from a configuration to a finished run directory."""

from __future__ import annotations

import json
import logging
import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.loggers import TensorBoardLogger
from omegaconf import OmegaConf
from transformers.utils.logging import disable_progress_bar

from ecrl.callbacks.monitors.covariance import CovarianceMonitor
from ecrl.callbacks.monitors.progress import ProgressMonitor
from ecrl.callbacks.monitors.samples import SampleMonitor
from ecrl.callbacks.monitors.writer import MetricsWriter
from ecrl.checkpoint import RunCheckpoint, StopRequest, find_checkpoint, iterations_behind
from ecrl.compose import build
from ecrl.config import Config
from ecrl.datamodule import RolloutDataModule, make_env
from ecrl.errors import EcrlError, UsageError
from ecrl.history import read_metrics
from ecrl.model import check_model, load_tokenizer, save_policy
from ecrl.module import PolicyModule
from ecrl.stack import build_strategies, check_stack
from ecrl.versions import versions
from ecrl.warmup import cached_base


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


def train(config: Config, say: Callable[[str], None] = print) -> Outcome:
    """Run or resume a training run.

    Args:
        config: the whole configuration; ``config.resume`` names the run directory to go on from.
        say: shows a line to the user.

    Raises:
        UsageError: something in the configuration cannot work; nothing was written.
        NonFiniteError: training diverged; a checkpoint was left.
    """
    start = time.perf_counter()
    checkpoint = find_checkpoint(Path(config.resume)) if config.resume else None
    run_dir = Path(config.resume) if config.resume else _free_run_dir(config)
    done = _iterations_behind(config, checkpoint)
    module, datamodule = prepare(config, say)
    stop = StopRequest()
    trainer = _run_trainer(config, run_dir, module, stop, done)
    if checkpoint is None:
        _create(run_dir, config)
    with stop.listening():
        _fit(config, trainer, module, datamodule, checkpoint, stop)
    return _finish(run_dir, module, stop, time.perf_counter() - start)


def prepare(config: Config, say: Callable[[str], None] = print) -> tuple[PolicyModule, RolloutDataModule]:
    """Build policy and data module, and refuse what cannot work."""
    quiet()
    L.seed_everything(config.seed, verbose=False)
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
    make_env(config.env.id, "train", dict(config.env.kwargs)).close()
    for warning in check_stack(config, strategies):
        say(f"warning: {warning}")
    resolved = config.model.path or str(cached_base(config, _announce(say)))
    check_model(resolved)
    tokenizer = load_tokenizer(resolved)
    return PolicyModule(config, resolved, tokenizer, objective, strategies), RolloutDataModule(
        config, objective
    )


def make_trainer(config: Config, **kwargs: Any) -> L.Trainer:
    """A Lightning trainer with what every command shares.

    Raises:
        UsageError: Lightning knows no such accelerator or precision, or it is not on this machine.
    """
    try:
        return L.Trainer(
            accelerator=config.trainer.accelerator,
            devices=config.trainer.devices,
            precision=config.trainer.precision,  # type: ignore[arg-type]
            num_sanity_val_steps=0,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
            log_every_n_steps=1,
            **kwargs,
        )
    except (MisconfigurationException, ValueError) as error:
        raise UsageError(f"trainer: {error}") from None


def _iterations_behind(config: Config, checkpoint: Path | None) -> int:
    done = iterations_behind(checkpoint) if checkpoint else 0
    if checkpoint and done >= config.iterations:
        raise UsageError(
            f"{config.resume} has {done} iterations behind it; iterations={config.iterations} asks for no "
            "more. `iterations` is the total: set it higher to go on."
        )
    return done


def _run_trainer(
    config: Config, run_dir: Path, module: PolicyModule, stop: StopRequest, done: int
) -> L.Trainer:
    logger = TensorBoardLogger(
        run_dir,
        name="",
        version="tensorboard",
        default_hp_metric=False,
        purge_step=done + 1 if done else None,
    )
    return make_trainer(
        config,
        max_epochs=config.iterations,
        check_val_every_n_epoch=config.eval.every or 1,
        limit_val_batches=1.0 if config.eval.every else 0,
        logger=logger,
        default_root_dir=run_dir,
        callbacks=[
            *module.strategies,
            CovarianceMonitor(every=config.log.samples_every),
            SampleMonitor(every=config.log.samples_every, count=config.log.samples),
            MetricsWriter(run_dir),
            *([ProgressMonitor()] if config.log.progress else []),
            RunCheckpoint(run_dir, config.checkpoint.every, stop),
        ],
    )


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


def _free_run_dir(config: Config) -> Path:
    if config.run_dir is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        return Path("runs") / "-".join([stamp, *config.strategy, f"seed{config.seed}"])
    run_dir = Path(config.run_dir)
    if run_dir.exists():
        raise UsageError(
            f"run_dir={str(run_dir)!r} exists already and nothing is overwritten; choose another, or go on "
            f"with resume={run_dir}."
        )
    return run_dir


def _create(run_dir: Path, config: Config) -> None:
    try:
        (run_dir / "checkpoints").mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"run_dir={str(run_dir)!r} cannot be created: {error}.") from None
    OmegaConf.save(OmegaConf.structured(config), run_dir / "config.yaml")


def _finish(run_dir: Path, module: PolicyModule, stop: StopRequest, seconds: float) -> Outcome:
    rows = read_metrics(run_dir / "metrics.jsonl")
    last = rows[-1] if rows else {}
    outcome = Outcome(
        run_dir, int(last.get("iteration", 0)), stop.signal.name if stop.signal else None, last, seconds
    )
    save_policy(module.model, module.tokenizer, run_dir / "policy")
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


def quiet() -> None:
    """Silence what the libraries say about themselves; our own messages stay."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric", "transformers"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    disable_progress_bar()
    warnings.filterwarnings("ignore", module=r"lightning\.")
    torch.set_float32_matmul_precision("highest")
