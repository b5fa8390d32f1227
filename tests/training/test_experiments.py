"""Every experiment of the paper runs: its own settings and architecture, at tiny width."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.sweep.definition import make_sweep, read_sweep, sweep_file, without
from tests.support.experiments import SHORT, narrow_model, write_data
from tests.support.marks import slow_unless
from tests.support.runs import history, run
from tests.support.sandboxes import needs_bwrap


def _cases() -> Iterator[str]:
    """The overrides of every shipped experiment and of every arm of a shipped sweep, without doubles."""
    yield from (f"experiment={name}" for name in options("experiment"))
    for name in options("sweep"):
        values = read_sweep(sweep_file(name))
        values.pop("jobs")
        sweep = make_sweep(values, name)
        for own in sweep.arms.values():
            yield " ".join([*without(sweep.overrides, own), *own])
    yield "experiment=paper_law_32b model=mistral_small_24b"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


QUICK = ("experiment=paper_7b_clip_cov",)


@pytest.mark.parametrize("words", slow_unless(QUICK.__contains__, dict.fromkeys(_cases())))
def test_it_runs_three_iterations(words: str, tmp_path: Path) -> None:
    rows = three_iterations(words, tmp_path)
    config = build_config(words.split())
    for strategy in build_strategies(config.strategy):
        assert any(name.startswith(f"strategy/{strategy.name}/") for name in rows[1])
    if "entropy_dynamics" in config.monitor:
        assert all(row["dynamics/by_responses"] and row["cov/group/mean"] for row in rows[1:])


@pytest.mark.slow
@needs_bwrap
@pytest.mark.parametrize("model", ["qwen2_5_7b", "mistral_small_24b"])
def test_it_runs_on_programs(model: str, tmp_path: Path) -> None:
    rows = three_iterations(f"experiment=paper_law env=paper_code model={model}", tmp_path)
    assert {name for name in rows[1] if name.endswith("/share")} == {
        f"env/{member}/share" for member in ("acecode", "eurus2_code", "kodcode")
    }


def three_iterations(words: str, folder: Path) -> list[dict[str, float]]:
    """Train; what is logged of the iterations 0 to 3."""
    config = build_config(words.split())
    assert config.model.path is not None
    model = narrow_model(config.model.path, folder / "model")
    data = write_data(config, folder / "data")
    own = [word for word in words.split() if not word.startswith("engine.")]  # those are for vLLM
    base = [*own, *SHORT, *data, f"model.path={model}", "engine=hf", "trainer.devices=1"]
    run_dir = run(base, folder / "run")
    rows = history(run_dir)
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    assert all(0 < row["rollout/reward"] < 1 and row["policy/grad_norm"] > 0 for row in rows[1:])
    before, after = (load_file(path / "model.safetensors") for path in (model, run_dir / "policy"))
    assert all(after[name].isfinite().all() for name in before)
    assert any(not torch.equal(before[name], after[name]) for name in before)
    return rows
