"""``ecrl export RUN OUTPUT``: the policy of one of a run's checkpoints, whole, in HF format."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ecrl.cli.arguments import Arguments, Command
from ecrl.config.limits import LIMIT, WhichCheckpoint
from ecrl.errors import UsageError


@dataclass(frozen=True)
class Settings:
    """Settings of ``ecrl export``.

    Attributes:
        checkpoint: ``last``, ``best`` or an iteration.
    """

    checkpoint: str = field(default="last", metadata={LIMIT: WhichCheckpoint()})


COMMAND = Command(
    name="export",
    help="""ecrl export: the policy of one of a run's checkpoints, whole, in HF format

  ecrl export RUN OUTPUT               RUN: a run directory; OUTPUT: a new folder

  checkpoint=WHICH   last, best or an iteration                                  (default: last)

The weights have the type that the model came with.
""",
    settings=Settings,
    words=True,
)


def main(arguments: Arguments[Settings]) -> int:
    """Export, and say where."""
    words = arguments.words
    if len(words) != 2:
        raise UsageError(f"`ecrl export RUN OUTPUT` takes two folders, got {len(words)}.")
    run_dir, output = map(Path, words)
    if output.exists():
        raise UsageError(f"{str(output)!r} exists already and nothing is overwritten; choose another.")
    # Not before the words hold: torch takes seconds to import.
    from ecrl.training.export import export

    export(run_dir, output, arguments.settings.checkpoint)
    print(f"Policy: {output}")
    return 0
