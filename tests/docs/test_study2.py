"""The second study: its sweeps compose, its runs survive packing, its verdicts follow from its figures."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from ecrl.cli import main as ecrl
from ecrl.runs.metrics_file import read_metrics
from ecrl.runs.rollouts import COLUMNS, PartWriter, part_path
from tests.support.paths import ROOT
from tests.support.reports import make_run

SWEEPS = [ROOT / "benchmarks" / "study2.yaml", *sorted((ROOT / "benchmarks" / "study2").glob("*.yaml"))]
SEEDS = [1, 2, 3]
BUDGET = "strategy.entropy_budget.knob=kl_cov.fraction"
#: What an arm's entropy and avg@16 have above the baseline's, and the overrides that make it an arm.
ARMS: dict[str, tuple[float, float, list[str]]] = {
    "grpo": (0.0, 0.0, []),
    "on_policy": (0.0, 0.0, ["update.minibatches=1"]),
    "bonus": (0.0, -0.1, ["strategy=[entropy_bonus]"]),
    "reference": (0.0, 0.0, ["strategy=[reference_kl]"]),
    "clip_cov": (0.2, 0.1, ["strategy=[clip_cov_small]"]),
    "kl_cov": (0.2, 0.1, ["strategy=[kl_cov_small]"]),
    "budget": (0.2, 0.0, ["strategy=[kl_cov_small,entropy_budget]", BUDGET]),
}


@pytest.fixture(autouse=True)
def study2(monkeypatch: pytest.MonkeyPatch) -> None:
    """`study2` is found beside the benchmark."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))


def metrics(seed: int, entropy: float, gain: float, iterations: int = 60) -> list[dict[str, Any]]:
    """Entropy falls to a twentieth; avg@16 follows the law R = 1.2 − 0.5·exp(H), and an arm gains at last."""
    noise = np.random.default_rng(seed).normal(0, 1e-3, iterations + 2)
    found: list[dict[str, Any]] = []
    for t in range(iterations + 1):
        now, after = (0.6 * math.exp(-i / 10) + 0.01 for i in (t, t + 1))
        row: dict[str, Any] = {"iteration": t}
        if t:
            row |= {"policy/entropy": now + entropy * t / iterations + noise[t], "rollout/reward": 0.5}
            row |= {"cov/mean": now, "cov/top_2%": 20 * now, "rollout/tokens": 100.0, "time/total": 1.0}
        reward = 1.2 - 0.5 * math.exp(after) + gain * (1 + 0.1 * seed) * (t > 0.8 * iterations) + noise[t + 1]
        found.append(row | {"val/task/avg@16": reward, "val/task/pass@16": 0.9})
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The finished runs of a main comparison, and one that is not."""
    folder = tmp_path_factory.mktemp("runs") / "main"
    folder.mkdir()
    arms = {arm: own or ["strategy=[]"] for arm, (_, _, own) in ARMS.items()}
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"arms": arms, "seeds": SEEDS}, sort_keys=False))
    for arm, (entropy, gain, own) in ARMS.items():
        first = make_run(folder / f"{arm}-1", *own, "seed=1", metrics=metrics(1, entropy, gain))
        for seed in SEEDS[1:]:
            run = folder / f"{arm}-{seed}"
            run.mkdir()
            config = (first / "config.yaml").read_text().replace("seed: 1\n", f"seed: {seed}\n")
            (run / "config.yaml").write_text(config)
            lines = [json.dumps(row) + "\n" for row in metrics(seed, entropy, gain)]
            (run / "metrics.jsonl").write_text("".join(lines))
        for seed in SEEDS:
            validate(folder / f"{arm}-{seed}")
            summary = {"iterations": 60, "versions": {"torch": "2"}, "stopped_by": None}
            if (arm, seed) != ("budget", 3):
                (folder / f"{arm}-{seed}" / "summary.json").write_text(json.dumps(summary))
    return folder.parent


def validate(run: Path) -> None:
    """Write a validation: two answers to problem 7, the first and so of even number, two to 9, one greedy."""
    problems, rewards, greedy = [7, 7, 9, 9, 7], [1.0, 0.0, 1.0, 1.0, 1.0], [False] * 4 + [True]
    others: dict[str, list[Any]] = {name: [None] * 5 for name in COLUMNS}
    part = PartWriter(part_path(run, 60, "task"), tokens=False)
    part.write(others | {"problem": problems, "reward": rewards, "greedy": greedy})
    part.close()


@pytest.mark.slow
@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_composes(path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ecrl(["sweep", str(path), f"output={tmp_path / 'sweep'}", "--cfg"]) == 0
    definition = yaml.safe_load(path.read_text())
    cells = capsys.readouterr().out.splitlines()
    assert len(cells) == len(definition["arms"]) * len(definition["seeds"])


def test_packed_runs_are_the_runs_again(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from study2.pack import pack, unpack
    from study2.packed import read

    pack(runs / "main", tmp_path / "main.parquet")
    assert "budget-3 is not finished" in capsys.readouterr().out
    found = read(tmp_path / "main.parquet")
    assert list(found) == list(ARMS) and list(found["budget"]) == [1, 2]
    assert found["grpo"][1]["even"][-1] == 0.5 and found["grpo"][1]["odd"][-1] == 1.0  # not the greedy one
    unpack(tmp_path / "main.parquet", tmp_path / "again")
    for name in ("sweep.yaml", "kl_cov-2/config.yaml", "kl_cov-2/summary.json"):
        assert (tmp_path / "again" / name).read_bytes() == (runs / "main" / name).read_bytes()
    again = read_metrics(tmp_path / "again" / "kl_cov-2" / "metrics.jsonl")
    before = read_metrics(runs / "main" / "kl_cov-2" / "metrics.jsonl")
    assert [row.keys() for row in again] == [row.keys() for row in before]
    for new, old in zip(again, before, strict=True):
        assert new == pytest.approx(old, rel=1e-6)


def test_a_sweep_with_an_arm_to_come_is_left_out(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from study2.pack import pack

    folder = tmp_path / "main"
    shutil.copytree(runs / "main", folder)
    for seed in SEEDS:
        (folder / f"bonus-{seed}" / "summary.json").unlink(missing_ok=True)
    pack(folder, tmp_path / "main.parquet")
    assert "no run of bonus is finished" in capsys.readouterr().out
    assert not (tmp_path / "main.parquet").exists()


@pytest.mark.slow
def test_verdicts_follow_from_the_figures(runs: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"
    words = ["--runs", str(runs), "--unpacked", str(tmp_path / "unpacked"), "--output", str(output)]
    script = [sys.executable, str(ROOT / "benchmarks" / "study2.py"), *words]
    subprocess.run(script, check=True, cwd=ROOT, capture_output=True)
    assert (output / "main" / "index.html").exists() and not (output / "main" / "curves.csv").exists()
    page = (output / "tables.md").read_text()
    verdict = {row.split()[1]: row.split("**")[-2] for row in page.splitlines() if row.endswith("** |")}
    assert verdict == {
        "1": "holds",  # entropy ends at a twentieth
        "2": "holds",
        "3": "holds",
        "4": "holds",
        "8": "holds",  # the top 2 % have 20 times the mean
        "9": "holds",  # the fall is proportional to the covariance
        "10": "holds",  # the bonus lies below, the reference is level to the last bit
        "11": "holds",
        "12": "holds",
        "13": "not separated",  # on-policy is level with GRPO
        "15": "refuted",  # the budget lies below KL-Cov, in two seeds
    }


def test_holm_multiplies_the_smallest_p_by_their_number() -> None:
    from study2.endpoints import compare, holm

    assert holm([0.03, 0.01, 0.02]) == pytest.approx([0.04, 0.03, 0.04])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.01, 0.004], tests=10) == pytest.approx([0.09, 0.04])
    same = {1: 0.5, 2: 0.5}
    assert compare({"same": (same, same)})["same"].p == 1


def test_laws_of_several_runs_are_compared() -> None:
    from study2.claims import SIZES, beyond, late_gain, other_data
    from study2.packed import Run

    def run(a: float, b: float) -> Run:
        entropy = np.linspace(0.6, 0.1, 41)
        # The validation of a row is paired with the next row's entropy.
        reward = np.append(b - a * np.exp(entropy[1:]), np.nan)
        return {
            "entropy": entropy,
            "avg": reward + 1e-3 * np.cos(np.arange(41)),
            "iteration": np.arange(41.0),
        }

    apart = other_data(
        {"grpo": {1: run(0.5, 1.2), 2: run(0.5, 1.2)}, "easier": {1: run(0.5, 1.5), 2: run(0.5, 1.6)}}
    )
    level = other_data(
        {"grpo": {1: run(0.5, 1.2), 2: run(0.5, 1.2)}, "easier": {1: run(0.5, 1.2), 2: run(0.5, 1.2)}}
    )
    assert apart.verdict == "holds" and level.verdict == "refuted"
    logs = np.log(list(SIZES.values()))
    assert beyond(list(2 * logs[:2] + 1)) == pytest.approx(2 * logs[2] + 1)
    # 0.2 at first, 0.5 around half time, 0.56 in the last fifth: 0.06 after 0.3.
    avg = np.where(np.arange(41) < 10, 0.2, np.where(np.arange(41) < 30, 0.5, 0.56))
    assert late_gain({"avg": avg, "iteration": np.arange(41.0)}) == pytest.approx(0.2)


def test_runs_that_a_claim_cannot_be_measured_on_leave_it_open() -> None:
    from study2 import laws
    from study2.claims import correlation, judged, of_the_baseline

    time = np.arange(101.0)
    still = {"iteration": time, "entropy": 0.3 + 1e-5 * time, "avg": time, "covariance": time + 1}
    still["covariance_top"] = 20 * still["covariance"]
    found = {verdict.claim[0]: verdict for verdict in of_the_baseline({1: still, 2: still})}
    assert found["3"].figure == "not measurable in seed 1, 2" and found["4"].verdict == "not separated"
    assert "– |" in list(laws.table({"main": {"grpo": {1: still}}}))[-1]
    assert judged("1", {1: 0.1, 2: 0.6}, holds=True, refuted=True).verdict == "refuted"

    # Entropy falls by the covariance; one iteration trains no group and has none.
    covariance = np.random.default_rng(0).random(40)
    entropy = np.append(10.0, 10 - np.cumsum(covariance)[:-1])
    covariance[7] = np.nan
    assert correlation({"covariance": covariance, "entropy": entropy}) == pytest.approx(1)
