"""A run's rollouts on disk: a Parquet part for each iteration, ``rollouts/train/000017.parquet``.

Answers to a validation set are parts too, ``rollouts/val/SET/000020.parquet``; 0 is before the first
iteration. A part has a row for each response, in the order in which they were drawn; those of a
problem lie side by side. The columns stand in ``COLUMNS``, and with ``log.rollout_tokens=true`` those of
``TOKEN_COLUMNS`` too. A part is whole as soon as it is there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecrl.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "rollouts"
TRAIN = "train"
_PARTIAL = ".partial"
_METADATA = b"ecrl"

#: The columns of every part: Arrow's type and meaning. What a response has not is null.
COLUMNS = {
    "iteration": ("int32", "the row of metrics.jsonl: the iteration that trains on it, or is validated"),
    "problem": ("int64", "number of the problem; its responses form a group"),
    "copy": ("int32", "number of the response within its group"),
    "prompt": ("string", "the exact text that the policy read first"),
    "response": ("string", "the policy's own text, all turns joined"),
    "reward": ("float64", "sum of the episode's rewards"),
    "metrics": ("list<name, value>", "further numbers of the environment"),
    "answer": ("string", "the extracted answer"),
    "gold": ("string", "the right answer"),
    "truncated": ("bool", "cut off by a limit on tokens or turns"),
    "failed": ("bool", "the environment's code raised"),
    "overlong": ("bool", "the prompt was too long"),
    "trained": ("bool", "a part of the update: its group passed the filters"),
    "greedy": ("bool", "the greedy answer of a validation"),
    "turns": ("int32", "number of turns of the policy"),
    "length": ("int32", "number of the policy's own tokens"),
    "version": ("int64", "optimizer steps of the weights that drew it, or its first token"),
    "logprob": ("float32", "mean log-probability of its tokens when they were drawn, nats"),
    "entropy": ("float32", "mean entropy when they were drawn, nats"),
    "advantage": ("float32", "mean advantage of its tokens, before the strategies"),
    "covariance": ("float32", "mean covariance of its tokens at their update"),
}
#: The further columns with ``log.rollout_tokens=true``: an entry for each of the policy's own tokens, but for
#: the first five. Those from ``old_logprobs`` on are null where a response did not train.
TOKEN_COLUMNS = {
    "prompt_ids": ("list<int32>", "token ids of the prompt"),
    "response_ids": (
        "list<int32>",
        "token ids after it: the policy's own, and the environment's between turns",
    ),
    "own": ("list<bool>", "for each of response_ids: whether the policy wrote it"),
    "turn_lengths": ("list<int32>", "the policy's own tokens in each turn"),
    "turn_rewards": ("list<float64>", "reward of each turn"),
    "token_texts": ("list<string>", "text of each token"),
    "engine_logprobs": ("list<float32>", "log-probability by the engine that drew it, nats"),
    "engine_entropy": ("list<float32>", "entropy by the engine, nats; null where it tells none"),
    "old_logprobs": (
        "list<float32>",
        "log π_old: by the trainer's weights at the rollout, or left to the engine",
    ),
    "old_entropy": ("list<float32>", "entropy of π_old, nats"),
    "logprobs": ("list<float32>", "log π at the token's own update (its first), nats"),
    "token_entropy": ("list<float32>", "entropy of π there, nats"),
    "advantages": ("list<float32>", "advantages before the strategies"),
    "covariances": (
        "list<float32>",
        "covariance over its optimizer minibatch, after the strategies' advantages",
    ),
    "columns": ("list<name, values>", "what strategies and objective added, e.g. reference_logprobs"),
}


def rollout_folder(run_dir: Path, of: str | None = None) -> Path:
    """Return the folder of the parts of training, or of a validation set."""
    return run_dir / FOLDER / TRAIN if of is None else run_dir / FOLDER / "val" / of


def part_path(run_dir: Path, iteration: int, of: str | None = None) -> Path:
    """Return where the part of an iteration lies; ``of`` is a validation set, None is training."""
    return rollout_folder(run_dir, of) / f"{iteration:06d}.parquet"


def saved_rollouts(run_dir: Path, of: str | None = None) -> list[int]:
    """Return the iterations that have a part, in order."""
    parts = rollout_folder(run_dir, of).glob("*.parquet")
    return sorted(int(part.stem) for part in parts if part.stem.isdecimal())


def validated_sets(run_dir: Path) -> list[str]:
    """Return the names of the validation sets that have parts."""
    folders = (run_dir / FOLDER / "val").glob("*")
    return sorted(folder.name for folder in folders if saved_rollouts(run_dir, folder.name))


def read_rollouts(
    run_dir: Path, iteration: int, of: str | None = None, columns: Sequence[str] | None = None
) -> list[dict[str, Any]]:
    """Read the rows of a part as plain values.

    Args:
        run_dir: the run.
        iteration: of the part.
        of: a validation set; None is training.
        columns: which to read; None reads all. One that the part does not have is left out, as those of
            ``TOKEN_COLUMNS`` are without ``log.rollout_tokens=true``.

    Raises:
        UsageError: there is no such part, or it cannot be read.
    """
    rows: list[dict[str, Any]] = read_table(run_dir, iteration, of, columns).to_pylist()
    return rows


def read_table(
    run_dir: Path, iteration: int, of: str | None = None, columns: Sequence[str] | None = None
) -> pa.Table:
    """Read a part as Arrow's table; see ``read_rollouts``."""
    import pyarrow.parquet as pq

    with _readable(run_dir, iteration, of) as path, pq.ParquetFile(path) as file:
        known = set(file.schema_arrow.names)
        return file.read(columns=None if columns is None else [name for name in columns if name in known])


def has_tokens(run_dir: Path, iteration: int, of: str | None = None) -> bool:
    """Whether a part has the columns of ``TOKEN_COLUMNS``; reads no row.

    Raises:
        UsageError: there is no such part, or it cannot be read.
    """
    import pyarrow.parquet as pq

    with _readable(run_dir, iteration, of) as path:
        return set(TOKEN_COLUMNS) <= set(pq.read_schema(path).names)


@contextmanager
def _readable(run_dir: Path, iteration: int, of: str | None) -> Iterator[Path]:
    """Give the block the path of a part; it is refused where it is missing or the block cannot read it."""
    import pyarrow as pa

    path = part_path(run_dir, iteration, of)
    if not path.exists():
        raise _missing(run_dir, iteration, of)
    try:
        yield path
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UsageError(f"{path} cannot be read: {' '.join(str(error).split())}") from None


def facts_of(table: pa.Table) -> dict[str, Any]:
    """Return what a part of training says of the whole rollout.

    Returns:
        ``step`` (optimizer steps before the update), ``temperature`` (of the softmax) and ``own_logprobs``
        (π_old is the trainer's own, not left to the engine); empty for a validation.
    """
    facts: dict[str, Any] = json.loads((table.schema.metadata or {}).get(_METADATA, b"{}"))
    return facts


def _missing(run_dir: Path, iteration: int, of: str | None) -> UsageError:
    saved = saved_rollouts(run_dir, of)
    if not saved:
        sets = validated_sets(run_dir)
        has = f"; it has those of the validation sets {', '.join(sets)}" if sets else ""
        what = "rollouts" if of is None else f"answers to a validation set {of!r}"
        return UsageError(f"{run_dir} has no {what}{has}. Runs with log.rollouts=true write them.")
    what = "rollouts" if of is None else f"answers to {of}"
    some = ", ".join(map(str, saved))
    if len(saved) > 10:
        some = f"{len(saved)} iterations, from {saved[0]} to {saved[-1]}"
    why = "; log.rollouts_keep says how long they stay" if iteration < saved[0] else ""
    return UsageError(f"{run_dir} has no {what} of iteration {iteration}; it has those of {some}{why}.")


class PartWriter:
    """Writes a part aside, piece by piece, and moves it into place when it is whole.

    Args:
        path: of the part.
        tokens: whether it has the columns of ``TOKEN_COLUMNS``.
        facts: see ``facts_of``.
    """

    def __init__(self, path: Path, tokens: bool, facts: Mapping[str, Any] | None = None) -> None:
        import pyarrow.parquet as pq

        self._path = path
        self._aside = path.with_name(path.name + _PARTIAL)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._schema = _schema(tokens).with_metadata({_METADATA: json.dumps(dict(facts or {}))})
        self._file = pq.ParquetWriter(self._aside, self._schema, compression="zstd")

    def write(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Add rows; every column has an entry for each.

        Raises:
            OSError: the disk does not take them.
        """
        import pyarrow as pa

        arrays = [pa.array(columns[field.name], field.type) for field in self._schema]
        self._file.write_table(pa.Table.from_arrays(arrays, schema=self._schema))

    def close(self) -> None:
        """Move the part into place.

        Raises:
            OSError: the disk does not take it.
        """
        self._file.close()
        with self._aside.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(self._aside, self._path)

    def discard(self) -> None:
        """Leave nothing behind."""
        with suppress(OSError):
            self._file.close()
        self._aside.unlink(missing_ok=True)


def _schema(tokens: bool) -> pa.Schema:
    import pyarrow as pa

    pair = [pa.field("name", pa.string())]
    nested = {
        "list<name, value>": pa.list_(pa.struct([*pair, pa.field("value", pa.float64())])),
        "list<name, values>": pa.list_(pa.struct([*pair, pa.field("values", pa.list_(pa.float32()))])),
    }

    def kind(name: str) -> pa.DataType:
        if name in nested:
            return nested[name]
        if name.startswith("list<"):
            return pa.list_(kind(name[5:-1]))
        return pa.type_for_alias(name)

    fields = {**COLUMNS, **(TOKEN_COLUMNS if tokens else {})}
    return pa.schema([pa.field(name, kind(of)) for name, (of, _) in fields.items()])


def prune_rollouts(run_dir: Path, last: int, keep: int | None) -> None:
    """Delete the parts of all but the last iterations; ``keep`` is how many stay, None keeps all.

    The last validation of each set stays, also if it was longer ago.
    """
    if keep is not None:
        newest = {part_path(run_dir, saved_rollouts(run_dir, of)[-1], of) for of in validated_sets(run_dir)}
        _delete(run_dir, lambda part: int(part.stem) <= last - keep and part not in newest)


def drop_rollouts_after(run_dir: Path, iteration: int) -> None:
    """Delete the parts after the iteration with which a run goes on, and what a killed run left."""
    _delete(run_dir, lambda part: int(part.stem) > iteration)
    for rest in (run_dir / FOLDER).rglob(f"*{_PARTIAL}"):
        rest.unlink()


def _delete(run_dir: Path, due: Callable[[Path], bool]) -> None:
    for part in (run_dir / FOLDER).rglob("*.parquet"):
        if part.stem.isdecimal() and due(part):
            part.unlink(missing_ok=True)
