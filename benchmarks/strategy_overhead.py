"""Time of an update with a strategy over one without, alternating in one process.

    python benchmarks/strategy_overhead.py --rounds 60

An update whose minibatch fits in one micro-batch needs no pass for planning, because its own forward pass
serves planning too. With several micro-batches, strategies that need the current policy's log-probs cost a
pass without gradient; the second table shows its time.
"""

from __future__ import annotations

import argparse
import statistics
import time

from ecrl.algorithm.rollout_batch import RolloutBatch
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


def policy_and_minibatch() -> tuple[PolicyModule, RolloutBatch]:
    """Return the tiny policy, and the second minibatch of its first rollout (the first one is fresh)."""
    config = build_config(["strategy=[]", "objective.filters.drop_zero_variance=false"])
    trainer, module, datamodule = prepare(config, lambda line: None)
    trainer.strategy.connect(module)
    module.trainer = datamodule.trainer = trainer
    module.configure_model()
    minibatches = iter(datamodule.train_dataloader())
    next(minibatches)
    return module, next(minibatches)


def overhead(module: PolicyModule, batch: RolloutBatch, name: str, rounds: int) -> list[float]:
    """Return the time with the strategy over the time without, for each pair."""
    nodes = build_config([f"strategy=[{name}]"]).strategy
    for node in nodes.values():
        node |= ACTIVE.get(name, {})
    strategies = build_strategies(nodes)
    for strategy in strategies:
        strategy.setup(module.trainer, module, "fit")
    columns = {key: value for s in strategies for key, value in s.extra_columns(batch).items()}
    batch.columns.update(columns)  # type: ignore[attr-defined]

    def seconds(stack: list) -> float:  # type: ignore[type-arg]
        module.strategies = stack
        module.zero_grad()
        start = time.perf_counter()
        module.accumulate(batch)
        return time.perf_counter() - start

    ratios = []
    for turn in range(rounds + 3):
        pair = [seconds(strategies), seconds([])] if turn % 2 else [seconds([]), seconds(strategies)][::-1]
        ratios.append(pair[0] / pair[1])
    return ratios[3:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    module, batch = policy_and_minibatch()
    for title, max_tokens in (("one micro-batch", 16384), ("four micro-batches", 256)):
        module.config.update.max_tokens = max_tokens
        print(f"\n{title}: {batch.num_tokens} response tokens in {len(batch)} sequences")
        print("| strategy | time with ÷ without, median | quartiles |\n|---|---|---|")
        for name in options("strategy"):
            quarters = statistics.quantiles(overhead(module, batch, name, rounds), n=4)
            print(f"| {name} | {quarters[1]:.3f} | {quarters[0]:.3f} – {quarters[2]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
