"""Runs that are reported, and those that are refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from ecrl.cli import main
from tests.support.cli import refused
from tests.support.reports import make_run, rows, table


@pytest.mark.slow
def test_unequal_lengths_are_cut_and_said(runs: Path, tmp_path: Path) -> None:
    shorter = make_run(tmp_path / "short" / "other-1", "seed=1", "update.lr=1e-5", metrics=rows(1, 0.0, 20))
    assert main(["report", str(runs), str(shorter), f"output={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"{shorter} has 20 iterations" in text.replace("\\", "")
    assert "Arms have different seeds" in text
    assert max(int(r["iteration"]) for r in table(tmp_path / "out" / "curves.csv")) == 20


@pytest.mark.slow
def test_arms_without_telling_folders_are_named_by_settings(runs: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(runs.iterdir())):
        path.rename(tmp_path / f"run{number}x")
    assert main(["report", *map(str, tmp_path.glob("run*x")), f"output={tmp_path / 'out'}"]) == 0
    arms = {r["arm"] for r in table(tmp_path / "out" / "final.csv")}
    assert len(arms) == 2 and any(a.startswith("clip_cov") for a in arms)
    assert any(a.startswith("no strategy") for a in arms)


@pytest.mark.parametrize(
    ("metrics", "says"),
    [
        ("", "at least 2 iterations, got 0"),
        (rows(1)[:2], "at least 2 iterations, got 1"),
        ('{"iteration": 1, "policy/entropy": NaN}\n{"iteration": 2}\n', "metrics.jsonl, line 1"),
        ([r | {"policy/entropy": None if r["iteration"] == 7 else 0.5} for r in rows(1)], "in iteration 7"),
        ([{k: v for k, v in r.items() if k != "policy/entropy"} for r in rows(1)], "has no 'policy/entropy'"),
        (rows(1) + rows(1)[-1:], "line 42: iterations must ascend"),
        ([r | {"val/other/avg@4": 1.0} for r in rows(1)], "only the second has the metric 'val/other/avg@4'"),
    ],
)
def test_metrics_that_cannot_be_used(
    metrics: Any, says: str, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = make_run(tmp_path / "bad-4", "seed=4", metrics=metrics)
    line = refused(capsys, "report", str(runs), str(bad), f"output={tmp_path / 'out'}")
    assert says in line and str(bad) in line
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_runs_and_words_that_cannot_be_used(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"output={tmp_path / 'out'}"
    other = make_run(tmp_path / "other-4", "seed=4", "env=sudoku", metrics=rows(4))
    assert "env.id is" in refused(capsys, "report", str(runs), str(other), out)
    fewer = make_run(tmp_path / "fewer-4", "seed=4", "eval.problems=8", metrics=rows(4))
    assert "eval.problems is 'all' in the first, 8 in the second" in refused(
        capsys, "report", str(runs), str(fewer), out
    )
    again = shutil.copytree(runs / "plain-1", tmp_path / "again")
    assert "one and the same run, seed 1" in refused(capsys, "report", str(runs), str(again), out)
    (again / "metrics.jsonl").unlink()
    assert "metrics.jsonl is missing" in refused(capsys, "report", str(again), out)
    (again / "config.yaml").write_text("a: [")
    shutil.copy(runs / "plain-1" / "metrics.jsonl", again)
    assert "config.yaml cannot be read" in refused(capsys, "report", str(again), out)
    assert "nowhere does not exist" in refused(capsys, "report", str(tmp_path / "nowhere"), out)
    (tmp_path / "empty").mkdir()
    assert "neither a run" in refused(capsys, "report", str(tmp_path / "empty"), out)
    beyond = f"output={again / 'config.yaml' / 'out'}"
    assert "cannot be written" in refused(capsys, "report", str(runs), beyond)
    assert "Did you mean 'better'?" in refused(capsys, "report", str(runs), out, "baseline=beter")
    assert "Did you mean 'baseline'?" in refused(capsys, "report", str(runs), out, "basline=plain")
    assert "needs output=DIR" in refused(capsys, "report", str(runs))
    assert "takes run directories" in refused(capsys, "report", out)
    assert "holds no report" in refused(capsys, "report", str(runs), f"output={runs}")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_sweep_that_goes_on_is_shown_without_its_open_cells(real_sweep: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(real_sweep, tmp_path / "sweep", ignore=shutil.ignore_patterns("report"))
    lines = (folder / "grpo-2" / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "grpo-2" / "metrics.jsonl").write_text("".join(lines[:4]))
    (folder / "grpo-2" / "summary.json").unlink()
    shutil.rmtree(folder / "on_policy-1")
    assert main(["report", str(folder)]) == 0
    text = (folder / "report" / "report.md").read_text().replace("\\", "")
    assert "left out: on_policy-1, grpo-2" in text or "left out: grpo-2, on_policy-1" in text
    assert max(int(r["iteration"]) for r in table(folder / "report" / "curves.csv")) == 12


@pytest.mark.parametrize("summary", ["[]", "3", '{"iterations": "x"}', '{"versions": []}'])
def test_a_summary_that_is_none_is_named(
    summary: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run(tmp_path / "r-1", metrics=rows(1))
    (run / "summary.json").write_text(summary)
    line = refused(capsys, "report", str(run), f"output={tmp_path / 'out'}")
    assert f"{run / 'summary.json'} is no summary of a run" in line
    # Also where the sweep's folder is given.
    (tmp_path / "sweep.yaml").write_text("arms: {r: 'strategy=[]'}\nseeds: [1]\n")
    assert "summary.json is no summary" in refused(capsys, "report", str(tmp_path))


@pytest.mark.slow
def test_numbers_that_no_array_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "r-1", metrics=[*rows(1), {"iteration": 10**30}])
    line = refused(capsys, "report", str(run), f"output={tmp_path / 'out'}")
    assert "metrics.jsonl, line 42: not a row of metrics" in line
    run = make_run(tmp_path / "s-1", metrics=[row | {"x": 10**400} for row in rows(1)])
    assert main(["report", str(run), f"output={tmp_path / 'out'}"]) == 0
