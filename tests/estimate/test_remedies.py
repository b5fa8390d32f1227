"""What each setting gains: factors by hand, and which are in use."""

from __future__ import annotations

import pytest

from ecrl.estimate.remedies import Gain, gains
from ecrl.estimate.speed import attention_slowness, slowness
from tests.support.jobs import job

FULL, DDP, UNCOMPILED = "trainer.precision=32-true", "trainer.parallel=ddp", "model.compile=false"


@pytest.mark.parametrize(
    ("words", "products", "attention"),
    [
        ([], 1, 2.2),  # a short response and a long prompt: it is shared
        (["model.attention=varlen"], 1, 1),
        (["model.attention=sdpa"], 1, 2.2),
        ([UNCOMPILED], 1 + 800 / 128, 2.2),
        ([DDP], 1.4, 2.2),  # autocast on one GPU
        ([DDP, UNCOMPILED], 1.4 + 2 * 800 / 128, 2.2),
        ([FULL], 0.61 * 989 / 67, 0.61 * 989 / 67 * 2.2),
        ([FULL, UNCOMPILED], 0.61 * 989 / 67 + 2 * 800 / 128, 0.61 * 989 / 67 * 2.2),
    ],
)
def test_slowness_by_hand(words: list[str], products: float, attention: float) -> None:
    plan = job(*words)  # hidden size 128
    assert slowness(plan) == pytest.approx(products)
    assert attention_slowness(plan) == pytest.approx(attention)


def by_name(*words: str) -> dict[str, Gain]:
    return {f"{gain.override} {gain.against.partition('=')[2]}": gain for gain in gains(job(*words))}


def test_gains_say_what_is_in_use_and_what_it_would_change() -> None:
    found = by_name("model.activation_checkpointing=full", UNCOMPILED)
    assert found["trainer.precision=bf16-mixed 32-true"].in_use
    assert found["trainer.precision=bf16-mixed 32-true"].bytes < 0
    assert found["trainer.parallel=fsdp ddp"].in_use
    compiled = found["model.compile=true false"]
    assert not compiled.in_use and 4 < compiled.factor < 1 + 800 / 128 and compiled.bytes == 0
    selective, plain = (
        found[f"model.activation_checkpointing={kind} full"] for kind in ("selective", "false")
    )
    assert 1 < selective.factor < plain.factor < 4 / 3
    assert 0 < selective.bytes < plain.bytes
    assert 1 < found["rollout.old_logprobs=engine recompute"].factor < 1.34
    assert "trainer.cpu_offload=false true" not in found  # one GPU has no shards to offload


def test_what_holds_a_base_in_fewer_bits_is_shown_below_adapters() -> None:
    found = by_name("model.lora.r=4")
    base = job().model.parameters
    assert found["model.dtype=auto float32"].bytes == -2 * base and found["model.dtype=auto float32"].in_use
    assert found["model.quantization=nf4 null"].bytes < 0
    assert not any("quantization" in name or "dtype" in name for name in by_name())


def test_only_what_can_be_set_and_changes_anything_is_shown() -> None:
    found = by_name(FULL, "trainer.devices=2")
    assert not found["trainer.precision=bf16-mixed 32-true"].in_use
    assert found["trainer.parallel=fsdp ddp"].factor == pytest.approx(1, abs=0.02)
    assert found["trainer.cpu_offload=false true"].factor > 1
    assert not any(name.startswith("model.attention=varlen") for name in found)  # needs 16 bits
    split = by_name("trainer.devices=2", "trainer.tensor_parallel_size=2")
    assert not any(name.startswith("model.compile") for name in split)
