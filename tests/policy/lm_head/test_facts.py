"""What is measured of a whole distribution, against hand-computed numbers and a plain softmax."""

from __future__ import annotations

from math import inf, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecrl.policy.lm_head import vocabulary_facts
from tests.support.lm_head import problem


def plain(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor, temperature: float, keep: float
) -> tuple[Tensor, Tensor, Tensor]:
    logits = torch.nn.functional.linear(hidden, weight, bias) / temperature
    chosen = logits.gather(1, targets[:, None]).squeeze(1)
    logp = torch.log_softmax(logits, -1)
    kept = logp >= logp.amax(1, keepdim=True) + log(keep)
    proxy = torch.log_softmax(logits.masked_fill(~kept, -inf), -1)
    return -logp.mean(1), chosen, proxy.gather(1, targets[:, None]).squeeze(1)


def test_hand_computed_values() -> None:
    # Probabilities 1/2, 1/4, 1/4: with keep = ½ all stay, with keep = .6 the first alone.
    weight, targets = torch.tensor([[log(2.0)], [0.0], [0.0]]), torch.tensor([0, 1])
    certainty, logit, proxy = vocabulary_facts(torch.ones(2, 1), weight, targets, keep=0.5)
    # logsumexp = log 4, mean logit = log(2)/3
    assert certainty.tolist() == pytest.approx([5 / 3 * log(2)] * 2, abs=1e-6)
    assert logit.tolist() == pytest.approx([log(2), 0], abs=1e-6)
    assert proxy.tolist() == pytest.approx([-log(2), -log(4)], abs=1e-6)
    assert vocabulary_facts(torch.ones(2, 1), weight, targets, keep=0.6)[2].tolist() == pytest.approx(
        [0, -inf]
    )


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(0, 20),
    v=st.integers(1, 40),
    d=st.integers(1, 6),
    chunk=st.integers(1, 900),
    temperature=st.floats(0.3, 3.0),
    keep=st.floats(0.01, 1.0),
    seed=st.integers(0, 1000),
)
def test_equals_the_plain_formula_for_any_shape_and_chunk(
    n: int, v: int, d: int, chunk: int, temperature: float, keep: float, seed: int
) -> None:
    inputs = problem(n, v, d, seed=seed)
    got = vocabulary_facts(**inputs, temperature=temperature, keep=keep, chunk_logits=chunk)
    expected = plain(**inputs, temperature=temperature, keep=keep)
    torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-9)
    assert not any(fact.requires_grad for fact in got)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_large_vocabulary_in_the_types_that_runs_use(dtype: torch.dtype) -> None:
    """As of float64 logits of the same operands: products are accumulated in float32."""
    inputs = problem(30, 5000, 64, dtype)
    wide = {name: x.double() if x.is_floating_point() else x for name, x in inputs.items()}
    got = vocabulary_facts(**inputs, keep=0.02, temperature=8.0, chunk_logits=4096)
    assert all(fact.dtype == torch.float32 for fact in got)
    expected = plain(**wide, temperature=8.0, keep=0.02)
    # A token within rounding of the floor may fall to either side.
    safe = (expected[2] == -inf) == (got[2] == -inf)
    assert safe.float().mean() > 0.9 and (expected[2] > -inf).any()
    for ours, theirs in zip(got, expected, strict=True):
        torch.testing.assert_close(ours[safe].double(), theirs[safe], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("keep", [0.0, 1.1])
def test_a_share_out_of_range_is_refused(keep: float) -> None:
    with pytest.raises(ValueError, match=rf"keep={keep}"):
        vocabulary_facts(**problem(2, 3, 1), keep=keep)
