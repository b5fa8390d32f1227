"""Which passes an iteration makes, and what it knows without them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.policy.model import PolicyModel
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.preflight import preflight
from ecrl.training.run import train
from tests.support.conformance import gradient, make_batch, make_module
from tests.support.runs import silent

ROUNDED = "engine._target_=tests.support.engines.RoundedEngine"
LEFT = "rollout.old_logprobs=engine"


@contextmanager
def counted_passes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Collect, for each forward pass of a policy, whether it builds a graph."""
    passes: list[bool] = []
    forward = PolicyModel.forward

    def counted(self: PolicyModel, *args: object) -> object:
        scores = forward(self, *args)  # type: ignore[arg-type]
        passes.append(scores[0].requires_grad)
        return scores

    with monkeypatch.context() as patch:
        patch.setattr(PolicyModel, "forward", counted)
        yield passes


@pytest.mark.parametrize(
    ("strategy", "fresh", "own", "without_gradient"),
    [
        ("kl_cov", False, True, 2),  # needs the current policy
        ("kl_cov", True, True, 0),  # which the stored log-probs are
        ("kl_cov", True, False, 2),  # unless they are the engine's
        ("clip_higher", False, True, 0),
    ],
)
def test_planning_takes_the_first_pass_of_the_update(
    tiny: Callable[..., Config],
    monkeypatch: pytest.MonkeyPatch,
    strategy: str,
    fresh: bool,
    own: bool,
    without_gradient: int,
) -> None:
    config = tiny(f"strategy=[{strategy}]", "update.max_tokens=60")
    module = make_module(config, build_strategies(config.strategy))
    batch = replace(make_batch(module), fresh=fresh, own_logprobs=own)
    with counted_passes(monkeypatch) as passes:
        in_parts, flat, _ = gradient(module, batch)
    assert passes.count(True) == 3 and passes.count(False) == without_gradient
    assert passes[0], "the first pass builds the graph that the update uses"
    config.update.max_tokens = 10**6
    with counted_passes(monkeypatch) as passes:
        at_once, whole, _ = gradient(module, batch)
    assert passes == [True]
    assert in_parts == pytest.approx(at_once, rel=1e-5)
    assert (flat - whole).norm() <= 1e-5 * whole.norm()


def test_old_logprobs_left_to_the_engine_cost_no_pass_and_hide_nothing(
    tiny: Callable[..., Config], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, count = {}, {}
    for kind in ("recompute", "engine"):
        config = tiny(ROUNDED, f"rollout.old_logprobs={kind}", "iterations=1", "update.minibatches=1")
        config.run_dir = f"{config.run_dir}-{kind}"
        with counted_passes(monkeypatch) as passes:
            (rows[kind],) = read_metrics(train(config, silent).run_dir / "metrics.jsonl")
        count[kind] = len(passes)
    assert count == {"recompute": 2, "engine": 1}
    # The one minibatch is the rollout, so its own pass tells the same.
    for name in ("policy/entropy", "mismatch/kl", "mismatch/max", "mismatch/outside"):
        assert rows["engine"][name] == pytest.approx(rows["recompute"][name], rel=1e-4, abs=1e-9), name
    assert rows["engine"]["mismatch/max"] > 1e-4
    # The ratio is taken to what drew the tokens.
    assert rows["recompute"]["policy/ratio"] == pytest.approx(1, abs=1e-6)
    assert abs(rows["engine"]["policy/ratio"] - 1) > 1e-5


@pytest.mark.parametrize("strategy", ["adaptive_entropy", "entropy_budget"])
def test_a_strategy_that_reads_the_rollouts_entropy_is_refused(
    tiny: Callable[..., Config], strategy: str
) -> None:
    stack = [f"strategy=[kl_cov,{strategy}]"]
    if strategy == "entropy_budget":
        stack += ["strategy.entropy_budget.knob=kl_cov.fraction", "strategy.entropy_budget.maximum=0.9"]
    with pytest.raises(UsageError, match=f"{strategy} reads the rollout's entropy.*old_logprobs=recompute"):
        preflight(tiny(*stack, ROUNDED, LEFT))
    preflight(tiny(*stack, ROUNDED))
    preflight(tiny(*stack, LEFT))  # the default engine reports entropies


def test_the_ratio_to_the_engine_corrects_staleness(tiny: Callable[..., Config]) -> None:
    stale = ["rollout.staleness=1", "iterations=4"]
    (warning,) = preflight(tiny(*stale))
    assert "importance_correction" in warning
    assert preflight(tiny(*stale, LEFT)) == []
    (warning,) = preflight(tiny(*stale, LEFT, "strategy=[importance_correction]"))
    assert "does nothing" in warning
