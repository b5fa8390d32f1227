"""Jobs to estimate."""

from __future__ import annotations

from typing import Any

from ecrl.config.compose import build_config
from ecrl.estimate.job import Assumptions, Job


def job(*words: str, **arguments: Any) -> Job:
    given, overrides = Assumptions.take([*words, *(f"{k}={v}" for k, v in arguments.items())])
    return Job(build_config(overrides), given)
