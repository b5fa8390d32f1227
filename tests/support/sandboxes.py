"""A program run in a sandbox, and what that needs of the machine."""

from __future__ import annotations

import shutil

import pytest

from ecrl.envs.sandbox import Limits, Outcome, Sandbox

needs_bwrap = pytest.mark.skipif(
    not shutil.which("bwrap"), reason="needs bubblewrap: apt-get install bubblewrap"
)


def run(sandbox: Sandbox, program: str, stdin: str = "", seconds: float = 5, memory: int = 128) -> Outcome:
    return sandbox.run(program, stdin, limits=Limits(seconds, memory))
