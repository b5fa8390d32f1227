"""Files that say more about an error than its line: what was asked, what was answered, the traceback."""

from __future__ import annotations

import tempfile
import traceback
from pathlib import Path

#: Folder of these files in a run's folder.
ERRORS = "errors"


def write_error(run_dir: Path | None, name: str, error: BaseException, **texts: str) -> str:
    """Write a file about an error.

    Args:
        run_dir: the run's folder; None takes a new one for temporary files.
        name: the file's name without its ending; an older file of this name is replaced.
        error: whose traceback is written, with its causes.
        **texts: what else the file holds, by title.

    Returns:
        The file's path; where it cannot be written, why.
    """
    found = "".join(traceback.format_exception(error))
    parts = [f"--- {title.replace('_', ' ')} ---\n{text}\n" for title, text in texts.items()]
    try:
        folder = run_dir / ERRORS if run_dir else Path(tempfile.mkdtemp(prefix="ecrl-errors-"))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.txt"
        path.write_text("\n".join([*parts, f"--- traceback ---\n{found}"]), "utf-8", "backslashreplace")
    except OSError as why:
        return f"(no file: {why})"
    return str(path)
