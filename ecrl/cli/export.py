"""``ecrl export RUN OUTPUT``: the policy of one of a run's checkpoints, whole, in HF format."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from ecrl.cli.arguments import Arguments, Command
from ecrl.config.limits import LIMIT, WhichCheckpoint
from ecrl.errors import UsageError
from ecrl.runs.run import load_run


@dataclass(frozen=True)
class Settings:
    """Settings of ``ecrl export``.

    Attributes:
        checkpoint: ``last``, ``best`` or an iteration.
    """

    checkpoint: str = field(default="last", metadata={LIMIT: WhichCheckpoint()})


COMMAND = Command(
    name="export",
    help="""ecrl export: the policy of one of a run's checkpoints, whole, in HF format, with a model card

  ecrl export RUN OUTPUT               RUN: a run directory; OUTPUT: a new folder
  ecrl export RUN --push USER/NAME     to the Hugging Face hub; OUTPUT may be left out

  checkpoint=WHICH   last, best or an iteration                                  (default: last)

The weights have the type that the model came with.
""",
    settings=Settings,
    words=True,
    flags=("--push",),
)


def main(arguments: Arguments[Settings]) -> int:
    """Export, say where, and push if asked to."""
    words, name = arguments.words, arguments.push
    if not (len(words) == 2 or (len(words) == 1 and name)):
        raise UsageError(
            f"`ecrl export RUN OUTPUT` takes two folders, got {len(words)}; OUTPUT may be left out with "
            "--push."
        )
    run_dir, output = Path(words[0]), Path(words[1]) if len(words) == 2 else None
    load_run(run_dir)
    if output is not None and output.exists():
        raise UsageError(f"{str(output)!r} exists already and nothing is overwritten; choose another.")
    if name:
        from ecrl.training.hub import check_push

        check_push(name)
    if output is not None:
        _export(run_dir, output, arguments.settings.checkpoint, name)
        print(f"Policy: {output}")
        return 0
    with tempfile.TemporaryDirectory(prefix="ecrl-policy-") as folder:
        _export(run_dir, Path(folder) / "policy", arguments.settings.checkpoint, name)
    return 0


def _export(run_dir: Path, output: Path, which: str, name: str | None) -> None:
    # Not before the words hold: torch takes seconds to import.
    from ecrl.training.export import export
    from ecrl.training.model_card import write_card

    export(run_dir, output, which)
    write_card(run_dir, which, output)
    if name:
        from ecrl.training.hub import push

        print(f"Pushed: {push(output, name)}")
