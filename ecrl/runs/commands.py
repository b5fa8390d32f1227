"""The commands that made a run: ``commands.jsonl`` in its folder, a line for the start and each resume."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ecrl.errors import UsageError

_NAME = "commands.jsonl"


@dataclass(frozen=True)
class Command:
    """One call of ``ecrl train``.

    Attributes:
        iteration: of the checkpoint that it resumed; 0 at the start of a run.
        words: all words after ``ecrl train``.
    """

    iteration: int
    words: list[str]


def save_command(run_dir: Path, command: Command) -> None:
    """Append a command to the run's list."""
    with (run_dir / _NAME).open("a") as file:
        file.write(json.dumps(asdict(command)) + "\n")


def read_commands(run_dir: Path) -> list[Command]:
    """Read the commands, oldest first; none for a run that was made from Python.

    Raises:
        UsageError: the file cannot be read; names it.
    """
    path = run_dir / _NAME
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        return [Command(int(row["iteration"]), [str(word) for word in row["words"]]) for row in rows]
    except FileNotFoundError:
        return []
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}.") from None
