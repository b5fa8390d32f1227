"""Checksums of weights, and receipts that must agree."""

from __future__ import annotations

from itertools import combinations

import pytest
import torch
from torch import Tensor

from ecrl.engines import checksum as module
from ecrl.engines.checksum import Part, Receipt, WeightManifest, checksum, read
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
    """Rows of an odd number of bfloat16 elements, in Python's own integers."""
    tensor = torch.randn(5, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    factors = [int(f) % 2**64 for f in module._factors(5, tensor.device)]
    assert all(f % 2 for f in factors)
    total = 0
    for row, down in zip(tensor, factors, strict=True):
        raw = row.view(torch.uint8).numpy().tobytes().ljust(16, b"\0")
        words = [int.from_bytes(raw[i : i + 8], "little") for i in (0, 8)]
        mixed = [w * f % 2**64 for w, f in zip(words, factors[:2], strict=True)]
        total += down * sum(x ^ (x >> 32) for x in mixed)
    assert number(tensor) % 2**64 == total % 2**64


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_sums_of_parts_add_up_to_that_of_the_whole(dtype: torch.dtype) -> None:
    tensor = torch.randn(10, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    vector = torch.randn(7).to(dtype)
    rows = [int(checksum(tensor[a:b].clone(), a)) for a, b in ((0, 3), (3, 10))]
    columns = [int(checksum(tensor[:, a:b].clone(), 0, a)) for a, b in ((0, 8), (8, 24))]
    numbers = [int(checksum(vector[a:b].clone(), a)) for a, b in ((0, 3), (3, 7), (7, 7))]
    for parts, whole in ((rows, tensor), (columns, tensor), (numbers, vector)):
        assert (sum(parts) - number(whole)) % 2**64 == 0
    # At another place the same part has another sum.
    assert number(tensor[3:].clone()) != rows[1] and number(tensor[:, 8:].clone()) != columns[1]


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
    honest = {"version": 3, "checksums": parts_of(manifest), "unsent": []}
    return Receipt(**{**honest, **changes})  # type: ignore[typeddict-item]


def parts_of(manifest: WeightManifest) -> dict[str, Part | None]:
    return {name: None if total is None else (0, 0, total) for name, total in read(manifest.sums).items()}


def test_a_receipt_must_agree() -> None:
    manifest = WeightManifest()
    sent = list(manifest.record([("a", torch.ones(2)), ("b", torch.zeros(3))], torch.bfloat16))
    assert [(n, t.dtype) for n, t in sent] == [("a", torch.bfloat16), ("b", torch.bfloat16)]
    assert manifest.shapes == {"a": [2], "b": [3]}
    manifest.check([receipt(manifest)], 3)
    for change, message in [
        ({"checksums": {**parts_of(manifest), "b": (0, 0, 1)}}, r"version 3: b \(1 of 2 tensors\)"),
        ({"checksums": {**parts_of(manifest), "a": None}}, r": a \(1 of 2"),
        ({"unsent": ["model.norm.weight"]}, "did not bring: model.norm.weight"),
        ({"version": 2}, "version 2, not 3"),
    ]:
        # One worker of several is enough.
        for receipts in ([receipt(manifest, **change)], [receipt(manifest), receipt(manifest, **change)]):
            with pytest.raises(EcrlError, match=message):
                manifest.check(receipts, 3)


def test_the_receipts_of_workers_add_up() -> None:
    """Four workers: each holds a quarter of one tensor, two the same half of another, all the third."""
    manifest = WeightManifest()
    tensors = {name: torch.randn(8, 8) for name in ("rows", "columns", "whole")}
    list(manifest.record(tensors.items(), torch.float32))

    def worker(rank: int, twice: int = 1) -> Receipt:
        rows, columns = slice(2 * rank, 2 * rank + 2), slice(4 * (rank // 2), 4 * (rank // 2) + 4)
        parts = {
            "rows": (rows.start, 0, int(checksum(tensors["rows"][rows], rows.start))),
            "columns": (0, columns.start, int(checksum(tensors["columns"][:, columns], 0, columns.start))),
            "whole": (0, 0, int(checksum(tensors["whole"])) * twice),
        }
        return Receipt(version=1, checksums=parts, unsent=[])

    manifest.check([worker(rank) for rank in range(4)], 1)
    with pytest.raises(EcrlError, match=r": rows \(1 of 3"):
        manifest.check([worker(rank) for rank in range(3)], 1)
    with pytest.raises(EcrlError, match=r": whole \(1 of 3"):
        manifest.check([worker(rank, twice=1 + rank // 3) for rank in range(4)], 1)
