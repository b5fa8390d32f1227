"""Covariance of log-probs and advantages, by tokens and by responses, by hand."""

from __future__ import annotations

from dataclasses import replace
from math import log

import pytest
import torch

from ecrl.algorithm.covariance import response_covariance, token_covariance
from tests.support.tokens import two_prompts


def test_token_covariance() -> None:
    got = token_covariance(torch.tensor([-1.0, -3.0, -2.0]), torch.tensor([1.0, -1.0, 3.0]))
    # means −2 and 1
    assert got.tolist() == pytest.approx([0.0, 2.0, 0.0], abs=1e-6)


def test_covariance_sign_tells_where_entropy_goes() -> None:
    """Two actions, one policy gradient step: positive covariance lowers the entropy, negative raises it."""
    for advantages in ([1.0, -1.0], [-1.0, 1.0]):
        logits = torch.tensor([log(0.8), log(0.2)], requires_grad=True)
        probs = logits.softmax(0)
        value = (probs * torch.tensor(advantages)).sum()
        (slope,) = torch.autograd.grad(value, logits)
        after = (logits + 0.01 * slope).softmax(0)
        change = (-(after * after.log()).sum() + (probs * probs.log()).sum()).detach()
        drawn = torch.tensor([0] * 8 + [1] * 2)
        cov = token_covariance(probs.log().detach()[drawn], torch.tensor(advantages)[drawn]).mean()
        assert float(cov) * float(change) < 0


def test_covariance_of_responses_by_hand() -> None:
    """Prompt 7: log π = (−2, −1, −3), A = (3, 0, 0): 0. Prompt 3: ½·1 twice over two. Prompt 9: alone."""
    tokens = two_prompts()
    groups, cov = response_covariance(tokens, tokens.logprobs.detach())
    assert groups.tolist() == [3, 7]
    assert cov.tolist() == pytest.approx([0.5, 0.0])
    longer = replace(tokens, advantages=torch.tensor([0.0, 0.0, 3.0, 0.0, 1.0, -1.0, 0.0]))
    # log π − mean = (0, 1, −1), A − mean = (−1, 2, −1): (0 + 2 + 1)/3.
    assert response_covariance(longer, tokens.logprobs.detach())[1].tolist() == pytest.approx([0.5, 1.0])
