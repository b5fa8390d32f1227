"""A call that hangs."""

from __future__ import annotations

import subprocess
import sys


def test_a_call_that_hangs_ends_the_process_and_says_why() -> None:
    script = """
import time
from ecrl.distributed.watchdog import watchdog
with watchdog(60, "A quick call"):
    pass
with watchdog(0.5, "Some calls") as anew:
    for _ in range(4):
        anew()
        time.sleep(0.2)
with watchdog(0.2, "A slow call"):
    time.sleep(60)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert result.returncode == 1
    assert "A slow call did not return within 0.2 s" in result.stderr
    assert "line 11 in <module>" in result.stderr
