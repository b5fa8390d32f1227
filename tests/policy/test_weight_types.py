"""In which types weights are held: losses, exact resume, export, and bytes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.cli import main
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.estimate.memory import host_or_gpu_state
from ecrl.policy import quantization
from ecrl.policy.decoder_layers import decoder_layers
from ecrl.policy.lora import delta
from ecrl.policy.optimizer import build_optimizer
from ecrl.policy.weights import HFWeights, full_tensor, write_whole
from ecrl.training.module import PolicyModule
from ecrl.training.preflight import preflight
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors, exported
from tests.support.conformance import autocast, gradient, make_batch, make_module
from tests.support.jobs import job
from tests.support.runs import assert_same_run, run, silent
from tests.support.tiny import TINY

BF16 = ["trainer.accelerator=cpu", "trainer.precision=bf16-mixed"]
LORA = ["model.lora.r=4", "model.lora.alpha=8", "update.lr=1e-2"]
DDP = "trainer.parallel=ddp"


def types(module: PolicyModule) -> dict[bool, set[torch.dtype]]:
    """Types of the frozen parameters and of the trained ones."""
    parameters = list(module.model.parameters())
    return {trained: {p.dtype for p in parameters if p.requires_grad == trained} for trained in (False, True)}


def share(one: PolicyModule, other: PolicyModule) -> None:
    """Give the other the weights of the first; the noise of tests moves frozen ones too, in their type."""
    for ours, theirs in zip(one.model.parameters(), other.model.parameters(), strict=True):
        write_whole(theirs, full_tensor(ours.detach()))


def results(module: PolicyModule, batch: RolloutBatch) -> tuple[float, Tensor, Tensor]:
    """Loss, gradient, and log-probs of the reference."""
    loss, gradients, _ = gradient(module, batch)
    with autocast(module):
        return loss, gradients, module.scorer.reference_logprobs(batch)


def test_a_frozen_base_in_bfloat16_changes_nothing_under_fsdp(tiny: Callable[..., Config]) -> None:
    """FSDP casts float32 weights to what the others are already."""
    half, full = (make_module(tiny(*BF16, *LORA, f"model.dtype={d}"), []) for d in ("auto", "float32"))
    assert types(half) == {False: {torch.bfloat16}, True: {torch.float32}}
    assert types(full) == {False: {torch.float32}, True: {torch.float32}}
    share(half, full)
    batch = make_batch(half)
    (loss, gradients, reference), wanted = results(half, batch), results(full, batch)
    assert loss == wanted[0] and gradients.abs().max() > 0
    assert torch.equal(gradients, wanted[1]) and torch.equal(reference, wanted[2])


def test_a_base_in_bfloat16_under_autocast_is_the_same_but_for_rounding(tiny: Callable[..., Config]) -> None:
    autocasts, casts, full = (
        make_module(tiny(*LORA, *more), []) for more in ([*BF16, DDP], BF16, ["trainer.precision=32-true"])
    )
    assert types(autocasts) == {False: {torch.bfloat16}, True: {torch.float32}}
    assert types(full) == {False: {torch.float32}, True: {torch.float32}}
    streams: set[torch.dtype] = set()

    def note(layer: Any, inputs: Any, output: Tensor) -> None:
        streams.add(output.dtype)

    for layer in decoder_layers(autocasts.model.lm):
        layer.register_forward_hook(note)
    for other in (casts, full):
        share(autocasts, other)
    batch = make_batch(full)
    found, exact = [results(m, batch) for m in (autocasts, casts)], results(full, batch)
    assert streams == {torch.bfloat16}  # as the plan counts it
    for loss, gradients, reference in found:
        assert loss == pytest.approx(exact[0], abs=0.02)
        assert torch.cosine_similarity(gradients, exact[1], dim=0) > 0.99
        assert (reference - exact[2]).abs().max() < 0.05


@pytest.mark.parametrize("kind", ["adapters", pytest.param("whole", marks=pytest.mark.slow)])
def test_it_resumes_exactly_and_is_exported(kind: str, tiny_model: Path, tmp_path: Path) -> None:
    more = LORA if kind == "adapters" else ["model.dtype=bfloat16", "update.lr=1e-2"]
    base = [*TINY, f"model.path={tiny_model}", *BF16, *more, "strategy=[reference_kl]"]
    whole, part = (
        run(base, tmp_path / name, f"iterations={n}", "rollout.prompts=4")
        for name, n in (("whole", 2), ("part", 1))
    )
    train(resumed_config([f"resume={part}", "iterations=2"]), silent)
    assert_same_run(whole, part)
    trained = torch.float32 if kind == "adapters" else torch.bfloat16
    assert {t.dtype for n, t in checkpoint_tensors(whole).items() if not n.endswith("step")} == {trained}
    policy, start = exported(whole / "policy"), exported(tiny_model)
    assert {t.dtype for t in policy.values()} == {torch.float32}  # the files' type
    moved = {n for n in policy if not torch.equal(policy[n], start[n].bfloat16().float())}
    assert moved and (kind == "whole" or "model.norm.weight" not in moved)
    assert main(["export", str(whole), str(tmp_path / "out")]) == 0
    again = exported(tmp_path / "out")
    assert all(torch.equal(again[n], policy[n]) for n in policy)


def test_adapters_are_merged_in_float32(tiny: Callable[..., Config]) -> None:
    """A small change would be lost in the sum's rounding, and a file in bfloat16 rounds it only once."""
    lm: Any = make_module(tiny(*BF16, *LORA, DDP), []).model.lm
    layer = lm.model.layers[0].mlp.down_proj
    merged = dict(HFWeights(lm))["model.layers.0.mlp.down_proj.weight"]
    wanted = layer.base_layer.weight.float() + delta(layer, lambda x: x)
    assert merged.dtype == torch.float32 and torch.equal(merged, wanted.detach())


def test_training_in_bfloat16_alone_is_warned_of(tiny: Callable[..., Config]) -> None:
    def warned(*more: str) -> bool:
        lines = preflight(tiny(*BF16, "update.lr=1e-6", *more), splits=[])
        return any("weights above 0.0005 stand still" in line for line in lines)

    assert warned("model.dtype=bfloat16")
    assert not warned() and not warned("model.dtype=bfloat16", "model.lora.r=4")


def test_quantization_without_its_package_is_refused(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="needs bitsandbytes, which is not installed: pip install"):
        preflight(tiny("model.quantization=nf4", "model.lora.r=4"))


@pytest.mark.parametrize(
    "words",
    [
        [*LORA, *BF16],
        [*LORA, *BF16, DDP],
        [*LORA, *BF16, "model.dtype=float32"],
        [*LORA, "trainer.precision=32-true"],
        ["model.dtype=bfloat16", *BF16],
        BF16,
    ],
    ids=" ".join,
)
def test_what_a_step_leaves_is_what_the_plan_counts(words: list[str], tiny: Callable[..., Config]) -> None:
    config = tiny(*words)
    module = make_module(config, [])
    gradient(module, make_batch(module))
    parameters = list(module.model.parameters())
    optimizer = build_optimizer(config.update, module.model)
    optimizer.step()
    states = [t for state in optimizer.state.values() for t in state.values() if t.ndim]
    live = {
        "weights": sum(p.nbytes for p in parameters),
        "gradients": sum(p.grad.nbytes for p in parameters if p.grad is not None),
        "optimizer": sum(t.nbytes for t in states),
    }
    plan = job("trainer.accelerator=cpu", f"model.path={config.model.path}", *words)
    assert live == pytest.approx(host_or_gpu_state(plan))
