"""Jobs to estimate."""

from __future__ import annotations

from typing import Any

from ecrl.cli.plan import COMMAND, planned_config
from ecrl.estimate.job import Job


def job(*words: str, **arguments: Any) -> Job:
    parsed = COMMAND.parse([*words, *(f"{k}={v}" for k, v in arguments.items())])
    return Job(planned_config(parsed), parsed.settings)
