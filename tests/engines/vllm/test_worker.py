"""How a worker finds the weights that it got; needs no vLLM."""

from __future__ import annotations

import torch

from ecrl.engines.vllm.worker import find_weights


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
