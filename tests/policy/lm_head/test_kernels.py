"""Runs ``support/head_kernels.py``: on the GPU if there is one, otherwise in Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from tests.support.paths import ROOT


@pytest.mark.skipif(not find_spec("triton"), reason="needs triton: pip install 'ecrl[kernels]'")
def test_kernels_equal_the_torch_path() -> None:
    # Triton chooses its interpreter when it is imported, so this takes a fresh process.
    interpreter = {} if torch.cuda.is_available() else {"TRITON_INTERPRET": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, str(ROOT / "tests" / "support" / "head_kernels.py")],
        env=os.environ | interpreter,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
