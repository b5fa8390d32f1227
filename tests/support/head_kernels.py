"""The Triton kernels against the torch path; ``test_kernels.py`` runs this in a separate process."""

from __future__ import annotations

from itertools import product

import pytest
import torch
from torch import Tensor

from ecrl.policy.lm_head import tiles, token_stats
from ecrl.policy.lm_head.eager import Eager
from ecrl.policy.lm_head.kernels import BLOCK, Fused
from tests.support.lm_head import gradients, plain, problem

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
CASES = ["logprobs", "entropy", "both", "some rows zero"]


def upstream_of(case: str, n: int) -> tuple[Tensor, Tensor]:
    g, k = torch.randn(2, n, device=DEVICE)
    if case == "logprobs":
        k = torch.zeros_like(k)
    elif case == "entropy":
        g = torch.zeros_like(g)
    elif case == "some rows zero":
        g[[0, 2, 3]] = 0
        k[[0, 3, 5]] = 0
    return g, k


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("n, v, d, chunk", [(7, 2 * BLOCK + 451, 5, 20_000), (9, 37, 3, 50), (6, 1, 2, None)])
def test_token_stats_equals_the_plain_formula(
    n: int, v: int, d: int, chunk: int | None, case: str, with_bias: bool, dtype: torch.dtype
) -> None:
    made = problem(n, v, d, torch.float32)
    inputs = {k: t.detach().to(DEVICE, dtype if t.is_floating_point() else t.dtype) for k, t in made.items()}
    if not with_bias:
        del inputs["bias"]
    for tensor in inputs.values():
        tensor.requires_grad_(tensor.is_floating_point())
    wide = {
        k: t.detach().double().requires_grad_() if t.is_floating_point() else t for k, t in inputs.items()
    }
    g, k = upstream_of(case, n)
    settings = {"temperature": 0.7}
    expected = [t.float() for t in plain(**wide, **settings)]
    got = token_stats(**inputs, **settings, chunk_logits=chunk)
    torch.testing.assert_close(list(got), expected, rtol=1e-5, atol=2e-5)
    half = dtype == torch.bfloat16
    tolerance = {"rtol": 2e-2, "atol": 3e-2} if half else {"rtol": 1e-4, "atol": 2e-5}
    for actual, reference in zip(
        gradients(token_stats, inputs, g, k, **settings, chunk_logits=chunk),
        gradients(plain, wide, g, k, **settings),
        strict=True,
    ):
        assert actual.dtype == dtype
        torch.testing.assert_close(actual.double(), reference, **tolerance)


@pytest.mark.parametrize("case, with_bias", product(CASES, [False, True]))
def test_a_tile_is_treated_as_torch_treats_it(case: str, with_bias: bool) -> None:
    n, w, d = 8, BLOCK + 3, 4
    inputs = {k: t.detach().to(DEVICE) for k, t in problem(n, w, d, torch.float32, seed=1).items()}
    column = inputs["targets"]
    column[:3] = torch.tensor([-1, w, w - 1])  # the first two are in other tiles
    bias = inputs["bias"] if with_bias else None
    tile = tiles.Tile(inputs["hidden"], inputs["weight"], bias, column, scale=1.9)
    eager, fused = Eager(n * w, torch.float32, DEVICE), Fused()
    # A state that comes from another tile, with a stride that is not its own length.
    states = torch.rand(2, 4, n + 5, device=DEVICE)[:, :, 2 : n + 2]
    states[1] = states[0]
    eager.fold(tile, states[0])
    fused.fold(tile, states[1])
    torch.testing.assert_close(states[1], states[0], rtol=1e-5, atol=1e-5)
    top, _, mass, _ = states[0]
    g, k = upstream_of(case, n)
    grad_entropy = None if case == "logprobs" else k
    upstream = tiles.Upstream(top + mass.log2(), torch.rand(n, device=DEVICE), g, grad_entropy)
    expected = eager.grad_logits(tile, upstream).clone()
    torch.testing.assert_close(fused.grad_logits(tile, upstream), expected, rtol=1e-5, atol=1e-5)


def test_the_kernels_are_chosen() -> None:
    def chosen(dtype: torch.dtype) -> type:
        tensor = torch.zeros(1, 1, dtype=dtype, device=DEVICE)
        return type(
            tiles.Head(tensor, tensor, None, tensor[0].long(), 1.0, None, dtype, operand=dtype).backend
        )

    assert chosen(torch.float32) is Fused
    assert chosen(torch.float64) is Eager
