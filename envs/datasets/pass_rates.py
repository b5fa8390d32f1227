"""Pass rates of problems, as `ecrl envs difficulty` measures them: JSON lines, one problem each.

{"measured": {"model": …, "k": 16, …}}                          the first line: with what
{"key": "00f3a1…", "pass_rate": 0.25, "answers": 16}            key: hash of Problem.key, hexadecimal
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecrl.errors import UsageError


@dataclass(frozen=True)
class PassRates:
    """Measured pass rates.

    Attributes:
        path: the file.
        modified: when the file was last changed, in nanoseconds.
        measured: the settings that they were measured with.
        rates: share of right answers, by the hash of the problem's key.
    """

    path: str
    modified: int
    measured: dict[str, Any]
    rates: dict[int, float]

    def within(self, keys: NDArray[np.uint64], low: float, high: float) -> NDArray[np.bool_]:
        """Whether each problem's pass rate is from ``low`` to ``high``, both included.

        Raises:
            UsageError: a problem was not measured, or none is within.
        """
        found = [self.rates.get(int(key)) for key in keys]
        missing = sum(rate is None for rate in found)
        if missing:
            raise UsageError(
                f"pass_rates={self.path!r} lacks {missing} of the {len(keys)} problems of training; measure "
                "them with `ecrl envs difficulty`, which goes on where it was."
            )
        rates = np.asarray(found, np.float64)
        kept = (rates >= low) & (rates <= high)
        if not kept.any():
            raise UsageError(
                f"pass_rate=[{low:g}, {high:g}] keeps none of the {len(keys)} training problems; their pass "
                f"rates are {rates.min():g} to {rates.max():g}, {rates.mean():.3g} on average."
            )
        return kept


def check_pass_rate(pass_rate: Sequence[float] | None, pass_rates: str | None) -> None:
    """Check the arguments of an environment that filters by pass rate.

    Raises:
        UsageError: only one was given, or the first is not two shares in order.
    """
    if (pass_rate is None) != (pass_rates is None):
        raise UsageError(
            "pass_rate=[LOW, HIGH] and pass_rates=FILE go together: `ecrl envs difficulty` measures the file."
        )
    if pass_rate is not None and not (len(pass_rate) == 2 and 0 <= pass_rate[0] <= pass_rate[1] <= 1):
        raise UsageError(f"pass_rate must be two shares, as [0.1, 0.9]; got {list(pass_rate)!r}.")


def read_pass_rates(path: str) -> PassRates:
    """Read a file of pass rates; an incomplete last line, where measuring was cut off, is left out.

    Raises:
        UsageError: the file cannot be read, or a line is no pass rate.
    """
    file = Path(path).expanduser()
    try:
        return _read(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise UsageError(f"pass_rates={path!r} cannot be read: {error.strerror}.") from None


@lru_cache(maxsize=4)
def _read(file: Path, modified: int) -> PassRates:
    """Read the file; ``modified``, its time of modification in nanoseconds, renews the cache."""
    measured: dict[str, Any] = {}
    rates: dict[int, float] = {}
    for number, line in enumerate(file.read_bytes().splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
            if number == 1:
                measured = dict(row["measured"])
            else:
                rates[int(row["key"], 16)] = _share(row["pass_rate"])
        except (ValueError, LookupError, TypeError):
            raise UsageError(
                f"{file}:{number} is no pass rate as `ecrl envs difficulty` writes it; found {line!r:.80}."
            ) from None
    return PassRates(str(file), modified, measured, rates)


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError(value)
    return float(value)
