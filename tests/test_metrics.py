"""The recorder of an iteration's numbers."""

from __future__ import annotations

import time

import pytest

from ecrl.metrics import MetricsRecorder


def test_recorder_weighs_and_times_exclusively() -> None:
    recorder = MetricsRecorder()
    recorder.record("a", 1.0, weight=1)
    recorder.record("a", 4.0, weight=2)
    with recorder.timer("outer"):
        time.sleep(0.02)
        with recorder.timer("inner"):
            time.sleep(0.06)
    numbers = recorder.flush().numbers
    assert numbers["a"] == pytest.approx(3.0)
    assert numbers["time/inner"] >= 0.06 > numbers["time/outer"] >= 0.02
    assert recorder.flush().numbers == {}
