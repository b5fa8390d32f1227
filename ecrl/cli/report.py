"""``ecrl report``: one page that compares runs."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ecrl.errors import UsageError, unknown_name, usage_errors
from ecrl.report.write import write_report
from ecrl.runs.metrics_file import legible
from ecrl.sweep.definition import NAME

HELP = """ecrl report: one page that compares runs, arm by arm, with intervals over seeds

  ecrl report SWEEP_DIR                        the page goes to SWEEP_DIR/report/index.html
  ecrl report RUNS… output=DIR                 runs, or folders of runs: those that differ in nothing
                                               but the seed are one arm
      baseline=ARM    differences are taken to this arm   (default: the first)
      title=TEXT      of the page
"""
_KEYS = ("output", "baseline", "title")


def main(arguments: Sequence[str]) -> int:
    """Write a report and say where it is."""
    runs, given = [], {}
    for word in arguments:
        key, equals, value = word.partition("=")
        if word.startswith("-"):
            raise unknown_name("option", word, ("--help",))
        if equals and "/" not in key and not os.path.exists(word):
            if key not in _KEYS:
                raise unknown_name("option of `ecrl report`", key, _KEYS)
            given[key] = value
        else:
            runs.append(Path(os.path.expanduser(word)))
    if not runs:
        raise UsageError(
            "`ecrl report` takes run directories or a sweep's folder: ecrl report RUNS… output=DIR."
        )
    for run in runs:
        if not os.path.exists(run):
            raise UsageError(f"{run} does not exist.")
    output = given.pop("output", None)
    if output is None:
        if len(runs) > 1 or not os.path.isfile(runs[0] / NAME):
            raise UsageError("`ecrl report` needs output=DIR, the folder for its page.")
        output = str(runs[0] / "report")
    with usage_errors():
        page = write_report(runs, Path(os.path.expanduser(output)), **given)
    print(f"Look at it:  {legible(page)}")
    return 0
