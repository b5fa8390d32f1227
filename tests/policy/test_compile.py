"""Compiled decoder layers: the same gradients from few programs, under the same names."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._dynamo.testing import CompileCounterWithBackend

from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.errors import UsageError
from ecrl.policy import decoder_layers, flex
from ecrl.policy.decoder_layers import compiles
from ecrl.policy.flex import FLEX
from ecrl.policy.packing import MicroBatch
from ecrl.training.run import train
from ecrl.training.scoring import Scorer
from tests.support.checkpoints import checkpoint_tensors
from tests.support.conformance import gradient, make_batch, make_module
from tests.support.runs import assert_same_run, history, run, silent
from tests.support.tiny import TINY

COMPILED = ["model.compile=true", "trainer.accelerator=cpu"]
BF16 = "trainer.precision=bf16-mixed"
PARTS = {
    "plain": [],
    "selective checkpointing": ["model.activation_checkpointing=selective"],
    "full checkpointing": ["model.activation_checkpointing=full"],
    "adapters": ["model.lora.r=2"],
    "fsdp": [BF16, "model.activation_checkpointing=selective"],
    "autocast": [BF16, "trainer.parallel=ddp"],
}


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Any]]:
    """Chooses what compiles, and counts the programs."""
    plain = torch.compile

    def choose(backend: str) -> Any:
        counter = CompileCounterWithBackend(backend)
        monkeypatch.setattr(torch, "compile", partial(plain, backend=counter))
        return counter

    torch._dynamo.reset()
    yield choose
    torch._dynamo.reset()


def outcome(config: Config) -> tuple[list[str], Tensor, Tensor]:
    """Names of the parameters; log-probs and gradient of a minibatch."""
    module = make_module(config, build_strategies(config.strategy))
    batch = make_batch(module)
    _, flat, _ = gradient(module, batch)
    return [name for name, _ in module.model.named_parameters()], module.scorer.score(batch)[0], flat


def assert_same(tiny: Callable[..., Config], words: list[str]) -> None:
    names, logprobs, plain = outcome(tiny("trainer.accelerator=cpu", *words))
    same_names, same_logprobs, compiled = outcome(tiny(*COMPILED, *words))
    assert names == same_names
    # Fused operations round once where the others round each.
    tolerance = 0.03 if BF16 in words else 1e-5
    assert torch.allclose(logprobs, same_logprobs, atol=tolerance)
    assert (plain - compiled).norm() <= tolerance * plain.norm()


def test_gradients_are_the_same(tiny: Callable[..., Config], programs: Callable[[str], Any]) -> None:
    counter = programs("eager")
    assert_same(tiny, ["model.activation_checkpointing=full"])
    assert counter.frame_count == 2  # with and without gradient, for both layers together


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_parts_have_the_same_gradients(
    part: str, tiny: Callable[..., Config], programs: Callable[[str], Any]
) -> None:
    counter = programs("inductor" if part == "fsdp" else "aot_eager")  # the real compiler once: it takes long
    assert_same(tiny, PARTS[part])
    # What enters the first layer needs no gradient under adapters, and has another type under autocast.
    assert counter.frame_count == (3 if part in ("adapters", "autocast") else 2)


@pytest.mark.slow
def test_a_run_compiles_two_programs_for_each_shape_and_resumes(
    tiny_model: Path, tmp_path: Path, programs: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    shapes: set[torch.Size] = set()
    before = Scorer.micro_batches

    def noted(self: Scorer, batch: Any) -> list[MicroBatch]:
        micro_batches = before(self, batch)
        shapes.update(m.input_ids.shape for m in micro_batches)
        return micro_batches

    monkeypatch.setattr(Scorer, "micro_batches", noted)
    counter = programs("aot_eager")
    sizes = [
        "update.max_tokens=512",
        "update.row_tokens=256",
        "rollout.max_new_tokens=40",
        "rollout.prompts=7",
    ]
    base = [*TINY, f"model.path={tiny_model}", *sizes, *COMPILED, "strategy=[reference_kl]", "eval.every=2"]
    base += ["eval.problems=3", "eval.k=2", "monitor=[standard,entropy_dynamics]"]
    run(base, tmp_path / "whole", "iterations=4")
    # The monitor's probe has rows of its own.
    assert counter.frame_count <= 2 * (len(shapes) + 2)
    assert 1 < len(shapes) <= 8
    run(base, tmp_path / "part", "iterations=2")
    train(resumed_config([f"resume={tmp_path / 'part'}", "iterations=4"]), silent)
    assert_same_run(tmp_path / "whole", tmp_path / "part")
    run([*base, "model.compile=false"], tmp_path / "plain", "iterations=1")
    run(base, tmp_path / "first", "iterations=1")
    for one, other in zip(history(tmp_path / "first"), history(tmp_path / "plain"), strict=True):
        assert one == pytest.approx(other, rel=1e-3, abs=1e-5, nan_ok=True)
    one, other = checkpoint_tensors(tmp_path / "first"), checkpoint_tensors(tmp_path / "plain")
    assert one.keys() == other.keys()


def test_sparse_attention_is_compiled_with_the_layers(
    tiny: Callable[..., Config], programs: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    counter = programs("eager")
    monkeypatch.setattr(flex, "compiled", lambda: pytest.fail("compiled by itself"))
    module = make_module(tiny(*COMPILED, "update.max_tokens=512", "update.row_tokens=512"), [])
    batch = make_batch(module)
    dense = module.scorer.score(batch)[0]
    before = counter.frame_count
    module.model.attention = FLEX
    for _ in range(2):  # another mask of the same shape
        assert torch.allclose(module.scorer.score(batch)[0], dense, atol=1e-5)
    assert counter.frame_count == before + 1


def test_generation_is_not_compiled(tiny: Callable[..., Config], programs: Callable[[str], Any]) -> None:
    counter = programs("eager")
    model = make_module(tiny(*COMPILED), []).model  # which checks the head
    HFEngine(model, ProcessGroup()).generate([[5, 6, 7], [8]], Sampling(max_new_tokens=2), [0, 1])
    assert counter.frame_count == 0


def test_layers_that_cannot_be_compiled_end_in_a_line(
    tiny: Callable[..., Config], programs: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    programs("eager")
    module = make_module(tiny(*COMPILED), [])
    monkeypatch.setattr(decoder_layers, "MOST_PROGRAMS", 0)
    with pytest.raises(UsageError, match=r"cannot be compiled here .*model\.compile=false"):
        make_batch(module)


def test_auto_compiles_on_a_gpu(tiny: Callable[..., Config]) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert tiny().model.compile == "auto"
    assert [compiles("auto", d, s) for d, s in ((cpu, False), (gpu, False), (gpu, True))] == [
        False,
        True,
        False,
    ]
    assert compiles(True, cpu, False) and not compiles(False, gpu, False)
    with pytest.raises(UsageError, match=r"model\.compile=true with trainer\.tensor_parallel_size"):
        tiny("model.compile=true", "trainer.devices=2", "trainer.tensor_parallel_size=2")
