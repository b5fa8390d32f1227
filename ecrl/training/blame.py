"""Names the part of a run that raised: a strategy, a monitor, a part of the objective."""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from ecrl.algorithm.objective import Objective
from ecrl.distributed.launch import peer_error
from ecrl.errors import EcrlError
from ecrl.runs import os_errors
from ecrl.runs.error_files import write_error


@contextmanager
def parts_named(parts: Mapping[str, Any], run_dir: Path | None) -> Iterator[None]:
    """Turn an exception of a part into a one-line error that names the part, the file and the line.

    Args:
        parts: objects whose methods, and functions that, the run calls; by their names in the configuration.
        run_dir: folder of the run, for a file with the traceback; None takes a temporary one.

    Raises:
        EcrlError: a part raised something else than an ``EcrlError`` or an error of the operating system.
    """
    try:
        yield
    except Exception as error:
        name = _raised_by(error, parts)
        if name is None or isinstance(error, EcrlError) or os_errors.describe(error) is not None:
            raise
        if isinstance(error, RuntimeError) and peer_error(error):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        said = ": ".join(filter(None, (type(error).__name__, " ".join(str(error).split()))))
        path = write_error(run_dir, re.sub(r"[^\w.-]+", "-", name), error)
        raise EcrlError(
            f"{name} failed: {said} ({place.filename}:{place.lineno}). Its traceback is in {path}"
        ) from error


def objective_parts(objective: Objective) -> dict[str, Any]:
    """Return the functions of an objective by their keys."""
    functions = {name: getattr(objective, name) for name in ("estimator", "surrogate", "aggregation")}
    functions |= {f"shaping.{name}": shape for name, shape in objective.shaping.items()}
    return {f"objective.{name}": function for name, function in functions.items()}


def _raised_by(error: BaseException, parts: Mapping[str, Any]) -> str | None:
    """Return the name of the part that was called last; None if none was."""
    called = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for name, part in parts.items():
            function = part.func if isinstance(part, partial) else part
            code = getattr(function, "__code__", None)
            if frame.f_code is code or (code is None and frame.f_locals.get("self") is part):
                called = name
    return called
