"""Memory: shards by hand, a peak that is measured."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import Qwen2Config

from ecrl.estimate.memory import concurrent, host_or_gpu_state, moments
from tests.support.jobs import job
from tests.support.paths import ROOT


def test_shards_and_copies() -> None:
    words = ["experiment=paper_7b_grpo"]
    whole = 4 * 7_615_616_512
    for overrides, gpus, share in (
        ([], 8, 1 / 8),
        (["trainer.parallel=ddp"], 8, 1.0),
        (["trainer.tensor_parallel_size=2"], 8, 1 / 8),
        (["trainer.parallel=ddp", "trainer.tensor_parallel_size=2"], 8, 1 / 2),
    ):
        parts = moments(job(*words, *overrides, gpus=gpus))["head"]
        assert parts["weights"] == parts["gradients"] == pytest.approx(whole * share)
        assert parts["optimizer"] == pytest.approx(2 * whole * share)
    assert "weights" not in moments(job(*words, "trainer.cpu_offload=true", gpus=8))["head"]
    lora = moments(job(*words, "model.lora.r=16", gpus=8))["head"]
    assert lora["optimizer"] < 0.02 * whole and lora["weights"] > whole / 2 / 8  # bfloat16


LINEAR, OTHERS = (
    6_525_288_448,
    1_090_328_064,
)  # Qwen2.5-7B: matrices of its layers, and the rest
ADAPTERS = 40_370_176  # of rank 16 on all of them: 28 · 16 · (2·7168 + 2·4096 + 3·22528)


@pytest.mark.parametrize(
    ("words", "weights"),
    [
        (["model.lora.r=16"], 2 * (LINEAR + OTHERS) + 4 * ADAPTERS),
        (["model.lora.r=16", "model.dtype=float32"], 4 * (LINEAR + OTHERS + ADAPTERS)),
        (["model.lora.r=16", "trainer.precision=32-true"], 4 * (LINEAR + OTHERS + ADAPTERS)),
        # 4 bits; a scale of 8 bits for 64 weights; one of 32 bits for 256 scales.
        (
            ["model.lora.r=16", "model.quantization=nf4"],
            LINEAR / 2 + LINEAR / 64 + LINEAR / 4096 + 2 * OTHERS + 4 * ADAPTERS,
        ),
        (["model.dtype=bfloat16"], 2 * (LINEAR + OTHERS)),
        ([], 4 * (LINEAR + OTHERS)),
    ],
    ids=str,
)
def test_weights_by_hand(words: list[str], weights: float) -> None:
    plan = job("model.path=Qwen/Qwen2.5-7B", "strategy=[reference_kl]", *words)
    trained = ADAPTERS if plan.config.model.lora.r else LINEAR + OTHERS
    size = 2 if "model.dtype=bfloat16" in words else 4
    state = host_or_gpu_state(plan)
    reference = state.pop("reference weights", 0)
    assert reference == (0 if plan.config.model.lora.r else weights)  # adapters are left out instead
    assert state == pytest.approx(
        {"weights": weights, "gradients": size * trained, "optimizer": 2 * size * trained}
    )


def test_a_quantised_matrix_is_written_out_to_multiply() -> None:
    plan = job("model.path=Qwen/Qwen2.5-7B", "model.lora.r=16", "model.quantization=nf4")
    assert moments(plan)["head"]["dequantised matrix"] == 2 * 3584 * 18944
    assert plan.stream_bytes == 2 and plan.autocasts and not plan.compiled


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", ["false", "selective", "full"])
def test_measured_peak_memory(checkpointing: str, tmp_path: Path) -> None:
    Qwen2Config(
        hidden_size=384,
        intermediate_size=1152,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=4096,
        tie_word_embeddings=False,
    ).save_pretrained(tmp_path)
    plan = job(
        f"model.path={tmp_path}",
        "rollout.max_new_tokens=16",
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
    command = [sys.executable, "-m", "tests.support.measure_memory", str(tmp_path), "1024", checkpointing]
    result = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=250, check=True
    )
    measured = int(result.stdout)
    print(f"predicted {predicted / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB")
    assert measured > 250e6
    assert predicted == pytest.approx(measured, rel=0.15)


def test_only_an_engine_on_the_trainers_gpus_takes_their_memory() -> None:
    vllm = moments(job("engine=vllm"))["rollout"]
    assert vllm["vLLM weights"] > 0 and vllm["KV cache"] > 0
    servers = job("engine=vllm_server", "engine.urls=[http://localhost:8000]")
    assert moments(servers)["rollout"].keys() == {"weights", "gradients", "optimizer"}
    assert "logits" in moments(job("engine=hf"))["rollout"]


def test_the_gpus_of_an_engine_divide_its_weights_and_key_heads() -> None:
    words = ["model.path=Qwen/Qwen2.5-7B", "engine=vllm_bf16", "engine.kv_cache_gib=8"]
    for split, heads in ((1, 4), (2, 2), (4, 1)):  # of 28 query heads and 4 key heads
        plan = job(*words, f"engine.tensor_parallel_size={split}", gpus=8)
        parts = moments(plan)["rollout"]
        assert parts["vLLM weights"] == 2 * 7_615_616_512 / split
        # Two numbers of 2 bytes for each of 128 columns in 28 layers.
        assert concurrent(plan, 1000) == 8 * 2**30 // (1000 * 2 * 28 * heads * 128 * 2)
        assert plan.engines == 8 / split
