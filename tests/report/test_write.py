"""Reports: numbers against the runs they come from, names of any kind, paths that cannot be used."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path

import pytest

from ecrl.cli import main
from tests.support.cli import refused
from tests.support.reports import make_run, rows, table


def test_numbers_are_those_of_the_runs(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["report", str(runs), f"output={out}", "baseline=plain"]) == 0
    assert {p.name for p in out.iterdir()} >= {"index.html", "report.md", "curves.csv", "final.csv"}
    assert not list(out.rglob("*.png"))
    found = {(r["arm"], r["metric"], r["kind"], r["seed"]): r for r in table(out / "final.csv")}
    late = [row["val/task/avg@4"] for row in rows(2) if row["iteration"] > 32 and row["iteration"] % 2 == 0]
    assert len(late) == 4  # 34, 36, 38, 40: the last fifth
    assert float(found["plain", "val/task/avg@4", "final", "2"]["value"]) == pytest.approx(sum(late) / 4)
    # Differences .04, .05, .06 by seed: standard deviation .01, t(.975, 2) = 4.302653.
    gain = found["better", "val/task/avg@4", "difference", "all"]
    assert float(gain["value"]) == pytest.approx(0.05)
    assert float(gain["low"]) == pytest.approx(0.05 - 4.302653 * 0.01 / math.sqrt(3), abs=1e-6)
    assert float(gain["high"]) == pytest.approx(0.05 + 4.302653 * 0.01 / math.sqrt(3), abs=1e-6)
    assert not any(arm == "plain" and kind == "difference" for arm, _, kind, _ in found)
    curve = [r for r in table(out / "curves.csv") if (r["arm"], r["metric"]) == ("plain", "val/task/avg@4")]
    assert [int(r["iteration"]) for r in curve] == list(range(0, 41, 2))
    assert float(curve[3]["mean"]) == pytest.approx(rows(2)[6]["val/task/avg@4"])
    # The numbers of a figure stand beside it, over all of its axes.
    drawn = [r for r in table(out / "figures" / "task_avg_4.csv") if r["arm"] == "plain"]
    assert list(drawn[3]) == ["arm", "iterations", "tokens", "hours", "mean", "low", "high", "seeds"]
    assert [float(drawn[3][x]) for x in ("iterations", "tokens", "hours")] == pytest.approx([6, 612, 0.06])
    assert float(drawn[3]["mean"]) == pytest.approx(rows(2)[6]["val/task/avg@4"])
    assert {p.name for p in out.glob("figures/task_avg_4*")} == {
        f"task_avg_4{x}" for x in (".csv", ".svg", "_tokens.svg", "_hours.svg")
    }
    text = (out / "report.md").read_text()
    assert "Higher task/avg@4 than plain: better (+0.050 \\[+0.025, +0.075\\])" in text
    assert "No difference beyond the spread in entropy (nats): better." in text
    # The law is found again: a, b and ceiling of plain, the mean over seeds adding 0.02.
    law = next(line for line in text.splitlines() if line.startswith("| plain | 0.5"))
    assert re.findall(r"\| (-?[\d.]+) ±", law)[:3] == ["0.500", "1.220", "0.720"]
    assert "**+0.0500 \\[+0.0252, +0.0748\\]**" in text
    assert "strategy.clip\\_cov.fraction" in text


def test_one_run_alone(tmp_path: Path) -> None:
    metrics = rows(1)
    for row in metrics[
        1:
    ]:  # 1 nat until iteration 20, then 0.05; means of 3 iterations are below 0.1 from 23 on
        row |= {"policy/entropy": 1.0 if row["iteration"] <= 20 else 0.05, "rollout/truncated": 0.25}
        row |= {"policy/grad_norm": 0.5, "policy/clip_high": 0.0, "val/mean/avg@k": 1 / row["iteration"]}
    run = make_run(tmp_path / "run", metrics=metrics)
    (run / "checkpoints" / "20").mkdir(parents=True)
    (run / "checkpoints" / "40").mkdir()
    assert main(["report", str(run)]) == 0
    text = (run / "report" / "report.md").read_text().replace("\\", "")
    best, start = rows(1)[40]["val/task/avg@4"], rows(1)[0]["val/task/avg@4"]
    assert (
        f"avg@4 rose from {start:.3f} to " in text
        and f"the best avg@4 was {best:.3f}, at iteration 40" in text
    )
    assert (
        "Entropy fell from 1.00 to 0.0500 nats a token; it first fell under 10% of its start at iteration 23."
        in text
    )
    assert "25.0% of the responses were cut off" in text
    assert "40 iterations took 24 minutes and 4,040 response tokens." in text
    assert f"The best checkpoint by val/mean/avg@k is {run}/checkpoints/20." in text
    # Nothing is compared.
    assert re.search(r"\barms?\b|[Bb]aseline|[Pp]aired|seeds|nan", text) is None
    assert (run / "report" / "figures" / "policy_grad_norm.svg").exists()
    assert not (run / "report" / "figures" / "policy_clip_high.svg").exists()  # 0 throughout
    assert {r["low"] for r in table(run / "report" / "final.csv")} == {""}


def test_an_arm_with_one_seed_leaves_the_others_their_text(runs: Path, tmp_path: Path) -> None:
    single = make_run(tmp_path / "single-1", "seed=1", "update.lr=1e-5", metrics=rows(1, 0.3))
    assert main(["report", str(runs), str(single), f"output={tmp_path / 'out'}", "baseline=plain"]) == 0
    text = (tmp_path / "out" / "report.md").read_text().replace("\\", "")
    assert "Higher task/avg@4 than plain: better (+0.050 [+0.025, +0.075])." in text
    assert "No difference beyond the spread in entropy (nats): better." in text
    assert "With 3 seeds an interval is 4.3 standard errors" in text
    assert re.search(r"single, at the end \(and against plain\): .*task/avg@4 [\d.]+ \(\+0\.300\)", text)
    assert "single: one seed in common with plain, so differences may be chance" in text
    assert "There is one seed an arm" not in text


def test_a_law_of_few_points_is_not_drawn(tmp_path: Path) -> None:
    metrics = [row | {"rollout/truncated": 1e-4} for row in rows(1, iterations=6)]
    short = make_run(tmp_path / "short", metrics=metrics)  # validated 4 times, 3 of which count
    assert main(["report", str(short)]) == 0
    assert not list((short / "report" / "figures").glob("entropy_reward.*"))
    text = (short / "report" / "report.md").read_text()
    assert "a fit takes at least 5 points, got 3." in text
    assert "Fewer than 0.1% of the responses were cut off" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a$b_$", "$", "_x", os.fsdecode(b"caf\xe9")])
def test_a_name_of_any_kind(name: str, tmp_path: Path) -> None:
    for arm, overrides in ((name, ["strategy=[clip_cov]"]), ("plain", [])):
        make_run(tmp_path / "runs" / f"{arm}-1", "seed=1", *overrides, metrics=rows(1))
    out = tmp_path / "out"
    assert main(["report", str(tmp_path / "runs"), f"output={out}", f"title={name}"]) == 0
    shown = name.encode(errors="replace").decode()
    escaped = shown.replace("$", r"\$").replace("_", r"\_")
    assert {r["arm"] for r in table(out / "final.csv")} == {"plain", shown}
    assert f"# {escaped}\n" in (out / "report.md").read_text()


@pytest.mark.slow
def test_metrics_that_differ_by_a_sign_have_pictures_of_their_own(tmp_path: Path) -> None:
    more = ("val/a b/avg@4", "val/a_b/avg@4", "val/A/b/avg@4", "val/a/b/pass@1", "val/a/b/pass@2")
    run = make_run(tmp_path / "r-1", metrics=[row | dict.fromkeys(more, 0.5) for row in rows(1)])
    assert main(["report", str(run), f"output={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    files = [line.rpartition("/")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert {"A_b_avg_4.svg", "a_b_avg_4_2.svg", "a_b_avg_4_3.svg", "pass_at_k_a_b.svg"} <= {*files}
    assert len({name.lower() for name in files}) == len(files)
    assert len(files) == len(list((tmp_path / "out" / "figures").glob("*.csv")))


@pytest.mark.slow
def test_paths_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "runs" / "r-1", metrics=rows(1))
    assert "does not exist" in refused(capsys, "report", "x" * 5000, "output=o")
    assert "cannot be written: [Errno 36]" in refused(capsys, "report", str(run), f"output={'x' * 5000}")
    # A way around: nowhere as long as `new` is not made, and then the folder of the runs.
    around = f"output={tmp_path / 'new' / '..' / 'runs'}"
    assert "holds no report" in refused(capsys, "report", str(run), around)
    assert not (tmp_path / "new").exists() and [p.name for p in (tmp_path / "runs").iterdir()] == ["r-1"]
    assert "holds no report" not in refused(capsys, "report", str(run), f"output={run / 'config.yaml'}")
    # A long title is no path.
    assert main(["report", str(run), f"output={tmp_path / 'o'}", f"title={'x' * 5000}"]) == 0
