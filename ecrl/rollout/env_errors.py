"""What happens when an environment's code raises: the run ends, or the answer scores 0 and is counted."""

from __future__ import annotations

from itertools import count
from pathlib import Path

from ecrl.errors import EcrlError, UsageError
from ecrl.runs.error_files import write_error

MOST_FILES = 20  # of one process, where errors do not end the run


class EnvErrors:
    """Judges the errors that ``user_code`` made of what an environment raised.

    Args:
        on_error: ``raise`` ends the run; ``zero`` goes on, and the answer scores 0.
        run_dir: folder of the run, for files about the errors; None takes a temporary one.
    """

    def __init__(self, on_error: str = "raise", run_dir: Path | None = None) -> None:
        self._on_error = on_error
        self._run_dir = run_dir
        self._files = count()  # threads share it

    def judge(self, error: EcrlError, name: str, **texts: str) -> None:
        """Write a file about an error, and return if the run is to go on.

        Args:
            error: what ``user_code`` raised.
            name: of the file.
            **texts: prompt and response, as far as there are any.

        Raises:
            EcrlError: the run is to end; names the file. A ``UsageError`` passes as it is: the settings are
                wrong.
        """
        if isinstance(error, UsageError):
            raise error
        path = ""
        if next(self._files) < MOST_FILES:
            path = write_error(self._run_dir, name, error.__cause__ or error, what=str(error), **texts)
        if self._on_error == "raise":
            raise EcrlError(
                f"{error} Prompt, response and traceback: {path}. env.on_error=zero scores such answers 0 "
                "and goes on."
            ) from error.__cause__
