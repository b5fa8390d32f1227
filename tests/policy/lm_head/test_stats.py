"""The chunked LM head against hand-computed numbers and against the plain formula."""

from __future__ import annotations

from itertools import product
from math import log
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ecrl.policy.lm_head import token_stats
from tests.support.lm_head import gradients, plain, problem

# Three tokens with probabilities 1/2, 1/4, 1/4: entropy 1.5 bits.
HALVES = torch.tensor([[log(2.0)], [0.0], [0.0]])


def test_hand_computed_values() -> None:
    logprobs, entropy = token_stats(torch.ones(3, 1), HALVES, torch.tensor([0, 1, 2]))
    assert logprobs.tolist() == pytest.approx([-log(2), -log(4), -log(4)], abs=1e-6)
    assert entropy.tolist() == pytest.approx([1.5 * log(2)] * 3, abs=1e-6)


def test_hand_computed_gradients() -> None:
    bias = torch.zeros(3, requires_grad=True)
    logprobs, entropy = token_stats(torch.ones(1, 1), HALVES, torch.tensor([1]), bias=bias)
    # onehot − p
    assert torch.autograd.grad(logprobs.sum(), bias, retain_graph=True)[0].tolist() == pytest.approx(
        [-0.5, 0.75, -0.25], abs=1e-6
    )
    # −p·(log p + H), with H = 1.5·log 2
    assert torch.autograd.grad(entropy.sum(), bias)[0].tolist() == pytest.approx(
        [-0.25 * log(2), 0.125 * log(2), 0.125 * log(2)], abs=1e-6
    )


def test_temperature_and_bias_by_hand() -> None:
    # (0 + log 16) / 2 = log 4 against two zeros: probabilities 4/6, 1/6, 1/6
    bias = torch.tensor([log(16.0), 0.0, 0.0])
    logprobs, entropy = token_stats(torch.zeros(1, 1), HALVES, torch.tensor([0]), temperature=2.0, bias=bias)
    assert logprobs.item() == pytest.approx(log(4 / 6), abs=1e-6)
    assert entropy.item() == pytest.approx(-(4 / 6) * log(4 / 6) - (2 / 6) * log(1 / 6), abs=1e-6)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 20),
    v=st.integers(1, 40),
    d=st.integers(1, 6),
    chunk=st.integers(1, 900),
    temperature=st.floats(0.3, 3.0),
    with_bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_equals_the_plain_formula_for_any_shape_and_chunk(
    n: int, v: int, d: int, chunk: int, temperature: float, with_bias: bool, seed: int
) -> None:
    inputs = problem(n, v, d, seed=seed)
    if not with_bias:
        del inputs["bias"]
    g, k = torch.randn(2, n, dtype=torch.float64)
    expected = plain(**inputs, temperature=temperature)
    got = token_stats(**inputs, temperature=temperature, chunk_logits=chunk)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(
        gradients(token_stats, inputs, g, k, temperature=temperature, chunk_logits=chunk),
        gradients(plain, inputs, g, k, temperature=temperature),
        rtol=1e-9,
        atol=1e-9,
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_gradcheck(temperature: float) -> None:
    inputs = problem(5, 11, 3)
    targets = inputs.pop("targets")

    def function(hidden: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        return token_stats(hidden, weight, targets, bias=bias, temperature=temperature, chunk_logits=12)

    assert torch.autograd.gradcheck(function, tuple(inputs.values()))


def test_float32_stays_close_where_the_distribution_is_sharp() -> None:
    inputs = {k: v if k == "targets" else (v * 6).detach() for k, v in problem(64, 500, 8).items()}
    single = {k: v if k == "targets" else v.float() for k, v in inputs.items()}
    logprobs, entropy = token_stats(**single, chunk_logits=1000)
    assert logprobs.dtype == entropy.dtype == torch.float32
    expected = plain(**inputs)
    torch.testing.assert_close(logprobs.double(), expected[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(entropy.double(), expected[1], rtol=1e-4, atol=1e-5)
    assert (entropy >= 0).all() and (logprobs <= 1e-5).all()


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")),
    ],
)
def test_half_precision_inputs_give_float32_from_float32_logits(device: str) -> None:
    inputs = problem(32, 300, 16, torch.float32)
    half = {
        k: v.to(device) if k == "targets" else v.detach().to(device, torch.bfloat16).requires_grad_()
        for k, v in inputs.items()
    }
    wide = {k: v if k == "targets" else v.detach().float().requires_grad_() for k, v in half.items()}
    got = token_stats(**half, chunk_logits=2000)
    assert [t.dtype for t in got] == [torch.float32] * 2
    # Rounding the logits themselves to bfloat16 would cost about 1e-2.
    torch.testing.assert_close(got, plain(**wide), rtol=1e-5, atol=1e-4)
    g, k = torch.randn(2, 32, device=device)
    actual = gradients(token_stats, half, g, k, chunk_logits=2000)
    assert [t.dtype for t in actual] == [torch.bfloat16] * 3
    for a, b in zip(actual, gradients(plain, wide, g, k), strict=True):
        torch.testing.assert_close(a.float(), b, rtol=2e-2, atol=3e-2)


def test_autocast_changes_nothing_on_a_cpu() -> None:
    inputs = problem(9, 50, 4, torch.float32)
    g, k = torch.randn(2, 9)
    expected = token_stats(**inputs), gradients(token_stats, inputs, g, k)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = token_stats(**inputs), gradients(token_stats, inputs, g, k)
    torch.testing.assert_close(got, expected, rtol=0, atol=0)


@pytest.mark.parametrize("needs", [c for c in product([True, False], repeat=3) if any(c)])
def test_gradients_only_where_they_are_asked_for(needs: tuple[bool, ...]) -> None:
    inputs = problem(7, 20, 3)
    for name, need in zip(["hidden", "weight", "bias"], needs, strict=True):
        inputs[name].requires_grad_(need)
    g, k = torch.randn(2, 7, dtype=torch.float64)
    torch.testing.assert_close(
        gradients(token_stats, inputs, g, k, chunk_logits=30), gradients(plain, inputs, g, k)
    )


@pytest.mark.parametrize("which", ["logprobs", "entropy"])
def test_one_output_alone(which: str) -> None:
    inputs = problem(7, 20, 3)
    index = ["logprobs", "entropy"].index(which)
    leaves = [inputs[name] for name in ("hidden", "weight", "bias")]
    got = torch.autograd.grad(token_stats(**inputs, chunk_logits=30)[index].sum(), leaves)
    torch.testing.assert_close(got, torch.autograd.grad(plain(**inputs)[index].sum(), leaves))


class Trace(TorchDispatchMode):
    """Counts the numbers multiplied, and remembers the largest tensor made."""

    def __init__(self) -> None:
        super().__init__()
        self.largest = self.flops = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.largest = max(self.largest, result.untyped_storage().nbytes() // result.element_size())
        if func is torch.ops.aten.addmm_.default:
            self.flops += 2 * args[1].numel() * args[2].shape[1]
        return result


def trace_backward(inputs: dict[str, Tensor], g: Tensor, k: Tensor) -> Trace:
    loss = sum((a * b).sum() for a, b in zip(token_stats(**inputs, chunk_logits=64), (g, k), strict=True))
    assert isinstance(loss, Tensor)
    with Trace() as trace:
        loss.backward()
    return trace


def test_rows_without_upstream_gradient_are_skipped() -> None:
    n, v, d = 12, 30, 4
    inputs = problem(n, v, d)
    g, k = torch.randn(2, n, dtype=torch.float64)
    g[[0, 3, 4, 9]] = 0
    k[[0, 3, 5, 9]] = 0
    torch.testing.assert_close(
        gradients(token_stats, inputs, g, k, chunk_logits=64), gradients(plain, inputs, g, k)
    )
    # Rows 0, 3 and 9 get neither gradient; three products are left for each of the nine others.
    assert trace_backward(inputs, g, k).flops == 3 * 2 * (n - 3) * v * d
    nothing = torch.zeros(n, dtype=torch.float64)
    assert trace_backward(problem(n, v, d), nothing, nothing).flops == 0


def test_skipped_rows_in_half_precision() -> None:
    made = problem(6, 20, 3, torch.float32)
    half = {k: t if k == "targets" else t.detach().bfloat16().requires_grad_() for k, t in made.items()}
    d_hidden = gradients(token_stats, half, torch.tensor([1.0, 0, 1, 1, 0, 1]), torch.zeros(6))[0]
    assert d_hidden.dtype == torch.bfloat16
    assert d_hidden.abs().sum(1).bool().tolist() == [True, False, True, True, False, True]


def test_never_holds_the_logits() -> None:
    n, v, d = 64, 128, 4
    inputs = problem(n, v, d)
    saved: list[int] = []

    def pack(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    with Trace() as trace, torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        logprobs, entropy = token_stats(**inputs, chunk_logits=100)
        (logprobs + entropy).sum().backward()
    # Weight, hidden, their gradients, two tiles: far below the 8,192 logits.
    assert trace.largest <= v * d
    assert max(saved) <= v * d


def test_no_grad_saves_nothing() -> None:
    with torch.no_grad():
        logprobs, entropy = token_stats(**problem(4, 9, 3))
    assert logprobs.grad_fn is None and not entropy.requires_grad


def test_no_tokens() -> None:
    inputs = problem(0, 9, 3)
    logprobs, entropy = token_stats(**inputs)
    assert logprobs.shape == entropy.shape == (0,)
    (logprobs.sum() + entropy.sum()).backward()
    weight = inputs["weight"]
    assert weight.grad is not None and weight.grad.abs().sum() == 0


def test_a_target_outside_the_vocabulary_is_not_a_number() -> None:
    logprobs, _ = token_stats(torch.ones(2, 1), HALVES, torch.tensor([3, 0]))
    assert logprobs[0].isnan() and not logprobs[1].isnan()


@pytest.mark.parametrize(
    "change",
    [
        {"hidden": torch.ones(2, 2, 1)},
        {"targets": torch.zeros(3, dtype=torch.long)},
        {"bias": torch.zeros(2)},
        {"temperature": 0.0},
        {"chunk_logits": 0},
    ],
)
def test_bad_input_is_refused(change: dict[str, Any]) -> None:
    fine: dict[str, Any] = {"hidden": torch.ones(2, 1), "weight": HALVES, "targets": torch.tensor([0, 1])}
    token_stats(**fine)
    with pytest.raises(ValueError, match="token_stats got"):
        token_stats(**{**fine, **change})
