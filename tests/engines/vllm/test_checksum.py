"""Checksums and deadlines, which need no vLLM."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from ecrl.engines import checksum as module
from ecrl.engines.checksum import Receipt, WeightManifest, checksum
from ecrl.engines.vllm.requirements import require_vllm
from ecrl.engines.vllm.worker import find_weights
from ecrl.errors import EcrlError, UsageError


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


def test_stacked_tensors_are_found_by_their_rows() -> None:
    q, k, v, table = torch.randn(4, 3), torch.randn(2, 3), torch.randn(2, 3), torch.randn(8, 3)
    parameters = {"a.qkv_proj.weight": torch.cat([q, k, v]), "e.weight": table, "head.weight": table}
    shapes = {
        "a.q_proj.weight": [4, 3],
        "a.k_proj.weight": [2, 3],
        "a.v_proj.weight": [2, 3],
        "e.weight": [5, 3],
    }
    packing = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
    views, unsent = find_weights(parameters, packing, {**shapes, "gone.weight": [2]})
    # A padded vocabulary counts without its padding, and the tied head came with it.
    expected = {"a.q_proj.weight": q, "a.k_proj.weight": k, "a.v_proj.weight": v, "e.weight": table[:5]}
    assert views.keys() == expected.keys() and unsent == []
    assert all(torch.equal(views[name], tensor) for name, tensor in expected.items())
    # What is packed away has no rows left; a missing part of a stack is missed.
    assert find_weights({"e.weight": torch.empty(0)}, packing, {"e.weight": [5, 3]}) == ({}, [])
    del shapes["a.v_proj.weight"], shapes["e.weight"]
    assert find_weights(parameters, packing, shapes)[1] == ["a.v_proj.weight", "e.weight", "head.weight"]


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


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is here")
def test_a_missing_vllm_is_one_line() -> None:
    with pytest.raises(UsageError, match=r"not installed: pip install 'ecrl\[vllm\]'"):
        require_vllm()


def test_a_call_that_hangs_ends_the_process_and_says_why() -> None:
    script = """
import time
from ecrl.distributed.watchdog import watchdog
with watchdog(60, "A quick call"):
    pass
with watchdog(0.2, "A slow call"):
    time.sleep(60)
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=50)
    assert result.returncode == 1
    assert "A slow call did not return within 0.2 s" in result.stderr
    assert "line 7 in <module>" in result.stderr
