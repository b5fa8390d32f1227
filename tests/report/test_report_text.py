"""Reports: names of any kind, figures of any size, and paths that cannot be used."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from ecrl.analysis.stats import Interval
from ecrl.cli import main
from ecrl.report.tables import _alone, _cells, _difference, _mean
from tests.support.cli import refused
from tests.support.reports import make_run, rows, table

NAN = math.nan


def test_a_column_has_one_number_of_decimals_and_three_figures() -> None:
    small, large = Interval(0.000123, NAN, NAN, 1), Interval(0.5, 0.4, 0.6, 3)
    assert _cells([small, None, large], _mean) == ["0.000123", "–", "0.500000 ± 0.100000"]
    assert _cells([large, Interval(0.0, 0.0, 0.0, 3)], _mean) == ["0.500 ± 0.100", "0.000 ± 0.000"]
    assert _cells([Interval(123.456, NAN, NAN, 1)], _alone) == ["123.46"]


def test_no_zero_has_a_minus() -> None:
    noise = Interval(-1e-17, -2e-17, 0.0, 3)
    assert _cells([noise], _difference) == ["+0.000 [+0.000, +0.000]"]
    # The interval is the wider: it says how much of the mean counts.
    assert _cells([Interval(-0.00001, -0.06, 0.06, 3)], _difference) == ["+0.0000 [-0.0600, +0.0600]"]


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


def test_metrics_that_differ_by_a_sign_have_pictures_of_their_own(tmp_path: Path) -> None:
    more = ("val/a b/avg@4", "val/a_b/avg@4", "val/A/b/avg@4", "val/a/b/pass@1", "val/a/b/pass@2")
    run = make_run(tmp_path / "r-1", metrics=[row | dict.fromkeys(more, 0.5) for row in rows(1)])
    assert main(["report", str(run), f"output={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    files = [line.rpartition("(")[2].rstrip(")") for line in text.splitlines() if line.startswith("![")]
    assert {"A_b_avg_4.png", "a_b_avg_4_2.png", "a_b_avg_4_3.png", "pass_at_k_a_b.png"} <= {*files}
    assert len({name.lower() for name in files}) == len(files) == len(list((tmp_path / "out").glob("*.png")))


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


def test_numbers_that_no_array_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "r-1", metrics=[*rows(1), {"iteration": 10**30}])
    line = refused(capsys, "report", str(run), f"output={tmp_path / 'out'}")
    assert "metrics.jsonl, line 42: not a row of metrics" in line
    run = make_run(tmp_path / "s-1", metrics=[row | {"x": 10**400} for row in rows(1)])
    assert main(["report", str(run), f"output={tmp_path / 'out'}"]) == 0


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
