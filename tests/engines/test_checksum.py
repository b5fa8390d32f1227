"""Checksums of weights, and receipts that must agree."""

from __future__ import annotations

import pytest
import torch

from ecrl.engines import checksum as module
from ecrl.engines.checksum import Receipt, WeightManifest, checksum
from ecrl.errors import EcrlError


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_any_changed_or_swapped_element_changes_the_sum(dtype: torch.dtype) -> None:
    tensor = torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).to(dtype)
    sums = {checksum(tensor)}
    for i in range(30):
        changed = tensor.clone()
        changed.view(-1)[i] += 0.25
        sums.add(checksum(changed))
    for i in range(29):
        swapped = tensor.clone().view(-1)
        swapped[[i, i + 1]] = swapped[[i + 1, i]]
        sums.add(checksum(swapped))
    assert len(sums) == 60
    assert checksum(tensor.clone()) == checksum(tensor) == checksum(tensor.t().contiguous().t())


def test_the_sum_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.arange(1000.0)
    whole = checksum(tensor)
    monkeypatch.setattr(module, "_CHUNK", 7)
    assert checksum(tensor) == whole


def receipt(manifest: WeightManifest, **changes: object) -> Receipt:
    honest = {"version": 3, "checksums": dict(manifest.checksums), "unsent": []}
    return Receipt(**{**honest, **changes})  # type: ignore[typeddict-item]


def test_a_receipt_must_agree() -> None:
    manifest = WeightManifest()
    sent = list(manifest.record([("a", torch.ones(2)), ("b", torch.zeros(3))], torch.bfloat16))
    assert [(n, t.dtype) for n, t in sent] == [("a", torch.bfloat16), ("b", torch.bfloat16)]
    assert manifest.shapes == {"a": [2], "b": [3]}
    manifest.check(receipt(manifest), 3)
    for change, message in [
        ({"checksums": {**manifest.checksums, "b": 1}}, r"version 3: b \(1 of 2 tensors\)"),
        ({"checksums": {**manifest.checksums, "a": None}}, r": a \(1 of 2"),
        ({"unsent": ["model.norm.weight"]}, "did not bring: model.norm.weight"),
        ({"version": 2}, "version 2, not 3"),
    ]:
        with pytest.raises(EcrlError, match=message):
            manifest.check(receipt(manifest, **change), 3)
