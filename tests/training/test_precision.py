"""Which precision a run has, and autocast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from ecrl.config.resume import resumed_config, saved_config
from ecrl.config.schema import Config
from ecrl.training import precision
from ecrl.training.precision import casts_by_fsdp, precision_of
from ecrl.training.run import train
from tests.support.conformance import gradient, make_batch, make_module
from tests.support.jobs import job


def test_a_pass_without_gradient_leaves_the_next_its_gradient(tiny: Callable[..., Config]) -> None:
    """Autocast keeps casts of the weights; those of a pass without gradient must not serve an update."""
    module = make_module(
        tiny("trainer.precision=bf16-mixed", "trainer.parallel=ddp", "update.max_tokens=64"), []
    )
    batch = make_batch(module)
    plugin = module.trainer.precision_plugin
    with plugin.forward_context():
        _, alone, _ = gradient(module, batch)
    with plugin.forward_context():
        module.scorer.score(batch)
        _, after, _ = gradient(module, batch)
    assert len(alone) == sum(p.numel() for p in module.model.parameters())
    assert torch.equal(alone, after)


@pytest.mark.parametrize(
    ("device", "has_bf16", "expected"),
    [("cuda", True, "bf16-mixed"), ("cuda", False, "32-true"), ("cpu", True, "32-true")],
)
def test_auto_is_bf16_on_a_gpu_that_has_it(
    device: str, has_bf16: bool, expected: str, tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "device_type", lambda config: device)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16)
    assert precision_of(tiny()) == expected
    assert casts_by_fsdp(tiny()) == (expected == "bf16-mixed")
    assert precision_of(tiny("trainer.precision=32-true")) == "32-true"
    assert not casts_by_fsdp(tiny("trainer.precision=bf16-mixed", "trainer.parallel=ddp"))


def test_a_run_says_and_keeps_what_auto_was(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    run_dir = train(tiny("iterations=1"), lines.append).run_dir
    assert "trainer.precision: 32-true" in lines
    assert saved_config(run_dir / "config.yaml").trainer.precision == "32-true"
    monkeypatch.setattr(precision, "device_type", lambda config: "cuda")
    assert precision_of(resumed_config([f"resume={run_dir}", "iterations=2"])) == "32-true"


def test_the_policy_knows_in_which_type_it_computes(tiny: Callable[..., Config]) -> None:
    """An engine with weights of its own takes that type, and so does the plan."""
    for name, dtype in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        module = make_module(tiny(f"trainer.precision={name}"), [])
        assert module.model.lm.dtype == torch.float32 and module.model.compute_dtype == dtype
        bytes_of = {
            engine: job(f"trainer.precision={name}", f"engine={engine}").engine_bytes
            for engine in ("vllm", "vllm_bf16")
        }
        assert bytes_of == {"vllm": dtype.itemsize, "vllm_bf16": 2}
