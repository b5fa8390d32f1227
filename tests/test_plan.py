"""``ecrl plan``: its formulas against what was measured and published, and the experiments it plans."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import Qwen2Config

from ecrl.compose import build_config
from ecrl.plan.job import Assumptions, Job
from ecrl.plan.memory import moments

ROOT = Path(__file__).parent.parent


def job(*overrides: str, **given: object) -> Job:
    return Job(build_config(list(overrides)), Assumptions(**given))  # type: ignore[arg-type]


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_measured_peak_memory(checkpointing: str, tmp_path: Path) -> None:
    Qwen2Config(
        hidden_size=512,
        intermediate_size=1536,
        num_hidden_layers=6,
        num_attention_heads=8,
        num_key_value_heads=4,
        vocab_size=4096,
        tie_word_embeddings=False,
    ).save_pretrained(tmp_path)
    plan = job(
        f"model.path={tmp_path}",
        f"model.activation_checkpointing={checkpointing}",
        "trainer.accelerator=cpu",
        "update.max_tokens=1024",
    )
    predicted = max(sum(parts.values()) for name, parts in moments(plan).items() if name != "rollout")
    # Large tensors go back to the system when they are freed, so that the peak is that of live ones.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "0",
        "MALLOC_ARENA_MAX": "1",
    }
    command = [sys.executable, "-m", "tests.measure_memory", str(tmp_path), "1024", checkpointing]
    result = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200, check=True
    )
    measured = int(result.stdout)
    print(checkpointing, predicted / 2**20, measured / 2**20, predicted / measured)
    assert measured > 300e6
    assert predicted == pytest.approx(measured, rel=0.15)
