"""Published models on the meta device, and adapters."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecrl.config.compose import build_config
from ecrl.estimate.memory import kv_bytes_per_token
from ecrl.policy.meta_model import meta_model
from tests.support.jobs import job


@pytest.mark.parametrize(
    ("path", "parameters", "kv"),
    [
        ("Qwen/Qwen2.5-7B", 7_615_616_512, 57_344),
        ("Qwen/Qwen2.5-32B", 32_763_876_352, 262_144),
        ("Qwen/Qwen3-0.6B", 596_049_920, 114_688),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248, 131_072),
    ],
)
def test_published_models_on_the_meta_device(path: str, parameters: int, kv: int) -> None:
    plan = job(f"model.path={path}")
    lm = meta_model(plan.config.model)
    assert all(p.is_meta for p in lm.parameters())
    assert plan.model.parameters == parameters == sum(p.numel() for p in lm.parameters())
    assert kv_bytes_per_token(plan.model) == kv
    assert plan.model.layers * plan.model.layer_parameters + plan.model.root_parameters == parameters


def test_adapters_are_what_peft_makes(tmp_path: Path) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    lm = meta_model(build_config([]).model)
    targets = ["q_proj", "down_proj"]
    inject_adapter_in_model(LoraConfig(r=4, target_modules=targets), lm)
    made = sum(p.numel() for name, p in lm.named_parameters() if ".lora_" in name)
    assert job().model.adapter_parameters(4, targets) == made
