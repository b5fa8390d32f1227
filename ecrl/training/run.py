"""One run, from a configuration to a finished run directory or to validation metrics."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.loggers import Logger

from ecrl.algorithm.objective import Objective
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.config.compose import as_object
from ecrl.config.resume import saved_config
from ecrl.config.schema import Config
from ecrl.config.targets import build
from ecrl.distributed.launch import is_first_process, launched_by_ecrl
from ecrl.errors import EcrlError
from ecrl.policy.model import check_model, load_tokenizer, save_policy
from ecrl.rollout.chat import set_template
from ecrl.runs.checkpoints import find_checkpoint, iteration_of
from ecrl.runs.given_objects import keep_given
from ecrl.runs.metrics_file import legible, read_metrics
from ecrl.runs.run_dir import gone_unless_begun, open_run_dir
from ecrl.runs.run_log import RunLog
from ecrl.runs.versions import versions
from ecrl.timeline import Trace
from ecrl.training.blame import objective_parts, parts_named
from ecrl.training.callbacks import build_callbacks, environment_callbacks
from ecrl.training.checkpoint import RunCheckpoint, StopRequest
from ecrl.training.datamodule import RolloutDataModule
from ecrl.training.disk import disk_use, keeps_tokens
from ecrl.training.health import HealthMonitor
from ecrl.training.loggers.run_loggers import RunLoggers, open_loggers
from ecrl.training.metrics_writer import MetricsWriter
from ecrl.training.module import Parent, PolicyModule
from ecrl.training.precision import resolved
from ecrl.training.preflight import preflight
from ecrl.training.progress import ProgressMonitor
from ecrl.training.rollout_writer import RolloutWriter
from ecrl.training.scoring import Scorer
from ecrl.training.trainer import connect, make_trainer, quiet
from ecrl.training.validation import Evaluation
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
    config: Config,
    say: Callable[[str], None] = print,
    command: Sequence[str] | None = None,
    warnings: Sequence[str] | None = None,
    callbacks: Sequence[L.Callback] = (),
    given: Sequence[Strategy] = (),
) -> Outcome:
    """Run or resume a training run.

    Args:
        config: the whole configuration; ``config.resume`` names the run directory to go on from.
        say: shows a line to the user.
        command: words after ``ecrl train``, saved with the run; None if it is made from Python.
        warnings: what ``preflight`` found, if it was made already.
        callbacks: further ones, from Python.
        given: strategies from Python, behind those of the configuration.

    Raises:
        UsageError: something in the configuration cannot work; nothing was written.
        NonFiniteError: training diverged; a checkpoint was left.
    """
    start = time.perf_counter()
    log = RunLog(say)
    parent = None
    if config.fork and not config.resume:
        config, parent = _with_parent(config)
    if config.trainer.precision == "auto":
        config = resolved(config)
        if is_first_process():
            log.say(f"trainer.precision: {config.trainer.precision}")
    # A launcher has checked before it started this process.
    if warnings is None:
        warnings = [] if launched_by_ecrl() else preflight(config, given=given)
    trainer, module, datamodule = prepare(
        config,
        log.say,
        warnings,
        given,
        max_epochs=config.iterations,
        check_val_every_n_epoch=config.eval.every or 1,
        limit_val_batches=1.0 if config.eval.every else 0,
    )
    process_group = module.process_group
    module.parent = parent
    if process_group.is_first and (use := disk_use(config)) is not None:
        log.say(f"disk: {use}")
    checkpoint = process_group.first(lambda: _checkpoint(config))
    done = iteration_of(checkpoint) if checkpoint else 0
    run_dir = process_group.first(lambda: open_run_dir(config, command, done))
    stop = StopRequest()
    if process_group.is_first:
        log.open(run_dir)
        if not config.resume:
            keep_given(run_dir, given)
        log.say(f"run folder: {legible(run_dir)}" + _origin(parent, done))
    cleanup = gone_unless_begun(run_dir) if process_group.is_first else nullcontext()
    traced = config.log.trace and process_group.is_first
    trace = Trace(run_dir / "trace.json", log.say) if traced else nullcontext()
    with stop.listening(), cleanup, log.closing_words(), trace:
        loggers: dict[str, Logger] = {}  # only the first process has any
        process_group.first(lambda: loggers.update(open_loggers(config, run_dir, done)))
        with RunLoggers(list(loggers.values())) as writing:
            parts = _attach(trainer, config, run_dir, loggers, writing, callbacks, module, stop, log)
            with parts_named(parts, run_dir):
                _fit(config, trainer, module, datamodule, checkpoint, stop)
    outcome = _finish(run_dir, module, stop, time.perf_counter() - start)
    if process_group.is_first:
        ending = f"stopped by {outcome.stopped_by}" if outcome.stopped_by else "finished"
        log.note(f"{ending} after iteration {outcome.iterations}, {outcome.seconds:.0f} s")
    return outcome


def evaluate(config: Config) -> Evaluation:
    """Answer the validation sets of a configuration with its model.

    Returns:
        Metrics by name, ``val/…``, and their standard errors.

    Raises:
        UsageError: something in the configuration cannot work.
    """
    trainer, module, datamodule = prepare(config, warnings=preflight(config, training=False))
    trainer.validate(module, datamodule=datamodule, verbose=False)
    return module.evaluation


def prepare(
    config: Config,
    say: Callable[[str], None] = print,
    warnings: Sequence[str] = (),
    given: Sequence[Strategy] = (),
    **settings: Any,
) -> tuple[L.Trainer, PolicyModule, RolloutDataModule]:
    """Join the other processes, and build trainer, policy module and data module.

    Args:
        config: the whole configuration, checked by ``preflight``.
        say: shows a line to the user, from the first process only.
        warnings: what ``preflight`` found.
        given: strategies from Python.
        **settings: of Lightning's trainer.
    """
    quiet()
    L.seed_everything(config.seed, verbose=False)
    objective: Objective = build(config.objective)
    strategies = build_strategies(config.strategy, given)
    trainer = make_trainer(config, **settings)
    process_group = connect(trainer, config)
    if not process_group.is_first:
        say = _silent
    for warning in warnings:
        say(f"warning: {warning}")
    path = process_group.first(lambda: config.model.path or str(cached_base(config, _announce(say))))
    check_model(path)
    tokenizer = load_tokenizer(path)
    set_template(tokenizer, config.model.chat)
    scorer = Scorer(config, path, tokenizer, process_group)
    module = PolicyModule(config, objective, strategies, scorer)
    return trainer, module, RolloutDataModule(config, objective, strategies, scorer, say)


def _with_parent(config: Config) -> tuple[Config, Parent]:
    """Find the checkpoint that a fork begins with.

    Returns:
        The configuration, which now names the run, the iteration and the base model, whatever the fork's own
        task and seed; and the checkpoint.

    Raises:
        UsageError: there is no such checkpoint.
    """
    run_dir = Path(str(config.fork)).absolute()
    folder = find_checkpoint(run_dir, config.checkpoint.load, config.checkpoint.best)
    of_parent = as_object(saved_config(run_dir / "config.yaml"))
    model = replace(config.model, path=config.model.path or str(cached_base(of_parent)))
    load = replace(config.checkpoint, load=str(iteration_of(folder)))
    return replace(config, fork=str(run_dir), model=model, checkpoint=load), Parent(folder, of_parent)


def _origin(parent: Parent | None, done: int) -> str:
    """Say where a run begins, if not at the start."""
    if done:
        return f", going on after iteration {done}"
    return f", a fork of {legible(parent.folder)}" if parent else ""


def _checkpoint(config: Config) -> Path | None:
    """Return the checkpoint to go on from."""
    if config.resume is None:
        return None
    return find_checkpoint(Path(config.resume), config.checkpoint.load, config.checkpoint.best)


def _attach(
    trainer: L.Trainer,
    config: Config,
    run_dir: Path,
    loggers: Mapping[str, Logger],
    writing: RunLoggers,
    more: Sequence[L.Callback],
    module: PolicyModule,
    stop: StopRequest,
    log: RunLog,
) -> dict[str, Any]:
    """Give the trainer its callbacks and its loggers, now that the run directory is known.

    Returns:
        What the user may have written of it, by its key in the configuration.
    """
    module.run_dir = run_dir
    trainer.loggers = list(loggers.values())
    monitors, of_environment = build_callbacks(config), environment_callbacks(config)
    rollouts = []
    if config.log.rollouts and module.process_group.is_first:
        rollouts = [RolloutWriter(run_dir, keeps_tokens(config), config.log.rollouts_keep, log.say)]
    callbacks: list[L.Callback] = [
        *module.strategies,
        *of_environment,
        *monitors,
        *more,
        MetricsWriter(run_dir, writing),
        *rollouts,
        HealthMonitor(run_dir, log.say),
        *([ProgressMonitor(log)] if config.log.progress else []),
        RunCheckpoint(run_dir, config.checkpoint, stop, module.process_group),
    ]
    trainer.callbacks = callbacks  # type: ignore[attr-defined]
    return {
        **{f"strategy.{strategy.name}": strategy for strategy in module.strategies},
        **{f"monitor.{name}": monitor for name, monitor in zip(config.monitor, monitors, strict=True)},
        **{f"callbacks[{number}]": callback for number, callback in enumerate(more)},
        **{f"logger.{name}": logger for name, logger in loggers.items()},
        **{f"{config.env.id}'s {type(callback).__name__}": callback for callback in of_environment},
        **objective_parts(module.objective),
    }


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
        "parent": _parent_of(module.config),
        "seconds": round(seconds, 1),
        "versions": versions(),
        "first": rows[0] if rows else {},
        "last": last,
    }
    aside = run_dir / "summary.json.partial"
    aside.write_text(json.dumps(summary, indent=2) + "\n")
    os.replace(aside, run_dir / "summary.json")
    return outcome


def _parent_of(config: Config) -> dict[str, Any] | None:
    """Name the checkpoint that a fork began with; also after the fork was resumed."""
    if config.fork is None:
        return None
    saved = saved_config(Path(config.resume) / "config.yaml") if config.resume else config
    return {"run": config.fork, "iteration": int(saved.checkpoint.load)}


def _announce(say: Callable[[str], None]) -> Callable[[int, int, float], None]:
    def progress(step: int, steps: int, loss: float) -> None:
        if step == 1 or step % 100 == 0 or step == steps:
            say(f"warm start: step {step}/{steps}, loss {loss:.3f} nats/token")

    return progress


def _silent(line: str) -> None:
    """Say nothing."""
