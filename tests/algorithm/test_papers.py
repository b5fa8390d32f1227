"""Every shipped objective and estimator against a second implementation, written from the papers.

Random responses: groups of one to eight, of one to nine tokens in one to three turns, with policies that
moved a little and policies that moved far.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from ecrl.algorithm import advantages as estimators
from ecrl.algorithm.loss_plan import make_loss_plan, planned_loss
from ecrl.algorithm.objective import Objective
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.config.targets import build
from ecrl.engines.base import Completion
from ecrl.rollout.batching import build_batch, with_advantages
from ecrl.rollout.trajectory import Trajectory, Turn
from tests.support.papers import ESTIMATORS, LENGTH, OBJECTIVES, Response

CASES = pytest.mark.parametrize(("seed", "moved"), [(0, 1e-4), (1, 0.02), (2, 0.3), (3, 1.5)])


def random_batch(seed: int) -> RolloutBatch:
    """Trajectories as a rollout leaves them; half of the rewards are 0 or 1, half are any number."""
    random = torch.Generator().manual_seed(seed)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=random))

    trajectories: list[Trajectory] = []
    for problem in range(8):
        binary = problem % 2 == 0
        for copy in range(whole(1, 8)):
            turns = []
            for _ in range(whole(1, 3)):
                size = whole(1, 3)
                logprobs = (-3 * torch.rand(size, generator=random)).tolist()
                reward = float(whole(0, 1)) if binary else float(torch.randn(1, generator=random))
                ids = [whole(3, 90) for _ in range(size)]
                turns.append(Turn([], Completion(ids, logprobs, [1.0] * size, "stop", 0), reward))
            total = sum(turn.reward for turn in turns)
            trajectories.append(Trajectory([5], turns, problem, copy, total, True, False, {}, None, "", ""))
    batch = build_batch(trajectories, iteration=0)
    process = 0.3 * torch.randn(batch.num_tokens, generator=random)
    return replace(batch, columns={"process_rewards": process})


def responses(batch: RolloutBatch, leaves: torch.Tensor) -> list[Response]:
    """The same responses for the second implementation; log-probs are elements of ``leaves``, float64."""
    found, start = [], 0
    for i, size in enumerate(batch.lengths.tolist()):
        span = slice(start, start + size)
        found.append(
            Response(
                prompt=int(batch.group_ids[i]),
                reward=float(batch.rewards[i]),
                rewards=batch.token_rewards[span].tolist(),
                new=list(leaves[span]),
                old=batch.old_logprobs[span].tolist(),
                process=batch.columns["process_rewards"][span].tolist(),
            )
        )
        start += size
    return found


@CASES
@pytest.mark.parametrize("name", ESTIMATORS)
def test_advantages_agree(name: str, seed: int, moved: float) -> None:
    batch = random_batch(seed)
    got = getattr(estimators, name)(batch.episodes())
    if len(got) == len(batch) != batch.num_tokens:
        got = got[batch.sequence_ids]
    expected = [a for own in ESTIMATORS[name](responses(batch, batch.old_logprobs.double())) for a in own]
    assert got.tolist() == pytest.approx(expected, rel=1e-5, abs=2e-6)


@CASES
@pytest.mark.parametrize("name", OBJECTIVES)
def test_losses_and_gradients_agree(name: str, seed: int, moved: float) -> None:
    config = build_config([f"objective={name}", f"rollout.max_new_tokens={LENGTH}", "strategy=[]"])
    objective: Objective = build(config.objective)
    batch = with_advantages(random_batch(seed), objective)
    step = moved * torch.randn(batch.num_tokens, generator=torch.Generator().manual_seed(seed + 100))
    logprobs = (batch.old_logprobs + step).clamp(max=-1e-3).requires_grad_()
    tokens: Any = batch.tokens(0, 1 - objective.bounds.low, 1 + objective.bounds.high)
    plan = make_loss_plan(tokens, objective, [])
    loss = planned_loss(replace(plan.tokens, logprobs=logprobs), plan, objective, [])
    loss.backward()

    leaves = logprobs.detach().double().requires_grad_()
    expected = OBJECTIVES[name](responses(batch, leaves))
    expected.backward()
    assert logprobs.grad is not None and leaves.grad is not None
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)
    assert (logprobs.grad - leaves.grad).norm() <= 1e-5 * leaves.grad.norm() + 1e-9
    assert leaves.grad.norm() > 1e-6


def test_every_shipped_objective_and_estimator_has_a_second_implementation() -> None:
    assert set(OBJECTIVES) == set(options("objective"))
    shipped = estimators.GROUP_ESTIMATORS + estimators.AT_K_ESTIMATORS
    assert {function.__name__ for function in shipped} < set(ESTIMATORS)
