"""FSDP of one process: its types, weights that are never stale, and runs that resume."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.cli import main
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.policy.decoder_layers import decoder_layers
from ecrl.policy.weights import HFWeights
from ecrl.training.module import PolicyModule
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors, exported
from tests.support.conformance import gradient, make_batch, make_module, perturb
from tests.support.runs import assert_same_run, history, run, silent
from tests.support.tiny import TINY

BF16 = ["trainer.accelerator=cpu", "trainer.precision=bf16-mixed"]
BRIEF = ["eval.every=2", "eval.problems=3", "eval.k=2", "checkpoint.every=1"]


@pytest.fixture
def module(tiny: Callable[..., Config]) -> PolicyModule:
    config = tiny(*BF16)
    return make_module(config, build_strategies(config.strategy))


def test_the_residual_stream_is_bfloat16_and_weights_are_not(module: PolicyModule) -> None:
    types: set[torch.dtype] = set()

    def note(layer: Any, inputs: Any, output: torch.Tensor) -> None:
        types.add(output.dtype)

    for layer in decoder_layers(module.model.lm):
        layer.register_forward_hook(note)
    gradient(module, make_batch(module))
    assert types == {torch.bfloat16}
    assert {p.dtype for p in module.model.parameters()} == {torch.float32}
    assert not torch.is_autocast_enabled("cpu")
    assert not module.model.sharded  # no process waits for another


def test_no_pass_and_no_engine_sees_weights_from_before_a_step(
    module: PolicyModule, tiny: Callable[..., Config]
) -> None:
    batch = make_batch(module)
    engine = HFEngine(module.model, ProcessGroup())

    def seen(by: PolicyModule) -> tuple[torch.Tensor, list[list[float]], list[torch.Tensor]]:
        engine.model = by.model
        completions = engine.generate([[5, 6, 7], [8, 9]], Sampling(max_new_tokens=4), [0, 1])
        sent = [tensor.clone() for _, tensor in HFWeights(by.model.lm)]
        return by.scorer.score(batch)[0], [c.logprobs for c in completions], sent

    before = seen(module)
    perturb(module, seed=2, size=0.05)
    after = seen(module)
    assert not torch.equal(before[0], after[0]) and before[1] != after[1]
    other = make_module(tiny(*BF16), [])
    perturb(other, seed=2, size=0.05)
    fresh = seen(other)
    assert torch.equal(fresh[0], after[0]) and fresh[1] == after[1]
    assert all(torch.equal(a, b) for a, b in zip(fresh[2], after[2], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    "more", [[], ["model.lora.r=4", "strategy=[reference_kl]"]], ids=["whole", "adapters"]
)
def test_it_resumes_is_exported_and_leaves_the_next_run_alone(
    more: list[str], tiny_model: Path, tmp_path: Path
) -> None:
    base = [*TINY, f"model.path={tiny_model}", *BRIEF, "trainer.accelerator=cpu", *more]
    run(base, tmp_path / "before", "iterations=2")
    run(base, tmp_path / "whole", "iterations=4", "trainer.precision=bf16-mixed")
    run(base, tmp_path / "part", "iterations=2", "trainer.precision=bf16-mixed")
    train(resumed_config([f"resume={tmp_path / 'part'}", "iterations=4"]), silent)
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    assert history(tmp_path / "whole")[-1]["mismatch/max"] > 0  # decoding and scoring round differently
    assert {t.dtype for t in checkpoint_tensors(tmp_path / "whole").values()} == {torch.float32}
    assert main(["export", str(tmp_path / "whole"), str(tmp_path / "out")]) == 0
    got, want = exported(tmp_path / "out"), exported(tmp_path / "whole" / "policy")
    assert got.keys() == want.keys() and all(torch.equal(got[n], want[n]) for n in want)
    run(base, tmp_path / "after", "iterations=2")
    assert_same_run(tmp_path / "before", tmp_path / "after")
