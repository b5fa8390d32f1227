"""The overrides of the shortest run."""

from __future__ import annotations

TINY = [
    "env=tests.support.tasks:test/Digits-v0",
    "rollout.prompts=8",
    "rollout.group_size=4",
    "rollout.max_new_tokens=8",
    "update.minibatches=2",
    "update.lr=1e-3",
    "eval.every=0",
    "log.progress=false",
    "strategy=[]",
]
