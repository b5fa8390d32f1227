"""A frozen base in 4 bits: what it computes, trains, keeps and exports."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from ecrl.cli import main
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config
from ecrl.policy.lora import linear_layers
from ecrl.policy.quantization import dequantised, is_quantised, quantise_layers
from ecrl.policy.weights import HFWeights, write_whole
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors, exported
from tests.support.conformance import gradient, make_batch, make_module
from tests.support.jobs import job
from tests.support.runs import assert_same_run, run, silent
from tests.support.tiny import TINY

pytest.importorskip("bitsandbytes")  # what is refused without it: test_weight_types.py

NF4 = ["model.quantization=nf4", "model.lora.r=4", "model.lora.alpha=8", "update.lr=1e-2"]
CPU = torch.device("cpu")


def state_bytes(parameter: Any) -> int:
    """Bytes of a quantised parameter, with the scales of its blocks, without the tables of all scales."""
    state = parameter.quant_state
    return int(parameter.nbytes + state.absmax.nbytes + state.state2.absmax.nbytes)


def test_layers_are_those_that_transformers_makes(tiny_model: Path) -> None:
    settings = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True
    )
    theirs: Any = AutoModelForCausalLM.from_pretrained(
        tiny_model, quantization_config=settings, device_map="cpu", dtype=torch.float32
    )
    ours: Any = AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float32)
    start = {name: layer.weight.detach().clone() for name, layer in linear_layers(ours)}
    quantise_layers(ours, CPU, torch.float32)
    wanted = dict(linear_layers(theirs))
    assert wanted.keys() == dict(linear_layers(ours)).keys()
    for name, layer in linear_layers(ours):
        assert is_quantised(layer.weight) and torch.equal(layer.weight.data, wanted[name].weight.data)
        found = dequantised(layer.weight)
        assert torch.equal(found, dequantised(wanted[name].weight))
        widest_gap = 0.31 * start[name].abs().max()
        assert 0 < (found - start[name]).abs().max() < widest_gap / 2
    assert not is_quantised(ours.get_output_embeddings().weight)


def test_loss_and_gradient_are_those_of_the_matrices_that_it_stands_for(tiny: Callable[..., Config]) -> None:
    module = make_module(tiny(*NF4), [])
    same = make_module(tiny(*NF4, "model.quantization=null"), [])
    for ours, theirs in zip(module.model.parameters(), same.model.parameters(), strict=True):
        write_whole(theirs, dequantised(ours) if is_quantised(ours) else ours.detach())
    batch = make_batch(module)
    (loss, gradients, _), wanted = gradient(module, batch), gradient(same, batch)
    assert loss == pytest.approx(wanted[0], abs=1e-5) and gradients.abs().max() > 0
    assert torch.allclose(gradients, wanted[1], atol=1e-5)
    references = [m.scorer.reference_logprobs(batch) for m in (module, same)]
    assert torch.allclose(*references, atol=1e-4)
    sent, merged = (dict(HFWeights(m.model.lm)) for m in (module, same))
    assert sent.keys() == merged.keys()
    assert all(torch.allclose(sent[name], merged[name], atol=1e-6) for name in sent)


@pytest.mark.parametrize("precision", ["32-true", pytest.param("bf16-mixed", marks=pytest.mark.slow)])
def test_it_resumes_exactly_and_is_exported_merged(precision: str, tiny_model: Path, tmp_path: Path) -> None:
    base = [*TINY, f"model.path={tiny_model}", *NF4, f"trainer.precision={precision}", "rollout.prompts=4"]
    base += ["trainer.accelerator=cpu", "strategy=[reference_kl]", "eval.every=1", "eval.problems=2"]
    whole, part = (run(base, tmp_path / name, f"iterations={n}") for name, n in (("whole", 2), ("part", 1)))
    train(resumed_config([f"resume={part}", "iterations=2"]), silent)
    assert_same_run(whole, part)
    saved = [n for n in checkpoint_tensors(whole) if n.startswith("model.")]
    assert saved and all(".lora_" in name for name in saved)
    policy, start = exported(whole / "policy"), exported(tiny_model)
    assert policy.keys() == start.keys()
    moved = {n: (policy[n] - start[n]).abs().max() for n in policy if not torch.equal(policy[n], start[n])}
    assert any("down_proj" in name for name in moved) and max(moved.values()) < 0.5
    assert main(["export", str(whole), str(tmp_path / "out")]) == 0
    again = exported(tmp_path / "out")
    assert all(torch.equal(again[n], policy[n]) for n in policy)
    assert main(["eval", str(whole), "eval.problems=2", "eval.k=1"]) == 0


def test_its_bytes_are_what_the_plan_counts(tiny: Callable[..., Config], tiny_model: Path) -> None:
    module = make_module(tiny(*NF4, "trainer.precision=bf16-mixed", "trainer.accelerator=cpu"), [])
    parameters: list[Tensor] = list(module.model.parameters())
    live = sum(state_bytes(p) if is_quantised(p) else p.nbytes for p in parameters)
    words = [*NF4, "trainer.precision=bf16-mixed", f"model.path={tiny_model}"]
    plan = job("trainer.accelerator=cpu", *words)
    assert live == pytest.approx(plan.trained_bytes + plan.frozen_bytes, rel=0.01)
