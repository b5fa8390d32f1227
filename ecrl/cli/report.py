"""``ecrl report``: one page that compares runs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ecrl.cli.arguments import Arguments, Command
from ecrl.errors import UsageError, usage_errors
from ecrl.report.write import write_report
from ecrl.runs.metrics_file import legible
from ecrl.sweep.definition import NAME


@dataclass(frozen=True)
class Settings:
    """Settings of a report.

    Attributes:
        output: folder for the page.
        baseline: arm that differences are taken to; None for the first.
        title: of the page.
    """

    output: Path | None = None
    baseline: str | None = None
    title: str = "Entropy report"


COMMAND = Command(
    name="report",
    help="""ecrl report: one page that compares runs, arm by arm, with intervals over seeds

  ecrl report RUN                      the page goes to RUN/report/index.html
  ecrl report SWEEP_DIR                the page goes to SWEEP_DIR/report/index.html
  ecrl report RUNS… output=DIR         runs, or folders of runs: those that differ in nothing but the
                                       seed are one arm

  output=DIR      folder for the page: new, empty, or with an older report
  baseline=ARM    differences are taken to this arm                       (default: the first)
  title=TEXT      of the page                                             (default: Entropy report)
""",
    settings=Settings,
    words=True,
)


def main(arguments: Arguments[Settings]) -> int:
    """Write a report and print where it is."""
    runs, settings = [Path(word) for word in arguments.words], arguments.settings
    if not runs:
        raise UsageError(
            "`ecrl report` takes run directories or a sweep's folder: ecrl report RUNS… output=DIR."
        )
    for run in runs:
        if not os.path.exists(run):
            raise UsageError(f"{run} does not exist.")
    output = settings.output
    if output is None:
        if len(runs) > 1 or not any(os.path.isfile(runs[0] / file) for file in (NAME, "metrics.jsonl")):
            raise UsageError("`ecrl report` needs output=DIR, the folder for its page.")
        output = runs[0] / "report"
    with usage_errors():
        page = write_report(runs, output, baseline=settings.baseline, title=settings.title)
    print(f"Look at it:  {legible(page)}")
    return 0
