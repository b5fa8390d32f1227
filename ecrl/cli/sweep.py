"""``ecrl sweep``: arms × seeds, resumable, several at once."""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ecrl.cli.arguments import Arguments, Command
from ecrl.config.limits import count
from ecrl.errors import UsageError
from ecrl.runs.os_errors import writing
from ecrl.sweep.definition import NAME, Cell, Sweep, make_sweep, parse_yaml, read_sweep, sweep_file, without
from ecrl.sweep.display import Display
from ecrl.sweep.running import Work, is_finished, run_cells


@dataclass(frozen=True)
class Settings:
    """Settings of a sweep; a file may give them too.

    Attributes:
        output: folder for the runs.
        arms: YAML, name → overrides.
        seeds: YAML, a list.
        jobs: cells at once; None takes half of the cores.
    """

    output: Path | None = None
    arms: str | None = None
    seeds: str | None = None
    jobs: int | None = count(None, least=1)


COMMAND = Command(
    name="sweep",
    help="""ecrl sweep: arms × seeds, each cell a run of its own in DIR/ARM-SEED

  ecrl sweep output=DIR 'arms={grpo: "strategy=[]", on_policy: ["strategy=[]", "update.minibatches=1"]}'
             seeds=[1,2,3] [jobs=2] [overrides for all…]
  ecrl sweep FILE.yaml output=DIR    arms, seeds and overrides from a file
  ecrl sweep NAME output=DIR         a sweep that comes with ecrl, such as paper_entropy_bonus
  ecrl sweep DIR                     resume: finished cells stay, cut ones resume, failed ones start again

  output=DIR     folder for the runs
  arms={…}       overrides of each arm, by its name; the first is the baseline of `ecrl report DIR`
  seeds=[…]      one run an arm each
  jobs=N         cells at once                                               (default: half of the cores)
--cfg prints the commands of all cells.
""",
    settings=Settings,
    words=True,
    overrides=True,
    flags=("--cfg", "--config-dir"),
)


def main(arguments: Arguments[Settings]) -> int:
    """Run a sweep.

    Returns:
        0; 1 if a cell failed; 130 or 143 if a signal stopped it.
    """
    output, sweep, jobs = _read(arguments)
    cells = sweep.cells(output)
    if arguments.show:
        for cell in cells:
            print(shlex.join(["ecrl", "train", *cell.overrides, f"run_dir={cell.run_dir}"]))
        return 0
    with _claim(output, sweep) as lock:
        return _run(output, sweep, cells, jobs, lock)


def _read(arguments: Arguments[Settings]) -> tuple[Path, Sweep, int]:
    """Join the file and the command line; the command line wins."""
    given = arguments.settings
    values, source, folder = _file(arguments.words)
    jobs, output = values.pop("jobs", None), values.pop("output", None)
    for key, text in (("arms", given.arms), ("seeds", given.seeds)):
        if text is not None:
            values[key] = parse_yaml(text, f"{key}={text!r}")
    own = arguments.overrides
    values["overrides"] = [*without(_as_list(values.get("overrides")), own), *own]
    if arguments.config_dir is not None:
        values["config_dir"] = str(arguments.config_dir)
    output = given.output or folder or output
    if not output:
        raise UsageError("`ecrl sweep` needs output=DIR, the folder for its runs.")
    return Path(str(output)).expanduser(), make_sweep(values, source), given.jobs or _jobs(jobs)


def _file(words: Sequence[str]) -> tuple[dict[str, Any], str, Path | None]:
    """Read the file or folder that the words name.

    Returns:
        Its values, where they stand, and the folder if it was one.
    """
    if not words:
        return {}, "the command line", None
    if len(words) > 1:
        raise UsageError(f"`ecrl sweep` takes one file or folder, got {' '.join(words)}.")
    path, folder = sweep_file(words[0]), None
    if os.path.isdir(path):
        folder, path = path, path / NAME
    return read_sweep(path), str(path), folder


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _jobs(value: Any) -> int:
    """Check the number of cells at once that a file gives; half of the cores if it gives none."""
    if value is None:
        return max((os.cpu_count() or 1) // 2, 1)
    if type(value) is not int or value < 1:
        raise UsageError(f"jobs must be a whole number from 1, got {value!r}.")
    return value


@contextmanager
def _claim(output: Path, sweep: Sweep) -> Iterator[IO[str]]:
    """Hold the folder for this sweep alone, and write the definition into it.

    Raises:
        UsageError: it holds something else, or another sweep is at work in it.
    """
    definition = output / NAME
    if definition.exists():
        sweep.check_grown_from(make_sweep(read_sweep(definition), str(definition)), definition)
    elif output.exists() and (not output.is_dir() or any(p.name != ".lock" for p in output.iterdir())):
        raise UsageError(f"output={str(output)!r} exists and holds no {NAME}; choose another folder.")
    with writing(output, "output"):
        (output / "logs").mkdir(parents=True, exist_ok=True)
        lock = (output / ".lock").open("w")
    with lock:
        try:
            # The cells' processes hold it too, so that none is begun twice.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"another sweep is at work in {output}; wait for its end, or stop it.") from None
        sweep.save(output)
        yield lock


def _run(output: Path, sweep: Sweep, cells: Sequence[Cell], jobs: int, lock: IO[str]) -> int:
    # Not before the sweep holds: it loads torch.
    from ecrl.training.preflight import preflight

    for cell in cells[: len(sweep.arms)]:  # what cannot work shows before any cell is begun
        try:
            preflight(sweep.compose(cell.overrides))
        except UsageError as error:
            raise UsageError(f"arm {cell.arm!r}: {error}") from None
    waiting = [cell for cell in cells if not is_finished(cell)]
    failed: list[Work] = []
    with Display(cells, len(waiting)) as display:

        def start(cell: Cell) -> Work:
            return Work(cell, output / "logs" / f"{cell.name}.log", sweep.config_dir, (lock.fileno(),))

        def ended(work: Work) -> None:
            complaint = work.complaint()
            if complaint is not None:
                failed.append(work)
            display.say(complaint or f"{work.cell.name}: finished")

        stopped_by = run_cells(waiting, start, jobs, display.look, ended)
    finished = sum(map(is_finished, cells))
    print(f"{finished} of {len(cells)} cells are finished.")
    if failed:
        print(f"ecrl: failed: {', '.join(w.cell.name for w in failed)}.", file=sys.stderr)
    if finished < len(cells):
        print(f"Go on with:   ecrl sweep {shlex.quote(str(output))}")
    else:
        print(f"Look at it:   ecrl report {shlex.quote(str(output))}")
    return 128 + stopped_by if stopped_by else 1 if failed else 0
