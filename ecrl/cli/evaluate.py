"""``ecrl eval``: a policy answers an environment's validation problems."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.table import Table

from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.cli.output import output_config
from ecrl.runs.versions import versions

COMMAND = Command(
    name="eval",
    help="""ecrl eval: a policy answers an environment's validation problems

  ecrl eval model.path=DIR env=countdown eval.k=16 output=FILE.json
  ecrl eval [overrides…]               no model named: the small one after its warm start

Overrides are Hydra's, of the configuration of `ecrl train`. output: a JSON file for the metrics.
""",
    settings=NoSettings,
    overrides=True,
    flags=("--cfg", "--config-dir"),
)


def main(arguments: Arguments[NoSettings]) -> int:
    """Evaluate, print a table and write JSON where ``output`` is given."""
    config = output_config(arguments)
    if config is None:
        return 0
    from ecrl.training.run import evaluate  # not before the configuration holds: it takes seconds

    metrics = evaluate(config)
    table = Table(
        "metric",
        "value",
        title=f"{config.env.id}, eval.problems={config.eval.problems}, eval.k={config.eval.k}",
    )
    for name, value in metrics.items():
        table.add_row(name, f"{value:.4f}")
    Console(highlight=False).print(table)
    if config.output is not None:
        result = {
            "model": config.model.path,
            "env": asdict(config.env),
            "eval": asdict(config.eval),
            "seed": config.seed,
            "metrics": metrics,
            "versions": versions(),
        }
        output = Path(config.output)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(result, indent=2) + "\n")
        print(f"Written to {output}")
    return 0
