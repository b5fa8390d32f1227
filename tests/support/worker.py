"""One of several processes that work through a list of jobs together: started by torchrun.

A job is a configuration, and either a whole training run or one minibatch's loss, gradient and plan.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.config.compose import build_config
from ecrl.config.keys import key_of
from ecrl.config.resume import forked_config, resumed_config
from ecrl.config.schema import Config
from ecrl.training.run import train
from ecrl.training.trainer import quiet
from tests.support.conformance import gradient, make_batch, make_module


def minibatch(config: Config) -> dict[str, Any]:
    """Loss, gradient and plan of one optimizer minibatch that is the same for all processes."""
    module = make_module(config, build_strategies(config.strategy))
    loss, flat, plan = gradient(module, make_batch(module))
    return {
        "loss": loss,
        "gradient": flat,
        "weights": plan.weights,
        "coefficients": dict(plan.coefficients),
        "numbers": module.recorder.flush().numbers,
    }


def run(job: dict[str, Any]) -> dict[str, Any]:
    """Run a job; an error is a result too."""
    try:
        starts = {"resume": resumed_config, "fork": forked_config}
        start = next((s for o in job["overrides"] if (s := starts.get(key_of(o)))), build_config)
        config = start(job["overrides"])
        config.strategy = job.get("strategy", config.strategy)
        if job["kind"] == "minibatch":
            return minibatch(config)
        train(config, lambda line: None)
        return {}
    except Exception:
        return {"error": traceback.format_exc()}


def main(jobs: Path, results: Path) -> None:
    """Run all jobs; the first process writes what came of them."""
    torch.set_num_threads(1)
    quiet()
    for name, job in json.loads(jobs.read_text()).items():
        result = run(job)
        if not dist.is_initialized() or dist.get_rank() == 0:
            torch.save(result, results / f"{name}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
