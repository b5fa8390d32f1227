"""Part a: does what only a GPU runs give what the CPU's code gives?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

import ecrl.policy.lm_head.tiles
from ecrl.config.schema import LoraConfig, ModelConfig
from ecrl.distributed.loading import load_sharded_policy
from ecrl.distributed.sharding import Sharding, clip_gradients, gradient_norm
from ecrl.policy.decoder_layers import checkpoint_layers
from ecrl.policy.lm_head import token_stats
from ecrl.policy.lora import add_adapters
from ecrl.policy.model import PolicyModel
from ecrl.policy.packing import pack_micro_batches
from ecrl.policy.tiny_model import build_model, build_tokenizer
from gpu_parts.report import Report, Row, device, need_gpu
from gpu_parts.work import TINY_LOAD, Load, Model, build_policy, lm_head, make_batch, mixed, packing_of

MODULES = ("torch", "triton", "transformers", "accelerate", "peft", "lightning", "hydra", "gymnasium", "vllm")
#: 64-wide heads, which flex attention takes on every GPU.
SMALL = Model(256, 512, 4, 4, 2, 5_003, 4_096)
LOADS = [
    Load(2, copies, prompt, (16, most), 0, 1, 1, 1) for copies, prompt, most in ((2, 40, 90), (4, 200, 300))
]


def measure(report: Report) -> None:
    for name in MODULES:
        report.add("Imports", {"module": name}, partial(imported, name))
    report.add("Checks", {"check": "LM head in Triton beside the tiles"}, check_kernels)
    report.add("Checks", {"check": "flex attention beside sdpa, 12 shapes"}, check_flex)
    report.add("Checks", {"check": "flex attention, recomputed"}, check_recomputation)
    report.add("Checks", {"check": "LoRA"}, check_lora)
    report.add("Checks", {"check": "FSDP of one process: bfloat16, clip, checkpoint"}, check_fsdp)


def imported(name: str) -> Row:
    return {"version": str(getattr(import_module(name), "__version__", "?"))}


# ------------------------------------------------------------------ LM head


def check_kernels() -> Row:
    """Compare the Triton kernels with the torch operations on this device, in results and gradients."""
    backend = ecrl.policy.lm_head.tiles.choose_backend(device(), torch.float32, elements=1)
    if type(backend).__name__ != "Fused":
        need_gpu()
        raise RuntimeError("Triton is not used on this device")
    return compare_heads("triton", "tiles")


def compare_heads(one: str, other: str) -> Row:
    """Compare two versions of the LM head; each also runs its own backward pass.

    Raises:
        RuntimeError: a result or a gradient differs by more than rounding.
    """
    random = torch.Generator().manual_seed(0)
    made = [torch.randn(s, generator=random).to(device()) for s in ((300, 64), (5003, 64), (5003,))]
    targets = torch.randint(5003, (300,), generator=random).to(device())

    def outcome(name: str) -> dict[str, Tensor]:
        leaves = [t.clone().requires_grad_() for t in made]
        with lm_head(name):  # around the backward pass too, which chooses its kernels anew
            with mixed():
                results = token_stats(leaves[0], leaves[1], targets, bias=leaves[2], chunk_logits=200_000)
            gradients = torch.autograd.grad((results[0] + 0.1 * results[1]).sum(), leaves)
        names = ("log-probs", "entropy", "gradient of hidden", "gradient of weight", "gradient of bias")
        return dict(zip(names, (*results, *gradients), strict=True))

    got, want = outcome(one), outcome(other)
    return agree({name: distance(got[name], want[name]) for name in want}, 1e-2)


def agree(differences: dict[str, float], limit: float) -> Row:
    """Return the largest relative difference.

    Raises:
        RuntimeError: it exceeds the limit.
    """
    name = max(differences, key=lambda n: differences[n])
    if not all(value < limit for value in differences.values()):
        raise RuntimeError(f"{name} differs by {differences[name]:.2e}")
    return {"largest relative difference": f"{differences[name]:.1e} ({name})"}


def distance(a: Tensor, b: Tensor) -> float:
    return float((a - b).detach().double().norm() / b.detach().double().norm())


# ------------------------------------------------------------------ attention


def check_flex() -> Row:
    """Compare log-probs in 12 shapes of passes; more programs than shapes would mean that it recompiles."""
    need_gpu()
    flex, sdpa = build_policy(SMALL, "flex_attention"), build_policy(SMALL, "sdpa")
    differences, shapes = {}, set()
    for number, load in enumerate(LOADS):
        batch = make_batch(SMALL, load, shared=True)
        for count in (1, 2, 3, 4, 6, 8):
            sequences = batch.sequences[:count]
            (got, shape), (want, _) = logprobs(flex, sequences), logprobs(sdpa, sequences)
            shapes.add(shape)
            differences[f"load {number}, {count} sequences"] = distance(got, want)
    programs = str(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    return {**agree(differences, 2e-2), "shapes": str(len(shapes)), "programs": programs}


@torch.no_grad()
def logprobs(policy: PolicyModel, sequences: Any) -> tuple[Tensor, tuple[int, ...]]:
    (micro_batch,) = pack_micro_batches(
        sequences, SMALL.max_tokens, SMALL.max_tokens, **packing_of(policy.attention)
    )
    with mixed():
        scores, _ = policy(micro_batch, 1.0)
    ordered = torch.empty_like(scores)
    ordered[micro_batch.order.to(scores.device)] = scores
    return ordered, tuple(micro_batch.input_ids.shape)


def check_recomputation() -> Row:
    need_gpu()
    gradients = []
    for kind in (None, "selective", "full"):
        policy = build_policy(SMALL, "flex_attention")
        if kind:
            checkpoint_layers(policy.lm, kind)
        gradients.append(gradient(policy, SMALL, LOADS[0]))
    plain, selective, full = gradients
    return agree({"selective": distance(selective, plain), "full": distance(full, plain)}, 1e-2)


def gradient(policy: PolicyModel, model: Model, load: Load) -> Tensor:
    """Gradient of the sum of log-probs by all trained parameters, flat."""
    batch = make_batch(model, load, shared=True)
    for micro_batch in pack_micro_batches(
        batch.sequences, model.max_tokens, load.row_tokens, **packing_of(policy.attention)
    ):
        with mixed():
            scores, _ = policy(micro_batch, 1.0)
        scores.sum().backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


# ------------------------------------------------------------------ adapters, shards


def check_lora() -> Row:
    """Adapters start as nothing, and only they get a gradient."""
    plain, policy = build_policy(SMALL, "sdpa"), build_policy(SMALL, "sdpa")
    with torch.device(device()):
        add_adapters(policy.lm, LoraConfig(r=4))
    sequences = make_batch(SMALL, TINY_LOAD, shared=True).sequences
    difference = distance(logprobs(policy, sequences)[0], logprobs(plain, sequences)[0])
    norm = float(gradient(policy, SMALL, TINY_LOAD).norm())
    if not 0 < norm < float("inf"):
        raise RuntimeError(f"the gradient's norm is {norm}")
    return agree({"log-probs": difference}, 1e-3)


def check_fsdp() -> Row:
    """One clipped step of a shard that is the whole, written and read again."""
    import torch.distributed.checkpoint as dcp
    from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

    tokenizer = build_tokenizer()
    with tempfile.TemporaryDirectory() as folder, group_of_one() as mesh:
        path = Path(folder) / "model"
        build_model(ModelConfig(hidden_size=64, layers=2, heads=2), tokenizer, seed=0).save_pretrained(path)
        tokenizer.save_pretrained(path)

        def load() -> PolicyModel:
            sharding = Sharding(mesh, shard=True, bf16=True)
            return load_sharded_policy(
                str(path), tokenizer, ModelConfig(attention="sdpa"), sharding, device()
            )

        policy, again = load(), load()
        model = Model(64, 0, 2, 2, 2, 200, 512)
        batch = make_batch(model, TINY_LOAD, shared=True)
        (micro_batch,) = pack_micro_batches(batch.sequences, 512, 256)
        policy(micro_batch, 1.0)[0].sum().backward()
        trained = list(policy.parameters())
        clip_gradients(trained, gradient_norm(trained), 0.5)
        norm = float(gradient_norm(trained))
        torch.optim.AdamW(trained, lr=1e-3, fused=True).step()
        dcp.save(get_model_state_dict(policy), checkpoint_id=Path(folder) / "checkpoint")
        state = get_model_state_dict(again)
        dcp.load(state, checkpoint_id=Path(folder) / "checkpoint")
        set_model_state_dict(again, state)
        with torch.no_grad():
            same = torch.equal(policy(micro_batch, 1.0)[0], again(micro_batch, 1.0)[0])
    if not (same and abs(norm - 0.5) < 1e-3):
        raise RuntimeError(f"clipped to {norm} instead of 0.5, the same after reading: {same}")
    return {"backend": "nccl" if device().type == "cuda" else "gloo"}


@contextmanager
def group_of_one() -> Iterator[Any]:
    """Yield the mesh of a process group that holds this process only."""
    backend = "cpu:gloo,cuda:nccl" if device().type == "cuda" else "gloo"
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        names = ("data_parallel", "tensor_parallel")
        yield dist.init_device_mesh(device().type, (1, 1), mesh_dim_names=names)
    finally:
        dist.destroy_process_group()
