"""The overrides of the shortest run."""

from __future__ import annotations

TINY = [
    "env=tests.support.tasks:test/Digits-v0",
    "rollout.prompts=8",
    "rollout.group_size=4",
    "rollout.max_new_tokens=8",
    "update.minibatches=2",
    "update.lr=1e-3",
    "update.schedule.warmup=0",
    "eval.every=0",
    "log.progress=false",
    "log.rollout_tokens=false",
    "strategy=[]",
]

#: Learns within a few iterations, and is validated after each.
LEARNING = ["rollout.prompts=16", "rollout.group_size=8", "update.lr=3e-3", "log.samples_every=2"]
VALIDATED = ["eval.every=1", "eval.problems=8", "eval.k=2"]
#: Two strategies, one with a state, and validation after every second iteration.
STACK = [
    "strategy=[kl_cov,adaptive_entropy]",
    "strategy.kl_cov.fraction=0.1",
    "strategy.adaptive_entropy.target=9.0",
    "eval.every=2",
    "eval.problems=4",
    "eval.k=2",
]
#: What makes of that the finished run that tests share.
FINISHED = ["iterations=2", "eval.every=1", "log.samples_every=1"]
