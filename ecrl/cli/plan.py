"""``ecrl plan``: what a run will need, before it is started."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from ecrl.cli.options import as_yaml, parse
from ecrl.config.compose import build_config
from ecrl.errors import UsageError
from ecrl.estimate.advice import check_fit
from ecrl.estimate.job import Assumptions, Job
from ecrl.estimate.report import memory_table, notes, work_table


def main(arguments: Sequence[str]) -> int:
    """Print memory, work and time of a configuration; nothing is downloaded, no weights are made.

    Raises:
        UsageError: sizes that do not divide, or a model that is not known here.
        EcrlError: it does not fit; the tables are printed all the same.
    """
    options = parse(arguments)
    if options.sweep:
        raise UsageError("`ecrl plan` plans one run at a time; leave -m out.")
    given, overrides = Assumptions.take(options.overrides)
    config = build_config(overrides, options.config_dir)
    if options.show:
        print(as_yaml(config))
        return 0
    job = Job(config, given)
    console = Console(highlight=False)
    console.print(memory_table(job), work_table(job))
    for line in notes(job):
        console.print(line, soft_wrap=True)
    check_fit(job)
    return 0
