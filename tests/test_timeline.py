"""The timeline: spans of all threads, in a file of bounded size that no full disk turns into an error."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

import ecrl.timeline
from ecrl.timeline import Trace, add_span, span
from tests.support.runs import run
from tests.support.tiny import TINY


def read(path: Path) -> dict[str, list[dict[str, Any]]]:
    """The spans by the name of their track."""
    events = json.loads(path.read_text())
    names = {e["tid"]: e["args"]["name"] for e in events if e.get("ph") == "M"}
    return {name: [e for e in events if e.get("ph") == "X" and e["tid"] == t] for t, name in names.items()}


def test_spans_of_a_name_that_touch_are_one(tmp_path: Path) -> None:
    with Trace(tmp_path / "trace.json", print) as trace:
        start = trace._begin
        add_span("a", start, start + 1.0, "x")
        add_span("a", start + 1.001, start + 2.0, "x")
        add_span("tiny", start + 2.0, start + 2.00001, "x")
        add_span("a", start + 3.0, start + 4.0, "x")
        add_span("b", start + 1.0, start + 2.0, "y")
    add_span("late", start, start + 9.0, "x")
    got = {
        t: [(e["name"], e["ts"], e["dur"]) for e in spans]
        for t, spans in read(tmp_path / "trace.json").items()
    }
    assert got == {
        "x": [("a", 0, 2_000_000), ("a", 3_000_000, 1_000_000)],
        "y": [("b", 1_000_000, 1_000_000)],
    }


def test_every_thread_has_its_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ecrl.timeline, "_SHORTEST", 0.0)

    def work() -> None:
        with span("work"):
            pass

    with Trace(tmp_path / "trace.json", print):
        work()
        thread = threading.Thread(target=work, name="other")
        thread.start()
        thread.join()
    assert {track: len(spans) for track, spans in read(tmp_path / "trace.json").items()} == {
        threading.current_thread().name: 1,
        "other": 1,
    }


def test_it_ends_with_a_line_where_it_is_too_long_or_the_disk_is_full(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr(ecrl.timeline, "_PAUSE", 0.0)
    monkeypatch.setattr(ecrl.timeline, "MOST_BYTES", 1 << 20)
    path = tmp_path / "trace.json"
    with Trace(path, said.append) as trace:
        for i in range(30_000):
            add_span("a", trace._begin + i, trace._begin + i + 0.5, "x")
    assert len(said) == 1 and "is 1 MiB long; the timeline ends here" in said[0]
    assert 1 << 20 < path.stat().st_size < (1 << 20) + 1000
    said.clear()
    with Trace(Path("/dev/full"), said.append) as trace:
        for i in range(10):
            add_span("a", trace._begin + i, trace._begin + i + 0.5, "x")
    assert len(said) == 1 and "/dev/full cannot be written (No space left on device)" in said[0]


def test_a_run_shows_its_parts(tiny_model: Path, tmp_path: Path) -> None:
    base = [*TINY, f"model.path={tiny_model}", "iterations=2", "log.trace=true"]
    ahead = ["rollout.staleness=1", "engine._target_=tests.support.engines.DisaggregatedEngine"]
    tracks = read(run(base, tmp_path / "run", *ahead) / "trace.json")
    assert {"engine", "trainer waits"} < tracks.keys()
    rollouts = next(spans for track, spans in tracks.items() if track.startswith("rollouts"))
    assert "generate" in {event["name"] for event in rollouts}
    assert {"update", "sync"} <= {event["name"] for spans in tracks.values() for event in spans}
