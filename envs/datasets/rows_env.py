"""The base of environments whose problems are the rows of a file or a data set."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np

from ecrl.envs.arguments import check_types
from ecrl.envs.base import Problem, ReasoningEnv, Split
from ecrl.envs.datasets.cells import check_filled
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.rows import Rows, load_rows
from ecrl.errors import UsageError

_MAX_DRAWS = 1000


class RowsEnv(ReasoningEnv):
    """Draws its problems from rows. ``reset(options={"index": i})`` takes row i, whatever its split.

    A subclass makes the problem of a row in `problem_of`. Its constructor first sets all attributes that
    `problem_of` needs, and then calls this one, which tries every row. It takes the keyword arguments below
    as ``**rows`` and passes them on, so that every environment over rows has them.

    One row in ten is for validation; the hash of ``Problem.key`` decides. With ``val_path`` or ``val_part``
    all rows of ``path`` are for training, and all rows found there are for validation.

    Args:
        columns: columns that every row must fill; ``prompt.0.content`` reaches into nested values.
        path: a file, a local copy of a data set or a name on the hub; see `load_rows`.
        val_path: the same, for validation.
        where: take only rows whose columns have these values, e.g. ``{ability: math}``.
        subset: configuration of a data set.
        part: part of a data set that is the training split.
        val_part: part of a data set that is the validation split, of ``path`` if there is no ``val_path``.
        bad_rows: ``refuse`` the whole file if a row makes no problem, or ``skip`` such rows with a warning.
        split: ``train`` or ``val``.

    Raises:
        UsageError: the rows cannot be read, or some make no problem; names the first of these by file and
            line, with the column and the value found, and counts the others.
    """

    #: How many rows are tried at most; if there are more, these are evenly spread.
    rows_tried: ClassVar[int] = 50_000

    def __init__(
        self,
        columns: Sequence[str],
        /,
        *,
        path: str | None = None,
        val_path: str | None = None,
        where: Mapping[str, Any] | None = None,
        subset: str | None = None,
        part: str | None = None,
        val_part: str | None = None,
        bad_rows: Literal["refuse", "skip"] = "refuse",
        split: Split = "train",
    ) -> None:
        check_types(RowsEnv.__init__, locals())
        # Whatever decides whether a row is bad. Of many environments with the same key, only the first one
        # tries the rows.
        key = type(self), repr(vars(self)), tuple(columns), bad_rows
        super().__init__(split=split)
        if not path:
            raise UsageError(f"{type(self).__name__} needs path=FILE (or a data set): env.kwargs.path=FILE.")
        self._columns = tuple(columns)
        self._skips = bad_rows == "skip"
        self._has_val_rows = bool(val_path or val_part)
        common = {"where": dict(where or {}), "subset": subset}
        sources: dict[str, dict[str, Any]] = {
            "train": {"path": path, "part": part, **common},
            "val": {"path": val_path or path, "part": val_part or part, **common},
        }
        # Training also tries the rows of validation, because the first validation may come hours later.
        for source in sources.values() if split == "train" else (sources["val"],):
            rows = load_rows(**source)
            if key not in rows.checked_for:
                self._try_rows(rows)
                rows.checked_for.add(key)
        self._source = sources[split]
        self.path: str = self._source["path"]
        self.rows = load_rows(**self._source)

    @abstractmethod
    def problem_of(self, row: Row) -> Problem:
        """Make the problem of a row; `read_cell` and `value_at` read its columns.

        Raises:
            ValueError: the row makes no problem; says why.
        """

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a row; with ``bad_rows=skip``, draw again until the row makes a problem."""
        for _ in range(_MAX_DRAWS if self._skips else 0):
            with suppress(UsageError):
                return self.problem_at(int(rng.integers(len(self.rows))))
        return self.problem_at(int(rng.integers(len(self.rows))))

    def problem_at(self, index: int) -> Problem:
        """Make the problem of row ``index``.

        Raises:
            UsageError: the row makes no problem; names its place and the value found.
        """
        try:
            return self._read(self.rows[index])
        except ValueError as error:
            raise UsageError(f"{self.rows.place(index)}: {error}.") from None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[str, dict[str, Any]]:
        """Draw a problem of this split, or take row ``options["index"]``.

        Raises:
            UsageError: there is no such row.
        """
        index = (options or {}).get("index")
        if index is None:
            return super().reset(seed=seed)
        if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < len(self.rows):
            raise UsageError(f"{self.path} has rows 0 to {len(self.rows) - 1}; got index={index!r}.")
        gym.Env.reset(self, seed=seed)
        self._problem = self.problem_at(index)
        return self._problem.prompt, {"problem": self._problem}

    def _draw(self) -> Problem:
        return self.sample_problem(self.np_random) if self._has_val_rows else super()._draw()

    def _read(self, row: Row) -> Problem:
        for column in self._columns:
            check_filled(row, column)
        return self.problem_of(row)

    def _try_rows(self, rows: Rows) -> None:
        """Make the problem of every row (or of many, evenly spread) before anything is drawn from them."""
        first, bad = "", 0
        indices = range(0, len(rows), -(-len(rows) // self.rows_tried))
        for index in indices:
            try:
                self._read(rows[index])
            except ValueError as error:
                first, bad = first or f"{rows.place(index)}: {error}", bad + 1
        if not bad:
            return
        others = f" ({bad - 1} more of {len(indices)} rows are bad, too)" if bad > 1 else ""
        if not self._skips or bad == len(indices):
            raise UsageError(f"{first}{others}.")
        warnings.warn(f"{first}{others}; skipped.", stacklevel=2)

    def __getstate__(self) -> dict[str, Any]:
        # A copy loads the rows again instead of carrying them along.
        return {name: value for name, value in self.__dict__.items() if name != "rows"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.rows = load_rows(**self._source)
