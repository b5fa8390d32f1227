"""The ``ecrl`` command, also as ``python -m ecrl``."""

from __future__ import annotations

import sys
from typing import NoReturn

from ecrl.cli import main


def run() -> NoReturn:
    """Run the command that the arguments name, and end this process with its exit code."""
    code = main()
    torch = sys.modules.get("torch")  # not to wait for it where no command did
    if torch is not None and torch.distributed.is_initialized():
        from ecrl.distributed.launch import exit_without_finalizing

        exit_without_finalizing(code)
    sys.exit(code)


if __name__ == "__main__":
    run()
