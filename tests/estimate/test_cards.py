"""Which GPUs are known, and what follows from the kind."""

from __future__ import annotations

import pytest

from ecrl.estimate.advice import missing
from ecrl.estimate.cards import CARDS
from ecrl.estimate.memory import GIB, reserve
from ecrl.estimate.speed import slowness
from tests.support.jobs import job


def test_the_kind_gives_memory_and_precision() -> None:
    assert job().given.memory == 80 and job(gpu="rtx4090").given.memory == 24
    assert job(gpu="rtx4090", gpu_memory=20).given.memory == 20
    assert reserve(job(gpu="h200")) == pytest.approx(0.08 * 141 * GIB)
    for name, card in CARDS.items():
        assert job(gpu=name).precision == ("bf16-mixed" if card.bf16 else "32-true")
    assert [name for name, card in CARDS.items() if not card.bf16] == ["v100", "v100_16", "t4"]


def test_float32_is_as_much_slower_as_the_cards_peaks_differ() -> None:
    full = ["trainer.precision=32-true", "model.compile=true"]
    assert slowness(job(*full)) == pytest.approx(9, rel=0.01)  # H100
    assert slowness(job(*full, gpu="rtx4090")) == pytest.approx(0.61 * 165 / 82.6)
    assert slowness(job("model.compile=true", gpu="t4")) == pytest.approx(0.61 * 65 / 8.1)


def test_numbers_are_of_the_right_size() -> None:
    """A slip of a unit would show."""
    for card in CARDS.values():
        assert 15 <= card.memory <= 200 and 0.3e12 <= card.bandwidth <= 8e12
        assert 65e12 <= card.flops <= 2.3e15 and 1.9 <= card.flops / card.full_flops <= 32


def test_quantising_makes_7b_fit_on_a_small_card() -> None:
    words = ["model.path=Qwen/Qwen2.5-7B", "model.lora.r=16", "model.activation_checkpointing=full"]
    words += ["update.max_tokens=2048", "engine.batch_size=16", "rollout.max_new_tokens=1024"]
    assert missing(job(*words, "model.dtype=float32", gpu="rtx4090")) > 0
    assert missing(job(*words, gpu="rtx4090")) <= 0  # 16 bits
    assert missing(job(*words, gpu="t4")) > 0
    assert missing(job(*words, "model.quantization=nf4", gpu="v100_16")) <= 0
