"""The paper's experiments end to end, with all that they switch on: the real vocabulary, shards, bfloat16,
recomputation and vLLM.

The model is narrow, the rollout short, and attention sdpa: on a CPU flex attention has no backward pass.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ecrl.config.compose import build_config
from ecrl.runs.metrics_file import read_metrics
from tests.support.experiments import SHORT, narrow_model, write_data
from tests.support.marks import slow_unless

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
VOCABULARY = 152_064


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A narrow Qwen2.5-7B whose logits are as large as a trained model's, so that bfloat16 rounds them."""
    folder = tmp_path_factory.mktemp("narrow") / "model"
    return narrow_model("Qwen/Qwen2.5-7B", folder, VOCABULARY, head_dim=32, loudness=30.0)


def ecrl_train(*overrides: str) -> None:
    subprocess.run([sys.executable, "-m", "ecrl", "train", *overrides], check=True, timeout=600)


@pytest.mark.parametrize(
    "method", slow_unless("kl_cov".__eq__, ["grpo", "clip_cov", "kl_cov"], sample="kl_cov".__eq__)
)
def test_it_trains_three_iterations_and_goes_on(method: str, narrow: Path, tmp_path: Path) -> None:
    experiment, run_dir = f"experiment=paper_7b_{method}", tmp_path / "run"
    data = write_data(build_config([experiment]), tmp_path / "data")
    engine = ["engine.kv_cache_gib=0.25", "engine.max_model_len=1024"]
    own = [f"model.path={narrow}", f"run_dir={run_dir}", "trainer.devices=2"]
    ecrl_train(experiment, *SHORT, *data, *engine, *own)
    ecrl_train(f"resume={run_dir}", "iterations=4")
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3, 4]
    for row in rows[1:]:
        assert 0 < row["rollout/reward"] < 1 and row["policy/grad_norm"] > 0
        assert row["mismatch/max"] < 0.5  # nats, between vLLM and the trainer, both in bfloat16
        assert method == "grpo" or f"strategy/{method}/fraction" in row
