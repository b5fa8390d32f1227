"""Decoding against transformers' ``generate``, and what it computes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM

from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Completion, Sampling
from ecrl.engines.hf import HFEngine
from ecrl.policy.model import PolicyModel, load_policy, load_tokenizer
from tests.support.decoding import generated

#: A quarter of the vocabulary ends a completion, so that rows of a random policy end at different steps.
ENDS = list(range(0, 258, 4))
RNG = np.random.default_rng(0)


def prompt(length: int) -> list[int]:
    return [int(token) for token in RNG.integers(2, 258, length)]


#: Ragged, some repeated, equal ones apart.
PROMPTS = [*[prompt(5)] * 4, prompt(40), *[prompt(9)] * 3, prompt(1), *[prompt(23)] * 8]
PROMPTS = [*PROMPTS, PROMPTS[0], PROMPTS[4]]
KEYS = list(range(100, 100 + len(PROMPTS)))


def sharp(model: PolicyModel) -> PolicyModel:
    """Scale the weights so that a random policy has opinions, and depends on all of its context."""
    with torch.no_grad():
        for parameter in model.lm.parameters():
            if parameter.dim() == 2:
                parameter.mul_(4)
    model.eos_ids = ENDS
    return model.eval()


def sliding() -> PolicyModel:
    """A policy whose layers see 6 tokens."""
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=258, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, sliding_window=6, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return PolicyModel(MistralForCausalLM(config), ENDS, 0)


@pytest.fixture
def policy(tiny_model: Path, families: dict[str, Path]) -> Callable[[str], PolicyModel]:
    def load(name: str) -> PolicyModel:
        if name == "sliding":
            return sharp(sliding())
        path = str(tiny_model if name == "qwen2" else families[name])
        return sharp(load_policy(path, load_tokenizer(path)))

    return load


def tokens(completions: Sequence[Completion]) -> list[list[int]]:
    return [c.token_ids for c in completions]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("name", ["qwen2", "qwen3", "llama", "mistral", "sliding"])
def test_the_same_tokens_as_transformers(
    policy: Callable[[str], PolicyModel], name: str, temperature: float
) -> None:
    model = policy(name)
    sampling = Sampling(temperature, 1.0, 12)
    engine = HFEngine(model, ProcessGroup())
    got = tokens(engine.generate(PROMPTS, sampling, KEYS))
    assert got == generated(model, PROMPTS, sampling, KEYS)
    assert len({len(row) for row in got}) > 1 + (temperature > 0)  # they end at different steps
    engine.batch_size = 3  # smaller than a group
    assert tokens(engine.generate(PROMPTS, sampling, KEYS)) == got


def test_one_token(policy: Callable[[str], PolicyModel]) -> None:
    model = policy("qwen2")
    sampling = Sampling(1.0, 1.0, 1)
    completions = HFEngine(model, ProcessGroup()).generate(PROMPTS, sampling, KEYS)
    assert tokens(completions) == generated(model, PROMPTS, sampling, KEYS)
    for completion in completions:
        ended = completion.token_ids[-1] in ENDS
        assert completion.finish_reason == ("stop" if ended else "length")
        assert len(completion.token_ids) == len(completion.logprobs) == len(completion.entropy or []) == 1


class Recorder:
    """The shapes ``[rows, new tokens]`` of all forward passes of a model."""

    def __init__(self, model: PolicyModel) -> None:
        self.shapes: list[tuple[int, ...]] = []
        model.lm.base_model.register_forward_pre_hook(self._note, with_kwargs=True)

    def _note(self, module: Any, args: Any, kwargs: dict[str, Tensor]) -> None:
        self.shapes.append(tuple(kwargs["input_ids"].shape))


def test_distinct_prompts_once_and_ended_rows_leave(policy: Callable[[str], PolicyModel]) -> None:
    model = policy("qwen2")
    seen = Recorder(model)
    lengths = [len(t) for t in tokens(HFEngine(model, ProcessGroup()).generate(PROMPTS, Sampling(), KEYS))]
    assert seen.shapes[0] == (5, 40)
    assert len(seen.shapes) == max(lengths)
    for step, (rows, width) in enumerate(seen.shapes[1:], start=1):
        going = sum(length > step for length in lengths)
        assert width == 1 and going <= rows < going / (1 - 1 / 8) + 1


def test_a_process_that_is_done_goes_on_with_one_row(policy: Callable[[str], PolicyModel]) -> None:
    model = policy("qwen2")
    want = HFEngine(model, ProcessGroup()).generate(PROMPTS, Sampling(), KEYS)
    longest = max(len(c.token_ids) for c in want)
    seen = Recorder(model)

    class Slower(ProcessGroup):
        """Other processes need 25 tokens."""

        asked = 0

        def any(self, flag: bool) -> bool:
            self.asked += 1
            return self.asked < 25

    model.sharded = True  # so that the engine asks
    assert HFEngine(model, Slower()).generate(PROMPTS, Sampling(), KEYS) == want
    assert longest < 25 == len(seen.shapes) and seen.shapes[-1] == (1, 1)


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_long_prompts_of_a_trained_policy(validated: Path, temperature: float) -> None:
    path = str(validated / "policy")
    model = load_policy(path, load_tokenizer(path)).eval()
    lengths = [5, 300, 77, 12, 5, 150, 299, 31]
    prompts = [p for length in lengths for p in [prompt(length)] * 4]
    sampling = Sampling(temperature, 1.0, 24)
    keys = range(len(prompts))
    engine = HFEngine(model, ProcessGroup())
    got = engine.generate(prompts, sampling, keys)
    assert tokens(got) == generated(model, prompts, sampling, keys)
    assert {c.finish_reason for c in got} == {"stop", "length"} or temperature == 0


def test_bf16(policy: Callable[[str], PolicyModel]) -> None:
    """In bfloat16 a tie may fall either way; up to then the tokens are the same."""
    model = policy("llama")
    greedy = Sampling(0.0, 1.0, 12)
    with torch.autocast("cpu", torch.bfloat16):
        engine = HFEngine(model, ProcessGroup())
        assert not engine.logprobs_exact
        got = tokens(engine.generate(PROMPTS, greedy, KEYS))
        want = generated(model, PROMPTS, greedy, KEYS)
    same = sum(a == b for a, b in zip(got, want, strict=True))
    assert same >= len(got) - 2
