"""How a worker finds the weights that it got; needs no vLLM."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ecrl.engines.checksum import WeightManifest, checksum, read
from ecrl.engines.vllm.adapters import find_factors
from ecrl.engines.vllm.held_weights import find_weights

PACKING = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up": ["gate", "up"]}


def layer(weight: Tensor, **split: Any) -> nn.Module:
    """A layer with one parameter and with the attributes by which vLLM's layers say how they are split."""
    module = nn.Module()
    module.weight = nn.Parameter(weight)
    for name, value in split.items():
        setattr(module, name, value)
    return module


def test_stacked_tensors_are_found_by_their_rows() -> None:
    q, k, v, table = torch.randn(4, 3), torch.randn(2, 3), torch.randn(2, 3), torch.randn(8, 3)
    model = nn.ModuleDict({"qkv_proj": layer(torch.cat([q, k, v])), "e": layer(table)})
    model["head"] = model["e"]
    shapes = {"q_proj.weight": [4, 3], "k_proj.weight": [2, 3], "v_proj.weight": [2, 3], "e.weight": [5, 3]}
    packing = {"qkv_proj": PACKING["qkv_proj"]}
    named = nn.ModuleDict({"a": model})
    shapes = {f"a.{name}": shape for name, shape in shapes.items()}
    held, unsent = find_weights(named, packing, {**shapes, "gone.weight": [2]})
    # A padded vocabulary counts without its padding, and the tied head came with it.
    expected = {"q_proj": q, "k_proj": k, "v_proj": v, "e": table[:5]}
    assert held.keys() == {f"a.{name}.weight" for name in expected} and unsent == []
    assert all(torch.equal(held[f"a.{name}.weight"].view, tensor) for name, tensor in expected.items())
    # What is packed away has no rows left; a missing part of a stack is missed.
    assert find_weights(nn.ModuleDict({"e": layer(torch.empty(0))}), packing, {"e.weight": [5, 3]}) == (
        {},
        [],
    )
    del shapes["a.v_proj.weight"], shapes["a.e.weight"]
    assert find_weights(named, packing, shapes)[1] == ["a.v_proj.weight", "a.e.weight", "a.head.weight"]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_the_parts_of_four_workers_make_the_whole(kv_heads: int) -> None:
    """Four query heads of size 2; layers split by rows, by columns, by the vocabulary, and not at all."""
    shapes = {"a.q_proj": [8, 8], "a.k_proj": [2 * kv_heads, 8], "a.v_proj": [2 * kv_heads, 8]}
    shapes |= {"a.gate": [16, 8], "a.up": [16, 8], "a.down": [8, 16], "a.norm": [8], "a.table": [37, 8]}
    sent = {f"{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
    manifest, size = WeightManifest(), 4
    list(manifest.record(sent.items(), torch.float32))
    t = {
        name: sent[f"a.{name}.weight"]
        for name in ("q_proj", "k_proj", "v_proj", "gate", "up", "down", "table")
    }
    copies = size // kv_heads
    receipts = []
    for rank in range(size):
        split = {"tp_rank": rank, "tp_size": size}
        kv = slice(2 * (rank // copies), 2 * (rank // copies) + 2)
        rows = [t["q_proj"][2 * rank : 2 * rank + 2], t["k_proj"][kv], t["v_proj"][kv]]
        start, end = min(16 * rank, 37), min(16 * rank + 16, 37)  # a vocabulary of 37, padded to 64
        table = torch.cat([t["table"][start:end], torch.randn(16 - end + start, 8)])
        vocabulary = SimpleNamespace(org_vocab_start_index=start, org_vocab_end_index=end)
        mine = slice(4 * rank, 4 * rank + 4)
        layers = {
            "qkv_proj": layer(torch.cat(rows), num_kv_head_replicas=copies, **split),
            "gate_up": layer(torch.cat([t["gate"][mine], t["up"][mine]]), **split),
            "down": layer(t["down"][:, mine].clone(), **split),
            "norm": layer(sent["a.norm.weight"]),
            "table": layer(table, shard_indices=vocabulary, **split),
        }
        held, unsent = find_weights(nn.ModuleDict({"a": nn.ModuleDict(layers)}), PACKING, manifest.shapes)
        assert held.keys() == sent.keys() and unsent == []
        sums = read({name: checksum(part.view, part.row, part.column) for name, part in held.items()})
        parts = {name: (part.row, part.column, sums[name] or 0) for name, part in held.items()}
        receipts.append({"version": 1, "checksums": parts, "unsent": []})
    manifest.check(receipts, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_the_factors_that_four_workers_hold_make_the_adapter(kv_heads: int) -> None:
    """Rank 2 in places for 4; the value projection has no adapter."""
    sizes = {"q_proj": (8, 8), "k_proj": (2 * kv_heads, 8), "gate": (16, 8), "up": (16, 8), "down": (8, 16)}
    sent: dict[str, Tensor] = {}
    for name, (out, width) in sizes.items():
        sent |= {f"a.{name}.lora_A.weight": torch.randn(2, width)}
        sent |= {f"a.{name}.lora_B.weight": torch.randn(out, 2)}
    manifest, size = WeightManifest(), 4
    list(manifest.record(sent.items(), torch.float32))
    copies = size // kv_heads
    receipts = []
    for rank in range(size):

        def wrapped(*names: str, rank: int = rank, **split: Any) -> nn.Module:
            """A layer as vLLM wraps it for adapters."""
            module = nn.Module()
            split |= {"tp_rank": rank, "tp_size": size, "lora_a_stacked": [], "lora_b_stacked": []}
            for name in names:
                a, b = (sent.get(f"a.{name}.lora_{f}.weight") for f in "AB")
                if a is None or b is None:
                    a, b = torch.zeros(2, 8), torch.zeros(2 * kv_heads, 2)
                if name == "down":
                    a = a[:, 4 * rank : 4 * rank + 4]
                else:
                    rows = 2 if name in ("q_proj", "k_proj", "v_proj") else 4
                    first = rows * (rank // copies if name in ("k_proj", "v_proj") else rank)
                    b = b[first : first + rows]
                for stacked, factor in (("lora_a_stacked", a), ("lora_b_stacked", b)):
                    place = torch.zeros(4 if factor is a else len(b), 4 if factor is b else a.shape[1])
                    place[: factor.shape[0], : factor.shape[1]] = factor
                    split[stacked].append(place[None, None])
            for name, value in split.items():
                setattr(module, name, value)
            return module

        layers = {
            "qkv_proj": wrapped("q_proj", "k_proj", "v_proj", num_kv_head_replicas=copies),
            "gate_up": wrapped("gate", "up"),
            "down": wrapped("down"),
        }
        model = nn.ModuleDict({"a": nn.ModuleDict(layers)})
        held = dict(find_factors(model, PACKING, manifest.shapes))
        assert held.keys() == sent.keys()
        sums = read({name: checksum(part.view, part.row, part.column) for name, part in held.items()})
        parts = {name: (part.row, part.column, sums[name] or 0) for name, part in held.items()}
        receipts.append({"version": 1, "checksums": parts, "unsent": []})
    manifest.check(receipts, 1)  # type: ignore[arg-type]
    # Without room for the rank there is none.
    wide = {name: [5, s[1]] if "lora_A" in name else [s[0], 5] for name, s in manifest.shapes.items()}
    assert dict(find_factors(model, PACKING, wide)) == {}
