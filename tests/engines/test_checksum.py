"""Checksums of weights, and receipts that must agree."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from ecrl.engines import checksum as module
from ecrl.engines.checksum import Receipt, WeightManifest, checksum, read
from ecrl.errors import EcrlError


def number(tensor: Tensor) -> int:
    return int(checksum(tensor))


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three words in a block, so that a small tensor has several."""
    monkeypatch.setattr(module, "_BLOCK", 3)


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_any_changed_or_swapped_element_changes_the_sum(dtype: torch.dtype) -> None:
    tensor = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    sums = {number(tensor)}
    for i in range(30):
        changed = tensor.clone()
        changed.view(-1)[i] += 0.25
        sums.add(number(changed))
    for i, j in combinations(range(30), 2):  # in a word, in a block, and between blocks
        swapped = tensor.clone().view(-1)
        swapped[[i, j]] = swapped[[j, i]]
        sums.add(number(swapped))
    assert len(sums) == 1 + 30 + 435
    assert number(tensor.clone()) == number(tensor) == number(tensor.t().contiguous().t())


@pytest.mark.usefixtures("_small_blocks")
def test_the_sum_is_the_formulas() -> None:
    """An odd number of bfloat16 elements, in Python's own integers."""
    tensor = torch.randn(29, generator=torch.Generator().manual_seed(0)).bfloat16()
    raw = tensor.view(torch.uint8).numpy().tobytes()
    words = [int.from_bytes(raw[i : i + 8], "little") for i in range(0, len(raw), 8)]
    factors = [int(f) % 2**64 for f in module._factors(3, tensor.device)]
    assert len(words) == 8 and all(f % 2 for f in factors)
    total = 0
    for b in range(3):
        mixed = [w * f % 2**64 for w, f in zip(words[3 * b : 3 * b + 3], factors, strict=False)]
        total += factors[b] * sum(x ^ (x >> 32) for x in mixed)
    assert number(tensor) % 2**64 == total % 2**64


def test_a_view_that_starts_within_a_word_has_the_sum_of_its_copy() -> None:
    tensor = torch.randn(9, 3).bfloat16()
    assert number(tensor[1:]) == number(tensor[1:].clone()) != number(tensor[:8])
    assert number(torch.empty(0)) == 0


def test_sums_are_read_together() -> None:
    tensors = {name: torch.randn(7) for name in "ab"}
    sums = {name: checksum(tensor) for name, tensor in tensors.items()}
    assert read({**sums, "gone": None}) == {"a": int(sums["a"]), "b": int(sums["b"]), "gone": None}
    assert read({}) == {} and read({"gone": None}) == {"gone": None}


def receipt(manifest: WeightManifest, **changes: object) -> Receipt:
    honest = {"version": 3, "checksums": read(manifest.sums), "unsent": []}
    return Receipt(**{**honest, **changes})  # type: ignore[typeddict-item]


def test_a_receipt_must_agree() -> None:
    manifest = WeightManifest()
    sent = list(manifest.record([("a", torch.ones(2)), ("b", torch.zeros(3))], torch.bfloat16))
    assert [(n, t.dtype) for n, t in sent] == [("a", torch.bfloat16), ("b", torch.bfloat16)]
    assert manifest.shapes == {"a": [2], "b": [3]}
    manifest.check(receipt(manifest), 3)
    for change, message in [
        ({"checksums": {**read(manifest.sums), "b": 1}}, r"version 3: b \(1 of 2 tensors\)"),
        ({"checksums": {**read(manifest.sums), "a": None}}, r": a \(1 of 2"),
        ({"unsent": ["model.norm.weight"]}, "did not bring: model.norm.weight"),
        ({"version": 2}, "version 2, not 3"),
    ]:
        with pytest.raises(EcrlError, match=message):
            manifest.check(receipt(manifest, **change), 3)
