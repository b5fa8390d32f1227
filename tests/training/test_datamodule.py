"""What an iteration draws."""

from __future__ import annotations

from collections.abc import Callable

from ecrl.config.schema import Config
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.run import train


def test_dynamic_sampling_draws_again_up_to_its_bound(tiny: Callable[..., Config]) -> None:
    """Countdown is too hard for a random policy: every group is dropped, every round is drawn."""
    config = tiny("env=countdown", "iterations=1", "objective.filters.max_resample=2")
    (row,) = read_metrics(train(config, lambda line: None).run_dir / "metrics.jsonl")
    assert row["rollout/completions"] == 3 * 8 * 4
    keep_all = ["objective.filters.drop_zero_variance=false", f"run_dir={config.run_dir}-2"]
    config = tiny("iterations=1", "objective.filters.max_resample=2", *keep_all)
    (row,) = read_metrics(train(config, lambda line: None).run_dir / "metrics.jsonl")
    assert row["rollout/completions"] == 8 * 4
