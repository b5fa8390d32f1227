"""Reward shaping, by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ecrl.algorithm import shaping
from ecrl.algorithm.advantages import dr_grpo, reinforce_pp
from ecrl.algorithm.objective import Filters, Objective
from tests.support.tokens import make_episodes


def test_overlong_penalty() -> None:
    """Limit 10, buffer 4: free up to 6 tokens, −¼ a token from there, −1 at the limit."""
    episodes = make_episodes([1.0] * 5, [0] * 5, lengths=[2, 6, 7, 10, 12])
    added = shaping.overlong_penalty(episodes, limit=10, buffer=4)
    assert added.tolist() == [0.0, 0.0, -0.25, -1.0, -1.0]


def test_length_penalty() -> None:
    added = shaping.length_penalty(make_episodes([0.0, 0.0], [0, 0], lengths=[2, 5]), coefficient=0.1)
    assert added.tolist() == pytest.approx([-0.2, -0.5])


def test_kl_penalty() -> None:
    episodes = make_episodes(
        [0.0, 0.0], [0, 0], lengths=[2, 1], logprobs=[-1.0, -2.0, -3.0],
        reference_logprobs=torch.tensor([-1.5, -2.5, -2.0]),
    )  # fmt: skip
    assert shaping.kl_penalty(episodes, coefficient=0.5).tolist() == pytest.approx([-0.5, 0.5])


def test_unlikeliness() -> None:
    """Mean log-probs −1, −2, −2, −3 of lengths 1, 2, 1, 1; the equals share the ranks 1 and 2; β = ½."""
    episodes = make_episodes(
        [1.0, 1.0, 0.5, 1.0, 1.0], [0, 0, 0, 0, 1], lengths=[1, 2, 1, 1, 1],
        logprobs=[-1.0, -1.5, -2.5, -2.0, -3.0, -0.1],
    )  # fmt: skip
    added = shaping.unlikeliness(episodes, coefficient=0.5)
    assert added.tolist() == pytest.approx([-0.5 * 3 / 4, -0.5 * 1.5 / 4, -0.25 * 1.5 / 4, 0.0, 0.0])
    assert not shaping.unlikeliness(episodes, coefficient=0.0).any()


def test_a_chain_adds_up_in_order_and_arrives_at_the_last_token() -> None:
    seen = []

    def double(episodes):  # type: ignore[no-untyped-def]
        seen.append(episodes.rewards.tolist())
        return episodes.rewards

    objective = Objective(estimator=dr_grpo, shaping={"one": double, "two": double})
    seen.clear()
    episodes = make_episodes([1.0, 0.0], [0, 0], lengths=[2, 1])
    assert objective.advantages(episodes).tolist() == [2.0, 2.0, -2.0]
    assert seen == [[1.0, 0.0], [2.0, 0.0]]
    whitened = Objective(estimator=reinforce_pp, shaping={"one": double}).advantages(episodes)
    assert whitened.tolist() == pytest.approx(
        Objective(estimator=reinforce_pp).advantages(episodes).tolist(), rel=1e-4
    )


def test_responses_that_were_cut_off_can_go_without_advantage() -> None:
    """Dr. GRPO's ±½ by hand; the masked response still counts in the baseline."""
    episodes = replace(
        make_episodes([1.0, 0.0], [0, 0], lengths=[2, 1]), truncated=torch.tensor([True, False])
    )
    assert Objective(estimator=dr_grpo).advantages(episodes).tolist() == [0.5, 0.5, -0.5]
    masked = Objective(estimator=dr_grpo, filters=Filters(mask_truncated=True))
    assert masked.advantages(episodes).tolist() == [0.0, 0.0, -0.5]


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda e: shaping.overlong_penalty(e, limit=4, buffer=5), "buffer"),
        (lambda e: shaping.overlong_penalty(e, limit=4, buffer=0), "buffer"),
        (lambda e: shaping.length_penalty(e, coefficient=-1.0), "coefficient"),
        (lambda e: shaping.kl_penalty(e, coefficient=float("nan")), "coefficient"),
        (lambda e: shaping.unlikeliness(e, coefficient=1.1), "coefficient"),
    ],
)
def test_values_out_of_range_are_refused(call, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=says):
        call(make_episodes([1.0], [0]))
    with pytest.raises(ValueError, match=f"objective.shaping.mine.*{says}"):
        Objective(shaping={"mine": call})
