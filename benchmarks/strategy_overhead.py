"""CPU time of an update with a strategy over one without, alternating in one process.

    OMP_NUM_THREADS=1 python benchmarks/strategy_overhead.py --rounds 60
    OMP_NUM_THREADS=1 python benchmarks/strategy_overhead.py model.hidden_size=256 model.layers=6

An update whose minibatch fits in one micro-batch needs no pass for planning, because its own forward pass
serves planning too; what planning itself takes is shown beside. With several micro-batches, strategies that
need the current policy's log-probs cost a pass without gradient for each but the first.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from ecrl.algorithm.loss_plan import make_loss_plan
from ecrl.algorithm.rollout_batch import RolloutBatch
from ecrl.algorithm.strategy import Strategy
from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.training.module import PolicyModule
from ecrl.training.run import prepare

ACTIVE = {
    "entropy_bonus": {"coefficient": 0.001},
    "adaptive_entropy": {"target": 50.0},
    "reference_kl": {"coefficient": 0.001},
}
UNCOUNTED = 3  # first rounds


def policy_and_minibatch(overrides: list[str]) -> tuple[PolicyModule, RolloutBatch]:
    """Return a policy, and the second minibatch of its first rollout (the first one is fresh)."""
    config = build_config(["strategy=[]", "objective.filters.drop_zero_variance=false", *overrides])
    trainer, module, datamodule = prepare(config, lambda line: None)
    trainer.strategy.connect(module)
    module.trainer = datamodule.trainer = trainer
    module.configure_model()
    minibatches = iter(datamodule.train_dataloader())
    next(minibatches)
    return module, next(minibatches)


def overhead(module: PolicyModule, batch: RolloutBatch, name: str, rounds: int) -> tuple[list[float], float]:
    """Return the time with the strategy over the time without, for each pair; and planning's share alone."""
    nodes: Any = build_config([f"strategy=[{name}]"]).strategy
    for node in nodes.values():
        node |= ACTIVE.get(name, {})
    strategies = build_strategies(nodes)
    for strategy in strategies:
        strategy.setup(module.trainer, module, "fit")
    columns = {key: value for s in strategies for key, value in s.extra_columns(batch).items()}
    batch.columns.update(columns)  # type: ignore[attr-defined]
    tokens = batch.tokens(0, 0.8, 1.2)

    def update(stack: list[Strategy]) -> float:
        module.strategies = stack
        module.zero_grad()
        return seconds(lambda: module.accumulate(batch))

    ratios, updates, plans = [], [], []
    for turn in range(rounds + UNCOUNTED):
        pair = [update(strategies), update([])] if turn % 2 else [update([]), update(strategies)][::-1]
        ratios.append(pair[0] / pair[1])
        updates.append(pair[1])
        plans.append(seconds(lambda: make_loss_plan(tokens, module.objective, strategies)))
    share = statistics.median(plans[UNCOUNTED:]) / statistics.median(updates[UNCOUNTED:])
    return ratios[UNCOUNTED:], share


def seconds(work: Callable[[], object]) -> float:
    """CPU time, which other jobs on the machine disturb less than they do the clock."""
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("overrides", nargs="*", help="of the default configuration, e.g. model.layers=6")
    arguments = parser.parse_args()
    module, batch = policy_and_minibatch(arguments.overrides)
    for title, max_tokens in (("one micro-batch", 16384), ("four micro-batches", 256)):
        module.config.update.max_tokens = max_tokens
        print(f"\n{title}: {batch.num_tokens} response tokens in {len(batch)} sequences")
        print("| strategy | time with ÷ without, median | quartiles | planning |\n|---|---|---|---|")
        for name in options("strategy"):
            ratios, share = overhead(module, batch, name, arguments.rounds)
            low, median, high = statistics.quantiles(ratios, n=4)
            print(f"| {name} | {median:.3f} | {low:.3f} – {high:.3f} | {share:.2%} |", flush=True)


if __name__ == "__main__":
    main()
