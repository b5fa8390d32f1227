"""How to draw an iteration again whose tokens were not kept: a run draws the same again."""

from __future__ import annotations

import shlex
from pathlib import Path

from ecrl.errors import UsageError
from ecrl.runs.checkpoints import saved_iterations
from ecrl.runs.rollouts import has_tokens


def check_tokens(run_dir: Path, iteration: int) -> None:
    """Refuse an iteration whose tokens are not on disk.

    Raises:
        UsageError: says how to have them, or that there is no such rollout.
    """
    if not has_tokens(run_dir, iteration):
        raise UsageError(
            f"{run_dir} kept no tokens of iteration {iteration} (log.rollout_tokens). "
            f"{how_to_draw_again(run_dir, iteration)}"
        )


def how_to_draw_again(run_dir: Path, iteration: int) -> str:
    """Return the sentences that say how to have the tokens of an iteration on disk after all.

    Resuming deletes what came after a checkpoint, so that a copy of the run is resumed.
    """
    before = [saved for saved in saved_iterations(run_dir) if saved < iteration]
    if not before:
        return (
            f"It has no checkpoint before iteration {iteration} to draw it again from "
            "(checkpoint.keep_every=N keeps some), so train it again as you did, in a new folder, with "
            "log.rollout_tokens=true: it draws the same."
        )
    source, copy = (shlex.quote(str(path)) for path in (run_dir, run_dir.with_name(f"{run_dir.name}-tokens")))
    return (
        f"Draw iteration {iteration} again, in a copy: cp -r {source} {copy} && ecrl train resume={copy} "
        f"checkpoint={before[-1]} log.rollout_tokens=true"
    )
