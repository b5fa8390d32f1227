"""Which checkpoints a run keeps, finds and deletes."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from ecrl.config.schema import CheckpointConfig
from ecrl.errors import UsageError
from ecrl.runs.checkpoints import (
    best_iteration,
    find_checkpoint,
    go_back,
    is_best,
    prune,
    saved_iterations,
)
from ecrl.runs.manifest import write_manifest

METRIC = "val/mean/avg@k"
#: A collapse: the best of those with a checkpoint is 30, that of all is row 0.
VALUES = {0: 0.9, 10: 0.2, 20: 0.6, 30: 0.7, 40: 0.7, 50: None, 60: 0.1, 65: 0.8}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    rows = [{"iteration": i, METRIC: value} for i, value in VALUES.items()]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for iteration in (10, 20, 30, 40, 50, 60):
        add(tmp_path, iteration)
    (tmp_path / "checkpoints" / "nonfinite").mkdir()
    (tmp_path / "checkpoints" / "70.partial").mkdir()
    return tmp_path


def add(run_dir: Path, iteration: int) -> None:
    folder = run_dir / "checkpoints" / str(iteration)
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"x" * 100)
    write_manifest(folder)


@pytest.mark.parametrize(
    ("settings", "stay"),
    [
        ({}, [30, 60]),
        ({"keep": 2}, [30, 50, 60]),
        ({"best": None}, [60]),
        ({"keep_every": 20}, [20, 30, 40, 60]),
        ({"keep": 9}, [10, 20, 30, 40, 50, 60]),
        ({"best": "val/other"}, [60]),
    ],
)
def test_what_stays(settings: dict[str, object], stay: list[int], run_dir: Path) -> None:
    prune(run_dir, CheckpointConfig(**{"best": METRIC, **settings}))  # type: ignore[arg-type]
    assert saved_iterations(run_dir) == stay
    assert (run_dir / "checkpoints" / "nonfinite").exists()


def test_the_best_is_the_first_of_equals_and_has_a_checkpoint(run_dir: Path) -> None:
    assert best_iteration(run_dir, METRIC) == 30
    assert (
        is_best(run_dir, METRIC, 65) and not is_best(run_dir, METRIC, 40) and not is_best(run_dir, METRIC, 50)
    )
    assert not is_best(run_dir, METRIC, 66) and not is_best(run_dir, None, 65)
    shutil.rmtree(run_dir / "checkpoints")
    assert best_iteration(run_dir, METRIC) is None and is_best(run_dir, METRIC, 10)


def test_last_best_or_an_iteration(run_dir: Path) -> None:
    assert [find_checkpoint(run_dir, which, METRIC).name for which in ("last", "best", "20")] == [
        "60",
        "30",
        "20",
    ]
    for which, metric, says in [
        ("25", METRIC, "has no checkpoint of iteration 25; it has 10, 20, 30, 40, 50, 60"),
        ("best", "val/other", "none of 10, 20, .* was validated by val/other"),
    ]:
        with pytest.raises(UsageError, match=says):
            find_checkpoint(run_dir, which, metric)
    (run_dir / "checkpoints" / "60" / "weights").write_bytes(b"y")
    with pytest.raises(UsageError, match="has 1 bytes instead of 100"):
        find_checkpoint(run_dir)
    shutil.rmtree(run_dir / "checkpoints")
    with pytest.raises(UsageError, match="has no checkpoint"):
        find_checkpoint(run_dir)


def test_going_back(run_dir: Path) -> None:
    go_back(run_dir, 30)
    assert saved_iterations(run_dir) == [10, 20, 30]
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    assert [row["iteration"] for row in rows] == [0, 10, 20, 30]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("survived", range(12))
def test_a_kill_while_deleting_leaves_whole_checkpoints(
    survived: int, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every rename and every deletion of a file may be the last thing that the process does."""
    left = survived
    originals = {"rename": os.rename, "unlink": os.unlink}

    def counted(name: str):  # type: ignore[no-untyped-def]
        def call(*arguments, **keywords):  # type: ignore[no-untyped-def]
            nonlocal left
            if not left:
                raise Killed
            left -= 1
            return originals[name](*arguments, **keywords)

        return call

    for name in originals:
        monkeypatch.setattr(os, name, counted(name))
    settings = CheckpointConfig(best=METRIC)
    with pytest.raises(Killed):
        prune(run_dir, settings)
    monkeypatch.undo()
    assert find_checkpoint(run_dir).name == "60" and find_checkpoint(run_dir, "best", METRIC).name == "30"
    for iteration in saved_iterations(run_dir):
        find_checkpoint(run_dir, str(iteration))
    prune(run_dir, settings)
    assert {p.name for p in (run_dir / "checkpoints").iterdir()} == {"30", "60", "nonfinite", "70.partial"}
