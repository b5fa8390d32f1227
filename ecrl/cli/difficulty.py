"""``ecrl envs difficulty``: how hard the problems of a data set are for a policy, in a file."""

from __future__ import annotations

from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from ecrl.cli.arguments import Arguments
from ecrl.cli.processes import in_processes
from ecrl.config.compose import build_config
from ecrl.config.eval_sets import env_name
from ecrl.config.keys import key_of
from ecrl.config.schema import Config
from ecrl.distributed.launch import is_first_process
from ecrl.runs.os_errors import check_writable
from ecrl.training.difficulty import Difficulty, measure


def difficulty(name: str, arguments: Arguments[Any]) -> int:
    """Measure, and print how many problems have which pass rate.

    Args:
        name: the environment.
        arguments: keys of `ecrl train` as they are; all others are arguments of the environment.
    """
    overrides = [word if _is_setting(word) else f"env.kwargs.{word}" for word in arguments.overrides]
    config = build_config([f"env={name}", "strategy=[]", *overrides], arguments.config_dir)
    output = Path(config.output or f"{env_name(config.env)}-pass_rates.jsonl")
    check_writable(output.parent, "output")  # the file itself may be there, to go on with
    folder = [] if arguments.config_dir is None else ["--config-dir", str(arguments.config_dir)]

    def work() -> None:
        found = measure(config, output, lambda line: print(line, flush=True))
        if is_first_process():
            _print(found)

    return in_processes(config, ["envs", *arguments.words, *arguments.overrides, *folder], work)


def _is_setting(word: str) -> bool:
    return key_of(word).partition(".")[0] in {f.name for f in fields(Config)}


def _print(found: Difficulty) -> None:
    table = Table(
        "pass rate", "problems", title=f"{len(found.rates)} problems, mean {found.rates.mean():.3f}"
    )
    rates = found.rates
    rows = {"0": rates == 0}
    for low, high in pairwise((0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)):
        last = "]" if high < 1 else ")"
        rows[f"({low:g}, {high:g}{last}"] = (rates > low) & ((rates <= high) if high < 1 else (rates < 1))
    rows["1"] = rates == 1
    for bin_, inside in rows.items():
        table.add_row(bin_, str(int(inside.sum())))
    Console(highlight=False).print(table)
    kept = int(((rates >= 0.1) & (rates <= 0.9)).sum())
    print(f"Written to {found.path}. Train on the {kept} between 0.1 and 0.9 with")
    print(f"  env.kwargs.pass_rates={found.path} env.kwargs.pass_rate=[0.1,0.9]")
