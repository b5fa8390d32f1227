"""The sandboxes that this machine has."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ecrl.envs.sandbox import Sandbox, make_sandbox
from ecrl.errors import UsageError

OPEN_PYTHON = next((p for p in ("/usr/bin/python3", "/usr/local/bin/python3") if Path(p).exists()), None)


@pytest.fixture(scope="module")
def weak() -> Sandbox:
    with pytest.warns(UserWarning, match="programs you trust"):
        try:
            return make_sandbox("rlimit")
        except UsageError:
            if OPEN_PYTHON is None:
                pytest.skip("root's Python is out of reach without root, and no other is here")
            return make_sandbox("rlimit", python=OPEN_PYTHON)


@pytest.fixture(scope="module", params=["bubblewrap", pytest.param("rlimit", marks=pytest.mark.slow)])
def local(request: pytest.FixtureRequest) -> Sandbox:
    if request.param == "rlimit":
        return request.getfixturevalue("weak")
    if not shutil.which("bwrap"):
        pytest.skip("needs bubblewrap: apt-get install bubblewrap")
    return make_sandbox()


@pytest.fixture(scope="module")
def jail() -> Sandbox:
    return make_sandbox()
