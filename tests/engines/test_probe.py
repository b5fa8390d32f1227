"""The probe tells rounding from wrong weights; the engine is a second model in its own precision."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import Qwen2Config, Qwen2ForCausalLM

from ecrl.engines.probe import Probe
from ecrl.errors import EcrlError
from ecrl.policy.model import PolicyModel, load_policy, load_tokenizer
from ecrl.training.warmup import make_base
from tests.support.trained import composed

BF16 = torch.bfloat16


@pytest.fixture(scope="module")
def trained_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "policy"
    make_base(composed("grpo"), path)
    return path


@pytest.fixture
def trained(trained_path: Path) -> PolicyModel:
    return mixed(load_policy(str(trained_path), load_tokenizer(str(trained_path))).eval())


@pytest.fixture
def deep() -> PolicyModel:
    """28 narrow layers, of which each changes the stream by as much as it holds, and large logits."""
    sizes = {"vocab_size": 1000, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 28}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": False}
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        lm = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads)).eval()
        for name, parameter in lm.named_parameters():
            if parameter.dim() > 1:
                width = 1 if "embed" in name else parameter.shape[1]
                parameter.normal_(0, width**-0.5)
        lm.lm_head.weight.mul_(15)
    return mixed(PolicyModel(lm, [1], 0))


def mixed(model: PolicyModel) -> PolicyModel:
    """As a run under bf16-mixed has it."""
    model.compute_dtype = BF16
    return model


@torch.no_grad()
def engine(model: PolicyModel, probe: Probe, dtype: torch.dtype = BF16) -> Tensor:
    """Log-probs ``[L − 1]`` of a copy that holds and computes all in the engine's type."""
    lm: Any = deepcopy(model.lm).to(dtype)
    ids = torch.tensor([probe.token_ids])
    logits = lm(input_ids=ids).logits[0, :-1].float()
    return logits.log_softmax(-1).gather(1, ids[0, 1:, None])[:, 0]


@torch.no_grad()
def moved(model: PolicyModel, step: float, seed: int = 0) -> PolicyModel:
    """Move every weight by ``step`` in a random direction, in place."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.add_(step * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(params=["trained", "deep"])
def policy(request: pytest.FixtureRequest) -> Iterator[PolicyModel]:
    yield request.getfixturevalue(request.param)


def test_rounding_passes_while_the_policy_trains(policy: PolicyModel) -> None:
    probe = Probe(policy, BF16)
    for version in range(12):
        probe.check(engine(policy, probe), version)
        moved(policy, 1e-4, seed=version)


def test_rounding_of_a_deep_model_is_larger_than_any_fixed_tolerance(deep: PolicyModel) -> None:
    probe = Probe(deep, BF16, tolerance=0.2)
    with pytest.raises(EcrlError, match=r"other weights than version 0: .* \(tolerance 0\.2\)"):
        probe.check(engine(deep, probe), 0)


def test_an_engine_that_never_loaded_is_refused(policy: PolicyModel) -> None:
    probe = Probe(policy, BF16)
    unloaded = deepcopy(policy)
    with torch.no_grad():
        for parameter in unloaded.parameters():
            parameter.uniform_(-1e-3, 1e-3)  # as vLLM starts
    with pytest.raises(EcrlError, match="other weights than version 0"):
        probe.check(engine(unloaded, probe), 0)


def test_an_engine_that_keeps_old_weights_is_caught_below_the_tolerance(policy: PolicyModel) -> None:
    probe = Probe(policy, BF16)
    stale = engine(policy, probe)
    probe.check(stale, 0)
    with pytest.raises(EcrlError, match=r"of version 0 instead of \d+|other weights than"):
        for version in range(1, 200):
            probe.check(stale, version)
            moved(policy, 2e-4, seed=version)
    assert version > 1  # what one such step changes is less than rounding


def test_float32_is_exact(trained: PolicyModel) -> None:
    trained.compute_dtype = torch.float32
    probe = Probe(trained, torch.float32)
    first = engine(trained, probe, torch.float32)
    probe.check(first, 0)
    with pytest.raises(EcrlError, match=r"nats from the trainer's \(tolerance 0\.001\)"):
        probe.check(engine(trained, probe, BF16), 1)
    # A thousandth of the tolerance away, and yet nearer to what the trainer had before.
    moved(trained, 1e-6)
    with pytest.raises(EcrlError, match="the weights of version 0 instead of 1"):
        probe.check(first, 1)
    probe.check(engine(trained, probe, torch.float32), 1)


def test_it_does_not_depend_on_the_precision_around_it(trained: PolicyModel) -> None:
    probe = Probe(trained, BF16)
    outside = engine(trained, probe)
    with torch.autocast("cpu", BF16):
        probe.check(outside, 0)
        inside = probe._trainer_logprobs()
    assert torch.equal(inside, probe._trainer_logprobs())
