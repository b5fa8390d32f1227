"""Models with random weights on random tokens, their updates and their generation."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import Qwen2Config, Qwen2ForCausalLM

import ecrl.policy.lm_head.tiles
import ecrl.policy.model
from ecrl.algorithm.rollout_batch import RolloutBatch, SequenceTokens
from ecrl.distributed.process_group import ProcessGroup
from ecrl.distributed.sharding import clip_gradients, gradient_norm
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.policy.attention import choose_attention
from ecrl.policy.model import PolicyModel
from ecrl.policy.packing import pack_micro_batches
from ecrl.policy.varlen import VARLEN
from gpu_parts.report import Row, clean, device, device_name

# Dense bfloat16 FLOP/s of the tensor cores, from the data sheets.
PEAK = {"H100 PCIe": 756e12, "H100 NVL": 835e12, "H100": 989e12, "H200": 989e12, "A100": 312e12, "L4": 121e12}


@dataclass(frozen=True)
class Model:
    """A Qwen2 architecture, and the most tokens of a micro-batch."""

    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    max_tokens: int


@dataclass(frozen=True)
class Load:
    """The sizes of an update, a generation and an iteration."""

    groups: int
    copies: int
    prompt: int
    response: tuple[int, int]  # shortest and longest
    row_tokens: int
    repeats: int
    new_tokens: int
    iterations: int


MODELS = {
    "0.5B": Model(896, 4864, 24, 14, 2, 151_936, 16_384),
    "1.5B": Model(1536, 8960, 28, 12, 2, 151_936, 8_192),
}
LOAD = Load(16, 8, 256, (128, 1024), 2048, 3, 128, 3)
TINY_MODELS = {"tiny": Model(32, 64, 2, 2, 1, 512, 128)}
TINY_LOAD = Load(2, 2, 5, (2, 9), 40, 2, 4, 2)


# ------------------------------------------------------------------ pieces


def synchronize() -> None:
    if device().type == "cuda":
        torch.cuda.synchronize()


def mixed() -> Any:
    """Lightning's bf16-mixed: float32 weights, bfloat16 products; float32 throughout on a CPU."""
    return torch.autocast("cuda", torch.bfloat16) if device().type == "cuda" else nullcontext()


def build_lm(model: Model) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=model.vocabulary, hidden_size=model.hidden, intermediate_size=model.intermediate,
        num_hidden_layers=model.layers, num_attention_heads=model.heads,
        num_key_value_heads=model.kv_heads, max_position_embeddings=4096, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=1, pad_token_id=0, dtype="float32",
    )  # fmt: skip
    with device():
        return Qwen2ForCausalLM(config)


def build_policy(model: Model, attention: str) -> PolicyModel:
    lm, bf16 = build_lm(model), device().type == "cuda"
    return PolicyModel(lm, [1], 0, choose_attention(attention, device(), bf16, lm.config))


def packing_of(attention: str) -> dict[str, bool]:
    """How training packs for a kind of attention."""
    return {"bucketed": attention != "sdpa", "shared": attention != VARLEN}


def make_batch(model: Model, load: Load, shared: bool) -> RolloutBatch:
    """Make a batch of random tokens; if prompts are not shared, each response has its own prompt."""
    random = np.random.default_rng(0)
    draw: Callable[[int], list[int]] = lambda n: random.integers(2, model.vocabulary, n).tolist()  # noqa: E731
    count = load.groups * load.copies
    prompts = [draw(load.prompt) for _ in range(load.groups if shared else count)]
    responses = [draw(int(n)) for n in random.integers(*load.response, count)]
    sequences = [
        SequenceTokens(prompts[i // load.copies if shared else i], response, [True] * len(response))
        for i, response in enumerate(responses)
    ]
    lengths = torch.tensor([len(response) for response in responses])
    total = int(lengths.sum())
    return RolloutBatch(
        sequences=sequences,
        lengths=lengths,
        group_ids=torch.arange(count) // load.copies,
        uid=torch.arange(count),
        rewards=torch.zeros(count),
        truncated=torch.zeros(count, dtype=torch.bool),
        turns=torch.zeros(total, dtype=torch.long),
        token_rewards=torch.zeros(total),
        old_logprobs=torch.full((total,), -float(np.log(model.vocabulary))),
        engine_logprobs=torch.zeros(total),
        old_entropy=torch.zeros(total),
        advantages=torch.from_numpy(random.standard_normal(total)).float(),
    )


def plain_stats(
    hidden: Tensor, weight: Tensor, targets: Tensor, *, temperature: float, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The formula that the tiled LM head replaces: all logits at once, the entropy without gradient."""
    logp = torch.log_softmax(functional.linear(hidden, weight, bias).float() / temperature, -1)
    with torch.no_grad():
        entropy = -(logp.exp() * logp).sum(-1)
    return logp.gather(1, targets[:, None]).squeeze(1), entropy


@contextmanager
def lm_head(name: str) -> Iterator[None]:
    """Use one version of the LM head within the block."""
    if name == "plain":
        with mock.patch.object(ecrl.policy.model, "token_stats", plain_stats):
            yield
    elif name == "tiles":
        with mock.patch.object(ecrl.policy.lm_head.tiles, "find_spec", lambda _: None):
            yield
    else:
        yield


def peak_gib() -> str:
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if device().type == "cuda" else "–"


# ------------------------------------------------------------------ measurements


def update(
    policy: PolicyModel,
    model: Model,
    load: Load,
    batch: RolloutBatch,
    row_tokens: int,
    *,
    precision: Callable[[], Any] = mixed,
    fused: bool = True,
) -> Row:
    """Measure forward, backward and AdamW step of one minibatch.

    MFU counts only products with weights (6 × parameters × tokens that pass through them), without padding.
    """
    step, passes = updater(policy, model, batch, row_tokens, precision=precision, fused=fused)
    clean()
    seconds = timed(step, load.repeats)
    top = policy.lm.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in policy.parameters()) - top  # the LM head is tied to the embedding
    prompts = {tuple(s.prompt_ids) for s in batch.sequences}
    passing = sum(map(len, prompts)) + sum(len(s.response_ids) for s in batch.sequences)
    flops = 6 * (body * passing + top * batch.num_tokens)
    peak = next((v for k, v in PEAK.items() if k in device_name()), None)
    middle = statistics.median(seconds)
    return {
        "response tokens/s": f"{batch.num_tokens / middle:,.0f}",
        "MFU": f"{flops / middle / peak:.1%}" if peak else "–",
        "seconds": median_and_range(seconds),
        "passes": str(passes),
        "peak GiB": peak_gib(),
    }


def updater(
    policy: PolicyModel,
    model: Model,
    batch: RolloutBatch,
    row_tokens: int,
    *,
    precision: Callable[[], Any] = mixed,
    fused: bool = True,
) -> tuple[Callable[[], None], int]:
    """Return a function that makes one optimizer step, and its number of passes.

    Args:
        policy: what is trained.
        model: its sizes.
        batch: a minibatch.
        row_tokens: longest packed row; 0 pads each sequence to a row of its own.
        precision: context of the forward passes.
        fused: whether AdamW is one kernel.
    """
    trained = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-6, fused=fused)
    micro_batches = pack_micro_batches(
        batch.sequences, model.max_tokens, row_tokens, **packing_of(policy.attention)
    )
    old, advantages = batch.old_logprobs.to(device()), batch.advantages.to(device())

    def step() -> None:
        for micro_batch in micro_batches:
            order = micro_batch.order.to(device())
            with precision():
                logprobs, _ = policy(micro_batch, 1.0)
            ratio = (logprobs - old[order]).exp()
            loss = -torch.minimum(ratio * advantages[order], ratio.clamp(0.8, 1.2) * advantages[order])
            (loss.sum() / batch.num_tokens).backward()
        clip_gradients(trained, gradient_norm(trained), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step, len(micro_batches)


def generation(policy: PolicyModel, load: Load, batch: RolloutBatch) -> Row:
    engine = HFEngine(policy, ProcessGroup())
    prompts = [s.prompt_ids for s in batch.sequences]
    sampling = Sampling(max_new_tokens=load.new_tokens)
    drawn: list[int] = []

    def step() -> None:
        with mixed():
            completions = engine.generate(prompts, sampling, range(len(prompts)))
        drawn.append(sum(len(c.token_ids) for c in completions))

    clean()
    seconds = timed(step, 1)
    return {
        "completions": str(len(prompts)),
        "tokens/s": f"{drawn[-1] / seconds[0]:,.0f}",
        "seconds": median_and_range(seconds),
        "peak GiB": peak_gib(),
    }


def timed(step: Callable[[], None], repeats: int) -> list[float]:
    """Return the seconds of each repetition, after one warm-up."""
    seconds = []
    for _ in range(1 + repeats):
        synchronize()
        start = time.perf_counter()
        step()
        synchronize()
        seconds.append(time.perf_counter() - start)
    return seconds[1:]


def median_and_range(values: list[float]) -> str:
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"
