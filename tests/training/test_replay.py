"""A replayed update is the run's own: the same tokens, weights, coefficients and metrics."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecrl.algorithm.loss_plan import LossPlan
from ecrl.config.resume import forked_config, run_config
from ecrl.errors import UsageError
from ecrl.training.module import PolicyModule
from ecrl.training.replay import Replay, replay
from ecrl.training.replayed_tokens import replayed_tokens
from ecrl.training.run import train
from tests.support.runs import history, run, silent
from tests.support.tiny import LEARNING, TINY

WIDE = "strategy.clip_cov={low: 0.0, high: 100.0}"
STACK = [
    "strategy=[clip_cov,kl_cov,adaptive_entropy,lp_reg]",
    "strategy.clip_cov.fraction=0.1",
    WIDE,
    "strategy.kl_cov.fraction=0.2",
    "strategy.adaptive_entropy.target=9.0",
    "strategy.lp_reg={fraction: 1.0, keep: 0.3}",
]
ITERATIONS = 3
Plans = dict[int, list[LossPlan]]


@contextmanager
def recording(plans: Plans) -> Iterator[None]:
    """Keep the plans of what is trained within the block, by iteration."""
    observe = PolicyModule._observe_plan

    def keep(module: PolicyModule, plan: LossPlan, batch: Any) -> None:
        plans.setdefault(module.iteration + 1, []).append(plan)
        observe(module, plan, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PolicyModule, "_observe_plan", keep)
        yield


def record(run_dir: Path, model: Path, *words: str) -> tuple[Path, Plans]:
    """Train with each token on disk; return the plans of every iteration too."""
    plans: Plans = {}
    with recording(plans):
        base = [*TINY, *LEARNING, f"model.path={model}", "log.rollout_tokens=true"]
        words = (f"iterations={ITERATIONS}", "checkpoint={every: 1, keep: 9}", *words)
        return run(base, run_dir, *words), plans


@pytest.fixture(scope="module")
def recorded(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Plans]]:
    yield record(tmp_path_factory.mktemp("replay") / "run", tiny_model, *STACK)


def again(run_dir: Path, iteration: int, *overrides: str, measured: bool = False) -> Replay:
    """Replay; ``measured`` takes nothing of the run's strategies from the part."""
    own = {} if measured else run_config(run_dir, []).strategy
    return replay(run_dir, run_config(run_dir, list(overrides)), iteration, own)


def assert_same_plans(got: Replay, want: list[LossPlan]) -> None:
    assert len(got.minibatches) == len(want) > 1
    for minibatch, plan in zip(got.minibatches, want, strict=True):
        mine = minibatch.plan
        assert torch.equal(mine.tokens.token_ids, plan.tokens.token_ids)
        assert torch.equal(mine.tokens.advantages, plan.tokens.advantages)
        assert torch.equal(mine.weights, plan.weights)
        assert mine.coefficients.keys() == plan.coefficients.keys()
        assert all(torch.equal(mine.coefficients[n], plan.coefficients[n]) for n in plan.coefficients)
        assert mine.changed.keys() == plan.changed.keys()
        assert all(torch.equal(mine.changed[n], plan.changed[n]) for n in plan.changed)


@pytest.mark.parametrize("iteration", [1, ITERATIONS])
def test_the_runs_own_strategies_choose_the_same(recorded: tuple[Path, Plans], iteration: int) -> None:
    run_dir, plans = recorded
    got = again(run_dir, iteration)
    assert_same_plans(got, plans[iteration])
    row = history(run_dir)[iteration - 1]
    assert row["iteration"] == iteration
    for name in ("clip_cov", "kl_cov", "adaptive_entropy", "lp_reg"):
        shares = [m.plan.changed_fraction[name] for m in got.minibatches]
        assert np.mean(shares) == pytest.approx(row[f"strategy/{name}/fraction"], rel=1e-12)
        assert any(share > 0 for share in shares)
    coefficient = got.strategies[2].logged_coefficient()
    assert coefficient == row["strategy/adaptive_entropy/coefficient"]
    (note,) = got.notes  # and no pass of the policy was needed
    assert note.startswith("adaptive_entropy: the state began at the initial one and followed")


def test_passes_of_the_policy_take_the_checkpoint_before(recorded: tuple[Path, Plans]) -> None:
    run_dir, plans = recorded
    got = again(run_dir, ITERATIONS, measured=True)
    assert_same_plans(got, plans[ITERATIONS])
    (note,) = [note for note in got.notes if "weights of" in note]
    assert note.endswith(f"the checkpoint {run_dir / 'checkpoints' / str(ITERATIONS - 1)}, the run's own.")


def test_another_strategy_on_the_same_rollout(recorded: tuple[Path, Plans]) -> None:
    run_dir, plans = recorded
    got = again(run_dir, 2, "strategy=[clip_cov,reference_kl]", "strategy.clip_cov.fraction=0.05", WIDE)
    first, own = got.minibatches[0], plans[2][0]
    assert torch.equal(first.tokens.logprobs, own.tokens.old_logprobs)
    assert first.plan.changed_fraction["clip_cov"] == pytest.approx(0.05, abs=0.01)
    assert any("weights of" in note for note in got.notes)
    tokens = replayed_tokens(got)
    assert len(tokens.text) == sum(len(plan.tokens) for plan in plans[2])
    weights = torch.cat([m.plan.weights for m in got.minibatches])
    assert tokens.changed["clip_cov"] == (weights == 0).nonzero().flatten().tolist()
    i = tokens.changed["clip_cov"][0]
    assert tokens.done[i] == "clip_cov: weight 1 → 0; reference_kl: penalty 0.001" and tokens.weight[i] == 0


@pytest.mark.slow
@pytest.mark.parametrize("old", ["recompute", "engine"])
def test_rollouts_drawn_ahead(old: str, tiny_model: Path, tmp_path: Path) -> None:
    words = ["strategy=[kl_cov,importance_correction]", "strategy.kl_cov.fraction=0.2"]
    words += ["rollout.staleness=1", f"rollout.old_logprobs={old}"]
    run_dir, plans = record(tmp_path / "run", tiny_model, *words)
    for iteration in (1, ITERATIONS):
        assert_same_plans(again(run_dir, iteration), plans[iteration])


@pytest.mark.slow
def test_a_fork_is_measured_with_the_checkpoint_that_it_began_with(
    recorded: tuple[Path, Plans], tmp_path: Path
) -> None:
    parent = recorded[0]
    plans: Plans = {}
    with recording(plans):
        words = [f"fork={parent}", "checkpoint=2", "iterations=1", f"run_dir={tmp_path / 'fork'}"]
        fork = train(forked_config(words), silent).run_dir
    folder = parent / "checkpoints" / "2"
    got = replay(fork, run_config(fork, []), 1, {}, folder)
    assert_same_plans(got, plans[1])
    assert any(note.endswith(f"the checkpoint {folder}, the run's own.") for note in got.notes)


def test_what_cannot_be_replayed(finished_run: Path, recorded: tuple[Path, Plans]) -> None:
    with pytest.raises(UsageError, match=r"kept no tokens of iteration 1 .*no checkpoint before iteration 1"):
        again(finished_run, 1)
    with pytest.raises(UsageError, match=r"no rollouts of iteration 9; it has those of 1, 2, 3"):
        again(recorded[0], 9)
