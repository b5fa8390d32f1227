"""Adapters: only they train, are saved and resumed; the export carries them merged."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from ecrl.cli import main
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.policy.lora import fill_adapters, without_adapters
from ecrl.policy.weights import HFWeights, state_of, write_whole
from ecrl.training.preflight import check_size
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors
from tests.support.conformance import make_batch, make_module
from tests.support.runs import assert_same_run, run, silent
from tests.support.tiny import TINY

LORA = ["model.lora.r=4", "model.lora.alpha=8", "update.lr=1e-2"]


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    return [*TINY, f"model.path={tiny_model}", *LORA]


def test_only_adapters_train_and_the_export_is_merged(
    base: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    run_dir = run(base, tmp_path / "run", "iterations=2")
    saved = {n: t for n, t in checkpoint_tensors(run_dir).items() if n.startswith("model.")}
    assert saved and all(".lora_A." in name or ".lora_B." in name for name in saved)
    start = AutoModelForCausalLM.from_pretrained(tiny_model).state_dict()
    export = AutoModelForCausalLM.from_pretrained(run_dir / "policy").state_dict()
    for name, tensor in export.items():
        adapter = f"model.lm.{name.removesuffix('.weight')}"
        if f"{adapter}.lora_A.default.weight" in saved:
            a, b = (saved[f"{adapter}.lora_{x}.default.weight"] for x in "AB")
            assert b.abs().max() > 0
            assert torch.allclose(tensor, start[name] + 8 / 4 * b @ a, atol=1e-6)
        else:
            assert torch.equal(tensor, start[name])


def test_resume_is_exact(base: list[str], tmp_path: Path) -> None:
    whole = run(base, tmp_path / "whole", "iterations=3")
    parts = run(base, tmp_path / "parts", "iterations=1")
    train(resumed_config([f"resume={parts}", "iterations=3"]), silent)
    assert_same_run(whole, parts)


def test_adapters_start_as_nothing_and_can_be_left_out(tiny: Callable[..., Config]) -> None:
    plain, adapted = (
        make_module(tiny(), []),
        make_module(tiny(*LORA, "model.lora.target_modules=[q_proj]"), []),
    )
    batch = make_batch(plain)
    before = state_of(adapted.model.lm, adapted.model.device)
    trained = [p for p in adapted.model.parameters() if p.requires_grad]
    assert len(trained) == 2 * 2  # A and B in each of two layers
    with without_adapters(adapted.model.lm):
        without, _ = adapted.scorer.score(batch)
    with torch.no_grad():
        for parameter in trained:
            parameter.normal_()
    with_adapters, _ = adapted.scorer.score(batch)
    with without_adapters(adapted.model.lm):
        again, _ = adapted.scorer.score(batch)
    assert torch.equal(without, again) and not torch.allclose(without, with_adapters, atol=1e-2)
    after = state_of(adapted.model.lm, adapted.model.device)
    assert {n for n in after if not torch.equal(after[n], before[n])} == {
        f"model.layers.{layer}.self_attn.q_proj.weight" for layer in (0, 1)
    }


def test_initial_values_do_not_depend_on_the_default_device(tiny: Callable[..., Config]) -> None:
    """Lightning builds the model under the device of the run; ``meta`` stands for a GPU here."""
    model = make_module(tiny(*LORA), []).model
    trained = [p for p in model.parameters() if p.requires_grad]
    fill_adapters(model.lm, 0, write_whole)
    before = [p.clone() for p in trained]
    with torch.no_grad():
        for parameter in trained:
            parameter.normal_()
    with torch.device("meta"):
        fill_adapters(model.lm, 0, write_whole)
    assert all(torch.equal(a, b) for a, b in zip(before, trained, strict=True))


def test_weights_from_host_memory_are_made_on_the_device(tiny: Callable[..., Config]) -> None:
    """Sums and casts of a large model take minutes in host memory; ``meta`` stands for a GPU here."""
    lm = make_module(tiny(*LORA), []).model.lm
    made = list(HFWeights(lm, torch.device("meta")))
    assert len(made) == len(list(HFWeights(lm))) > 0
    assert all(tensor.is_meta for _, tensor in made)


@pytest.mark.parametrize("target", ["nose", "lm_head", "embed_tokens", "self_attn", "model.q_proj"])
@pytest.mark.parametrize("family", ["qwen3", "llama"])  # with a tied and an untied head
def test_what_cannot_be_adapted_is_refused_before_anything_starts(
    family: str, target: str, families: dict[str, Path], tiny: Callable[..., Config]
) -> None:
    config = tiny(*LORA, f"model.path={families[family]}", f"model.lora.target_modules=[q_proj,{target}]")
    with pytest.raises(UsageError, match=rf"{target} cannot be adapted; .*linear layers .*q_proj"):
        check_size(config)


def test_one_layer_may_be_named_in_full(tiny: Callable[..., Config]) -> None:
    check_size(tiny(*LORA, "model.lora.target_modules=[layers.1.self_attn.q_proj]"))


def test_a_checkpoint_of_another_model_is_one_line(
    base: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    adapted = run(base, tmp_path / "adapted", "iterations=1")
    whole = run([*TINY, f"model.path={tiny_model}"], tmp_path / "whole", "iterations=1")
    shutil.rmtree(whole / "checkpoints")
    shutil.copytree(adapted / "checkpoints", whole / "checkpoints")
    for words in (
        ["train", f"resume={whole}", "iterations=2"],
        ["export", str(whole), str(tmp_path / "out")],
    ):
        capsys.readouterr()
        assert main(words) == 2
        error = capsys.readouterr().err
        assert "is no checkpoint of this model: RuntimeError: Missing key" in error
        assert error.count("\n") == 1
