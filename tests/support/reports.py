"""Runs that are files only, for reports."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from ecrl.config.compose import build_config
from ecrl.runs.rollouts import COLUMNS, TOKEN_COLUMNS, PartWriter, part_path

A, B = 0.5, 1.2  # coefficients of the law that synthetic runs follow


def rows(seed: int, gain: float = 0.0, iterations: int = 40) -> list[dict[str, Any]]:
    """Metrics whose validation at t follows the law at the entropy of t + 1, plus a gain."""
    found: list[dict[str, Any]] = []
    for t in range(iterations + 1):
        entropy, after = (0.6 * math.exp(-i / 20) for i in (t, t + 1))
        row: dict[str, Any] = {"iteration": t, "step": t}
        if t:
            row |= {"policy/entropy": entropy, "rollout/reward": 0.1 * seed + gain, "cov/mean": 0.01}
            row |= {"rollout/tokens": 100 + seed, "time/total": 36.0}  # a hundredth of an hour
        if t % 2 == 0:
            reward = B - A * math.exp(after) + gain + 0.01 * seed
            row |= {"val/task/avg@4": reward, "val/task/pass@1": reward, "val/task/pass@4": reward + 0.1}
        found.append(row)
    return found


def make_run(
    folder: Path,
    *overrides: str,
    metrics: list[dict[str, Any]] | str,
    fork: Path | None = None,
    at: int = 0,
) -> Path:
    """Write a run; ``fork`` and ``at`` name the run and the iteration that it was forked from."""
    folder.mkdir(parents=True)
    config = build_config([*(["strategy=[]"] if "strategy=" not in "".join(overrides) else []), *overrides])
    if fork:  # as training writes them
        config.fork, config.checkpoint.load, config.model.path = str(fork), str(at), "/home/someone/base"
    OmegaConf.save(OmegaConf.structured(config), folder / "config.yaml")
    text = metrics if isinstance(metrics, str) else "".join(json.dumps(row) + "\n" for row in metrics)
    (folder / "metrics.jsonl").write_text(text)
    return folder


def make_pair(
    folder: Path, parent: int = 40, own: int = 30, at: int = 10, names: Sequence[str] = ("plain", "kl_cov")
) -> list[Path]:
    """Write a run and a fork of it."""
    plain = make_run(folder / names[0], "seed=1", metrics=rows(1, iterations=parent))
    fork = make_run(
        folder / names[1],
        "seed=1",
        "strategy=[kl_cov_small]",
        "log.rollout_tokens=true",
        metrics=rows(1, 0.1, own),
        fork=plain,
        at=at,
    )
    return [plain, fork]


def write_part(run: Path, iteration: int, answers: list[dict[str, Any]]) -> None:
    """Write a part whose other columns are null."""
    writer = PartWriter(part_path(run, iteration), tokens=True)
    writer.write({name: [answer.get(name) for answer in answers] for name in [*COLUMNS, *TOKEN_COLUMNS]})
    writer.close()


def answer(problem: int, response: str, reward: float, **more: Any) -> dict[str, Any]:
    facts = {"prompt": f"<q{problem}>\n", "length": 2, "truncated": False, "entropy": 0.5}
    return {"problem": problem, "response": response, "reward": reward, **facts, **more}


def table(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))
