"""The base of environments whose problems are the rows of a file or a data set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count, islice
from typing import Any, ClassVar, Literal

import gymnasium as gym
import numpy as np
from numpy.typing import NDArray

from ecrl.envs.arguments import check_types
from ecrl.envs.base import Problem, ReasoningEnv, Split
from ecrl.envs.datasets.cells import check_filled
from ecrl.envs.datasets.pass_rates import check_pass_rate, read_pass_rates
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.row_problems import RowProblems, read_problems
from ecrl.envs.datasets.rows import load_rows
from ecrl.errors import UsageError

_LOADED = "rows", "_all", "_own"
_MAX_DRAWS = 1000


class RowsEnv(ReasoningEnv):
    """Draws its problems from rows. ``reset(options={"index": i})`` takes row i, whatever its split.

    A subclass makes the problem of a row in `problem_of`. Its constructor first sets all attributes that
    `problem_of` needs, and then calls this one, which reads every row. It takes the keyword arguments below
    as ``**rows`` and passes them on, so that every environment over rows has them.

    A run takes the rows of its split one by one, each once before any comes again. One row in ten is for
    validation; the hash of ``Problem.key`` decides. With ``val_path`` or ``val_part``
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
        pass_rate: train only on problems whose pass rate is from the first to the second number, as
            ``[0.1, 0.9]``; needs ``pass_rates``.
        pass_rates: file of pass rates that ``ecrl envs difficulty`` measured.
        split: ``train`` or ``val``.

    Raises:
        UsageError: the rows cannot be read, or some make no problem; names the first of these by file and
            line, with the column and the value found, and counts the others.
    """

    #: Of how many rows the problem is made at most, to try them; if there are more, these are evenly spread.
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
        pass_rate: Sequence[float] | None = None,
        pass_rates: str | None = None,
        split: Split = "train",
    ) -> None:
        check_types(RowsEnv.__init__, locals())
        check_pass_rate(pass_rate, pass_rates)
        # Whatever decides what a row makes. Of many environments with the same key, only the first reads all.
        self._key = type(self), repr(vars(self)), tuple(columns), bad_rows
        super().__init__(split=split)
        if not path:
            raise UsageError(f"{type(self).__name__} needs path=FILE (or a data set): env.kwargs.path=FILE.")
        self._columns = tuple(columns)
        self._skips = bad_rows == "skip"
        self._has_val_rows = bool(val_path or val_part)
        common = {"where": dict(where or {}), "subset": subset}
        self._sources: dict[Split, dict[str, Any]] = {
            "train": {"path": path, "part": part, **common},
            "val": {
                "path": val_path or path,
                "part": val_part or part,
                "argument": "val_path" if val_path else "path",
                **common,
            },
        }
        self._pass_rate = tuple(pass_rate or ()), pass_rates
        if split == "train":
            self._problems("val")  # the first validation may come hours later
        self.path: str = self._sources[split]["path"]
        self._take_rows()

    def _take_rows(self) -> None:
        self.rows = load_rows(**self._sources[self.split])
        self._all = self._problems(self.split)
        self._own = self._all if self._has_val_rows else self._all.of[self.split]
        if not len(self._own):
            purpose = "validation" if self.split == "val" else "training"
            raise UsageError(
                f"{self.path} has no problem for {purpose}: of its {len(self._all)}, one in ten is for "
                "validation, by the hash of its text. Give more rows, or other rows for validation "
                "(env.kwargs.val_path=FILE)."
            )
        if self.split == "train" and self._pass_rate[1] is not None:
            self._own = self._within()

    def _within(self) -> RowProblems:
        """The problems whose pass rate is wanted; found once in each process."""
        bounds, file = self._pass_rate
        rates = read_pass_rates(str(file))
        key = self._key, bounds, rates.path, rates.modified
        if key not in self.rows.problems:
            kept = rates.within(self._own.keys, *bounds)
            self.rows.problems[key] = RowProblems(self._own.indices[kept], self._own.keys[kept])
        found: RowProblems = self.rows.problems[key]
        return found

    @property
    def problem_indices(self) -> NDArray[np.int64]:
        """The rows of this split."""
        return self._own.indices

    @property
    def problem_keys(self) -> NDArray[np.uint64]:
        """The hash of the key of each row's problem."""
        return self._own.keys

    @abstractmethod
    def problem_of(self, row: Row) -> Problem:
        """Make the problem of a row; `read_cell` and `value_at` read its columns.

        Raises:
            ValueError: the row makes no problem; says why.
        """

    def key_of(self, row: Row) -> str:
        """Read the key of a row's problem; a subclass may know a faster way than to make the problem.

        Raises:
            ValueError: the row makes no problem; says why.
        """
        return self._read(row).key

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        """Draw a row of either split."""
        return self._first_problem(int(rng.choice(self._all.indices)) for _ in count())

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
        return self._pose(self._first_problem(self._from(index)))

    def _draw(self) -> Problem:
        return self._first_problem(int(self.np_random.choice(self._own.indices)) for _ in count())

    def _from(self, index: int) -> Iterator[int]:
        """Yield a row, and after it, if it is one of this split's problems, those that follow it."""
        own = self._own.indices
        place = int(np.searchsorted(own, index))
        yield index
        if place < len(own) and own[place] == index:
            yield from map(int, chain(own[place + 1 :], own[:place]))

    def _first_problem(self, indices: Iterator[int]) -> Problem:
        """Make the problem of the first row; with ``bad_rows=skip``, of the first that makes one.

        Not all rows were tried, so a bad one may be among those that are drawn.

        Raises:
            UsageError: none makes one; names the first.
        """
        refusal = UsageError(f"{self.path} has no problems.")
        for number, index in enumerate(islice(indices, _MAX_DRAWS if self._skips else 1)):
            try:
                return self.problem_at(index)
            except UsageError as error:
                refusal = refusal if number else error
        raise refusal

    def _read(self, row: Row) -> Problem:
        for column in self._columns:
            check_filled(row, column)
        return self.problem_of(row)

    def _problems(self, split: Split) -> RowProblems:
        """Read all rows that a split comes from, once in each process."""
        rows = load_rows(**self._sources[split])
        if self._key not in rows.problems:
            rows.problems[self._key] = read_problems(
                rows, self._read, self.key_of, self.rows_tried, self._skips
            )
        problems: RowProblems = rows.problems[self._key]
        return problems

    def __getstate__(self) -> dict[str, Any]:
        # A copy loads the rows again instead of carrying them along.
        return {name: value for name, value in self.__dict__.items() if name not in _LOADED}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._take_rows()
