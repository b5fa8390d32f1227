"""Disk use, predicted before the start and measured after."""

from __future__ import annotations

import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.training.disk import check_disk, disk_use, keeps_tokens
from tests.support.runs import run
from tests.support.tiny import TINY

Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["update.optimizer=muon"],
        pytest.param(["model.lora.r=4"], marks=pytest.mark.slow),
        pytest.param(["objective=prime"], marks=pytest.mark.slow),
    ],
)
def test_the_prediction_is_what_is_written(
    words: list[str], tiny: Callable[..., Config], tiny_model: Path, tmp_path: Path
) -> None:
    use = disk_use(tiny(*words))
    assert use is not None
    run_dir = run([*TINY, f"model.path={tiny_model}", *words], tmp_path / "run", "iterations=1")
    (checkpoint,) = (run_dir / "checkpoints").iterdir()
    tensors = sum(file.stat().st_size for file in checkpoint.glob("*.distcp"))
    # Each has a header of two kilobytes, beside few numbers here: 26 parameters with two moments and a step.
    count = 4 * 26 * (2 if "objective=prime" in words else 1) * (2 if "model.lora.r=4" in words else 1)
    assert use.checkpoint < tensors < use.checkpoint + 2400 * count
    assert use.policy == pytest.approx((run_dir / "policy" / "model.safetensors").stat().st_size, rel=0.1)


def test_how_many_checkpoints(tiny: Callable[..., Config]) -> None:
    def most(*words: str) -> int:
        use = disk_use(tiny(*words))
        assert use is not None
        return use.checkpoints

    assert most("iterations=100", "eval.every=5") == 3  # the last, the best, the one in writing
    assert most("iterations=100") == 2  # nothing is validated
    assert most("iterations=100", "checkpoint={keep: 3, keep_every: 25}") == 3 + 4 + 1
    assert most("iterations=1") == 1


def test_tokens_are_kept_where_they_are_few(tiny: Callable[..., Config]) -> None:
    """8 problems × 4 responses × 8 tokens make 256 tokens of 32 bytes: 131072 iterations make 1 GiB."""
    asked = "log.rollout_tokens=null"
    assert keeps_tokens(tiny(asked)) and not keeps_tokens(tiny())  # the tests' own runs say no
    assert keeps_tokens(tiny(asked, "iterations=131072", "log.rollouts_keep=null"))
    assert not keeps_tokens(tiny(asked, "iterations=131073", "log.rollouts_keep=null"))
    assert keeps_tokens(tiny(asked, "iterations=131073"))
    assert keeps_tokens(tiny("log.rollout_tokens=true", "iterations=131073", "log.rollouts_keep=null"))
    with_them, without = (disk_use(tiny(f"log.rollout_tokens={word}")) for word in ("null", "false"))
    assert with_them is not None and without is not None and with_them.rollouts == 16 * without.rollouts


def test_a_disk_that_is_too_small(tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny("iterations=100", "checkpoint.keep=5")
    use = disk_use(config)
    assert use is not None and use.checkpoints == 6 and check_disk(config) == []

    def free(size: float) -> None:
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(0, 0, int(size)))

    free(use.most - 1)
    (line,) = check_disk(config)
    assert "the disk will be full before the run ends: up to 6 checkpoints of" in line and "are free" in line
    free(use.least - 1)
    with pytest.raises(UsageError, match=r"too full for this run: up to 6 checkpoints of .* MiB are free"):
        check_disk(config)
    unknown: Any = tiny("iterations=1")
    unknown.model.path = "some/where"
    assert disk_use(unknown) is None and check_disk(unknown) == []
