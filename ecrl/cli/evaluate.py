"""``ecrl eval``: a policy answers validation problems."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table

from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.cli.output import check_output
from ecrl.config.compose import as_yaml, build_config
from ecrl.config.eval_sets import validation_sets
from ecrl.config.keys import key_of
from ecrl.config.resume import run_config
from ecrl.config.schema import Config, LoraConfig
from ecrl.errors import UsageError
from ecrl.runs.versions import versions

if TYPE_CHECKING:
    from ecrl.training.validation import Evaluation

COMMAND = Command(
    name="eval",
    help="""ecrl eval: a policy answers validation problems

  ecrl eval model.path=DIR env=countdown eval.k=16 output=FILE.json
  ecrl eval model.path=DIR eval=paper_math
  ecrl eval RUN [overrides…]           what a run trained, on the run's own validation sets
  ecrl eval RUN checkpoint=best        the same of another checkpoint: best or an iteration
  ecrl eval [overrides…]               no model named: the small one after its warm start

Overrides are Hydra's, of the configuration of `ecrl train`; with RUN, of that run's.
output: a JSON file for the metrics and their standard errors over the problems.
""",
    settings=NoSettings,
    words=True,
    overrides=True,
    flags=("--cfg", "--config-dir"),
)


def main(arguments: Arguments[NoSettings]) -> int:
    """Evaluate, print a table and write JSON where ``output`` is given."""
    if len(arguments.words) > 1:
        raise UsageError(f"`ecrl eval` takes one run, got {len(arguments.words)}: {arguments.words}.")
    run_dir = Path(arguments.words[0]) if arguments.words else None
    config = _config(arguments, run_dir)
    if arguments.show:
        print(as_yaml(config))
        return 0
    if config.output is not None:
        check_output(Path(config.output))
    # Where a model is named, as for the processes that this one starts, it is what the run trained.
    if run_dir is None or any(key_of(o) == "model.path" for o in arguments.overrides):
        return _evaluate(config, arguments)
    from ecrl.training.export import exported_policy  # torch takes seconds to import

    with exported_policy(run_dir, config.checkpoint) as policy:
        config.model.path = str(policy)
        return _evaluate(config, arguments)


def _config(arguments: Arguments[NoSettings], run_dir: Path | None) -> Config:
    """Compose the configuration, or take a run's own; no strategy takes part."""
    if run_dir is None:
        return build_config([*arguments.overrides, "strategy=[]"], arguments.config_dir)
    config = run_config(run_dir, arguments.overrides, arguments.config_dir)
    own = [of for of in config.eval.sets.values() if of is not None and of.env is None]
    if config.eval.sets and not own:
        for key in map(key_of, arguments.overrides):
            if key.partition(".")[0] == "env":
                raise UsageError(
                    f"{key}=… has no effect: every validation set of {run_dir} names an environment of its "
                    "own. Change a set's (eval.sets.NAME.env=…), or leave a set out (eval.sets.NAME=null)."
                )
    config.strategy, config.run_dir, config.resume = {}, None, None
    # An exported policy has its adapters merged, and nothing is quantised.
    config.model.lora, config.model.quantization = LoraConfig(), None
    return config


def _evaluate(config: Config, arguments: Arguments[NoSettings]) -> int:
    """Evaluate in as many processes as are asked for; the first one reports."""
    # Not before the configuration holds: they load torch and Lightning.
    from ecrl.cli.processes import in_processes
    from ecrl.distributed.launch import is_first_process
    from ecrl.training.run import evaluate

    folder = [] if arguments.config_dir is None else ["--config-dir", str(arguments.config_dir)]
    path = [] if config.model.path is None else [f"model.path={config.model.path}"]

    def work() -> None:
        evaluation = evaluate(config)
        if is_first_process():
            _print(config, evaluation)
            if config.output is not None:
                _write(Path(config.output), config, evaluation, arguments.words)

    return in_processes(config, ["eval", *arguments.words, *arguments.overrides, *path, *folder], work)


def _print(config: Config, evaluation: Evaluation) -> None:
    sets = [f"{of.name}: {of.env.id}, problems={of.problems}, k={of.k}" for of in validation_sets(config)]
    table = Table("metric", "value", "± standard error", title="\n".join(sets))
    for name, value in evaluation.metrics.items():
        error = evaluation.standard_errors.get(name, math.nan)
        table.add_row(name, f"{value:.4f}", "–" if math.isnan(error) else f"{error:.4f}")
    Console(highlight=False).print(table)


def _write(output: Path, config: Config, evaluation: Evaluation, run: Sequence[str]) -> None:
    result: dict[str, Any] = {
        "run": run[0] if run else None,
        "model": config.model.path,
        "env": asdict(config.env),
        "eval": asdict(config.eval),
        "sets": {of.name: asdict(of) for of in validation_sets(config)},
        "seed": config.seed,
        "metrics": evaluation.metrics,
        "standard_errors": {
            name: None if math.isnan(error) else error for name, error in evaluation.standard_errors.items()
        },
        "versions": versions(),
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(result, indent=2) + "\n")
    print(f"Written to {output}")
