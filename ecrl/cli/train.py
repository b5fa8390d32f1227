"""``ecrl train``: trains a policy, resumes a run, or runs every combination of values."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.config.compose import as_yaml, expand_sweep
from ecrl.config.eval_sets import VALIDATION_MEAN, validation_sets
from ecrl.config.keys import key_of
from ecrl.config.resume import composed_config
from ecrl.config.schema import Config
from ecrl.config.targets import resolve
from ecrl.runs.checkpoints import best_iteration
from ecrl.runs.metrics_file import legible, read_metrics
from ecrl.runs.rollouts import saved_rollouts
from ecrl.runs.run_dir import check_new

if TYPE_CHECKING:
    from ecrl.engines.base import Engine
    from ecrl.training.run import Outcome

COMMAND = Command(
    name="train",
    help="""ecrl train: train a policy

  ecrl train [overrides…]              no model named: a small one is built and warmed up
  ecrl train strategy=[clip_cov,clip_higher] seed=1 run_dir=DIR
  ecrl train resume=RUN_DIR iterations=500
  ecrl train resume=RUN_DIR checkpoint=ITERATION   go back (best, last); what came after is deleted
  ecrl train fork=RUN_DIR checkpoint=best update.lr=1e-7   a new run from a checkpoint of another
  ecrl train -m seed=0,1,2 strategy=[],[kl_cov_small] run_dir=DIR

Overrides are Hydra's: key=value for any key of the configuration (--cfg prints it).
""",
    settings=NoSettings,
    overrides=True,
    flags=("-m", "--cfg", "--config-dir"),
)


def main(options: Arguments[NoSettings]) -> int:
    """Train; see ``ecrl.cli.main`` for the exit code."""
    if not options.sweep:
        return _one(options, options.overrides)
    jobs = expand_sweep(options.overrides)
    placed = [_own_run_dir(job, number) for number, job in enumerate(jobs, start=1)]
    # All are checked before any runs, so that a mistake in the last one shows at once.
    configs = [composed_config(words, options.config_dir) for words in placed]
    warnings: list[list[str]] = [[] for _ in jobs]
    if not options.show:
        from ecrl.training.preflight import preflight

        warnings = [preflight(config) for config in configs]
    for number, (job, words) in enumerate(zip(jobs, placed, strict=True), start=1):
        print(f"[{number}/{len(jobs)}] {' '.join(job)}", flush=True)
        code = _one(options, words, warnings[number - 1])
        if code:
            return code
    return 0


def _one(
    options: Arguments[NoSettings], overrides: Sequence[str], warnings: Sequence[str] | None = None
) -> int:
    """Run one job; ``warnings`` are what its preflight found, if it was made."""
    if not options.show and "ECRL_LAUNCHER" not in os.environ:  # whose processes find the folder made
        _check_new(overrides)
    config = composed_config(overrides, options.config_dir)
    if options.show:
        print(as_yaml(config))
        return 0
    # Not before the configuration holds: torch and Lightning take seconds, for which a mistake need not wait.
    from ecrl.distributed.launch import (
        end_with_launcher,
        is_first_process,
        launch,
        launched,
        peers_named,
        processes,
    )
    from ecrl.training.preflight import preflight
    from ecrl.training.run import train

    folder = [] if options.config_dir is None else ["--config-dir", str(options.config_dir)]
    words = [*overrides, *folder]
    if (processes(config) > 1 or (options.sweep and _leaves_traces(config))) and not launched():
        for warning in preflight(config) if warnings is None else warnings:  # before any process is started
            print(f"warning: {warning}", flush=True)
        return launch(config, ["train", *words])
    end_with_launcher()
    with peers_named():
        outcome = train(config, lambda line: print(line, flush=True), words, warnings)
    if is_first_process():
        _show(config, outcome)
    return 128 + signal.Signals[outcome.stopped_by] if outcome.stopped_by else 0


def _check_new(overrides: Sequence[str]) -> None:
    """Refuse a folder that exists as soon as the words name it: composing the rest imports torch."""
    given = dict(override.partition("=")[::2] for override in overrides)
    if "resume" not in given and given.get("run_dir"):
        check_new(Path(given["run_dir"]))


def _leaves_traces(config: Config) -> bool:
    """Whether the engine leaves memory and global state behind, as vLLM does, so that no run may follow."""
    engine: type[Engine] = resolve(config.engine["_target_"], "engine")
    return not engine.shares_weights


def _own_run_dir(job: Sequence[str], number: int) -> list[str]:
    """Give each combination a folder of its own below the named run directory."""
    named = [o for o in job if key_of(o) == "run_dir"]
    if not named:
        return list(job)
    return [o for o in job if o not in named] + [f"{named[-1]}/{number:03d}"]


def _show(config: Config, outcome: Outcome) -> None:
    """Print how the run ended and where its files are."""
    console = Console(highlight=False)
    table = Table(title="Finished" if outcome.stopped_by is None else "Stopped", show_header=False)
    last = outcome.last
    shown = ["rollout/reward", "policy/entropy"]
    sets = validation_sets(config)
    for of in sets:
        shown += [f"val/{of.name}/{what}" for what in (f"avg@{of.k}", f"pass@{of.k}", "greedy")]
    if len(sets) > 1:
        shown.append(VALIDATION_MEAN)
    table.add_row("iterations", f"{outcome.iterations} in {outcome.seconds:.0f} s")
    for name in shown:
        if last.get(name) is not None:
            table.add_row(name, f"{last[name]:.3f}")
    for what, where in {
        "metrics": "metrics.jsonl",
        "policy": "policy",
        "checkpoints": "checkpoints",
        "summary": "summary.json",
    }.items():
        if (outcome.run_dir / where).exists():
            table.add_row(what, str(outcome.run_dir / where))
    best = best_iteration(outcome.run_dir, config.checkpoint.best)
    if best is not None:
        table.add_row("best", f"iteration {best} by {config.checkpoint.best}")
    console.print(table)
    if best is not None and config.checkpoint.best is not None:
        _compare_with_start(outcome.run_dir, config.checkpoint.best, best)
    run_dir = legible(outcome.run_dir)
    if (outcome.run_dir / "tensorboard").exists():
        print(f"Look at it:  tensorboard --logdir {run_dir}")
    print(f"Report:      ecrl report {run_dir}")
    if saved_rollouts(outcome.run_dir):
        print(f"Rollouts:    ecrl rollouts {run_dir}")
    if outcome.stopped_by:
        print(f"Go on with:  ecrl train resume={run_dir}")


def _compare_with_start(run_dir: Path, metric: str, best: int) -> None:
    """Say where the best checkpoint is no better than the model before training, which has none."""
    values = {row["iteration"]: row.get(metric) for row in read_metrics(run_dir / "metrics.jsonl")}
    start, reached = values.get(0), values[best]
    if start is not None and start >= reached:
        print(
            f"warning: the model before training was as good as the best checkpoint: {start:.3f} by {metric}."
        )
