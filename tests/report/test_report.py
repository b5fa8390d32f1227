"""Reports: numbers against the runs they come from, the page in a real browser, and what is refused."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from ecrl.cli import main
from ecrl.config.compose import build_config
from ecrl.sweep.definition import Sweep
from ecrl.training.run import train
from tests.support.cli import refused
from tests.support.reports import make_run, rows, table
from tests.support.tiny import TINY

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Two arms, seeds 1 to 3; the second is 0.05 better on average."""
    folder = tmp_path / "runs"
    for seed, gain in ((1, 0.04), (2, 0.05), (3, 0.06)):
        make_run(folder / f"plain-{seed}", f"seed={seed}", metrics=rows(seed))
        make_run(folder / f"better-{seed}", f"seed={seed}", "strategy=[clip_cov]", metrics=rows(seed, gain))
    return folder


def test_numbers_are_those_of_the_runs(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(["report", str(runs), f"output={out}", "baseline=plain"]) == 0
    assert {p.name for p in out.iterdir()} >= {"index.html", "report.md", "curves.csv", "final.csv"}
    assert len(list(out.glob("*.png"))) == 8
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
    text = (out / "report.md").read_text()
    # The law is found again: a, b and ceiling of plain, the mean over seeds adding 0.02.
    law = next(line for line in text.splitlines() if line.startswith("| plain | 0.5"))
    assert re.findall(r"\| (-?[\d.]+) ±", law)[:3] == ["0.500", "1.220", "0.720"]
    assert "**+0.0500 \\[+0.0252, +0.0748\\]**" in text
    assert "strategy.clip\\_cov.fraction" in text


def test_unequal_lengths_are_cut_and_said(runs: Path, tmp_path: Path) -> None:
    shorter = make_run(tmp_path / "short" / "other-1", "seed=1", "update.lr=1e-5", metrics=rows(1, 0.0, 20))
    assert main(["report", str(runs), str(shorter), f"output={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert f"{shorter} has 20 iterations" in text.replace("\\", "")
    assert "Arms have different seeds" in text
    assert max(int(r["iteration"]) for r in table(tmp_path / "out" / "curves.csv")) == 20


def test_one_run_alone_has_no_intervals(runs: Path, tmp_path: Path) -> None:
    assert main(["report", str(runs / "plain-1"), f"output={tmp_path / 'out'}"]) == 0
    text = (tmp_path / "out" / "report.md").read_text()
    assert "One seed an arm" in text and "Paired differences" not in text and "nan" not in text
    assert {r["low"] for r in table(tmp_path / "out" / "final.csv")} == {""}


def test_arms_without_telling_folders_are_named_by_settings(runs: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted(runs.iterdir())):
        path.rename(tmp_path / f"run{number}x")
    assert main(["report", *map(str, tmp_path.glob("run*x")), f"output={tmp_path / 'out'}"]) == 0
    arms = {r["arm"] for r in table(tmp_path / "out" / "final.csv")}
    assert len(arms) == 2 and any(a.startswith("clip_cov") for a in arms)
    assert any(a.startswith("no strategy") for a in arms)


def test_text_is_escaped(runs: Path, tmp_path: Path) -> None:
    evil = '<img src=x onerror="document.title=1">'
    for seed in (1, 2, 3):
        (runs / f"better-{seed}").rename(runs / f"{evil}-{seed}")
    assert main(["report", str(runs), f"output={tmp_path / 'out'}", f"title={evil}"]) == 0
    page = (tmp_path / "out" / "index.html").read_text()
    assert "<img src=x" not in page and page.count("&lt;img src=x") >= 5
    # Nothing comes from elsewhere.
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', page) == [] and "@import" not in page


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


def test_runs_and_words_that_cannot_be_used(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"output={tmp_path / 'out'}"
    other = make_run(tmp_path / "other-4", "seed=4", "env=sudoku", metrics=rows(4))
    assert "env.id is" in refused(capsys, "report", str(runs), str(other), out)
    fewer = make_run(tmp_path / "fewer-4", "seed=4", "eval.problems=8", metrics=rows(4))
    assert "eval.problems is 128" in refused(capsys, "report", str(runs), str(fewer), out)
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


@pytest.fixture(scope="module")
def real_sweep(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two arms × two seeds of real runs, in a sweep's folder."""
    folder = tmp_path_factory.mktemp("sweep")
    common = [*(o for o in TINY if not o.startswith(("strategy", "eval"))), f"model.path={tiny_model}"]
    common += ["iterations=12", "eval.every=2", "eval.k=4", "eval.problems=8", "update.lr=3e-3"]
    arms = {"grpo": ["strategy=[]"], "on_policy": ["strategy=[]", "update.minibatches=1"]}
    sweep = Sweep(arms, [1, 2], common)
    sweep.save(folder)
    for cell in sweep.cells(folder):
        train(build_config([*cell.overrides, f"run_dir={cell.run_dir}"]), lambda line: None)
    return folder


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


#: Says in the title what a reader would see, after a click on the second column's head.
PROBE = """<script>addEventListener("load",()=>{
const table=document.querySelector("#final");
const names=()=>[...table.tBodies[0].rows].map(r=>r.cells[0].textContent);
table.querySelectorAll("th")[1].click();const down=names();table.querySelectorAll("th")[1].click();
document.title=JSON.stringify({images:[...document.images].map(i=>[i.naturalWidth,i.clientWidth,i.clientHeight]),
down,up:names(),wide:document.documentElement.scrollWidth-document.documentElement.clientWidth,
heads:[...document.querySelectorAll("h2")].map(h=>h.textContent)})})</script>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium to open the page in")
@pytest.mark.parametrize("width", [1280, 500])
def test_the_page_in_a_browser(real_sweep: Path, width: int, tmp_path: Path) -> None:
    assert main(["report", str(real_sweep)]) == 0
    report = real_sweep / "report"
    page = (report / "index.html").read_text()
    probed = tmp_path / "probed.html"
    probed.write_text(page.replace("</main>", f"</main>{PROBE}"))
    dom = browse(f"--window-size={width},900", "--dump-dom", f"file://{probed}")
    title = re.search(r"<title>(.*?)</title>", dom, re.DOTALL)
    assert title is not None
    seen = json.loads(unescape(title[1]))
    assert len(seen["images"]) == len(list(report.glob("*.png"))) >= 8
    assert all(
        natural > 100 and 100 < shown <= width and high > 100 for natural, shown, high in seen["images"]
    )
    assert seen["wide"] <= 0  # nothing sticks out; wide tables scroll by themselves
    assert sorted(seen["down"]) == sorted(seen["up"]) == ["before RL", "grpo", "on_policy"]
    numbers = [n for n in seen["down"] if n != "before RL"]
    assert seen["down"][-1] == "before RL" and [n for n in seen["up"] if n != "before RL"] == numbers[::-1]
    assert {"Final figures", "The entropy law", "Token covariance at the end", "Make it again"} <= {
        *seen["heads"]
    }
    assert "ecrl sweep sweep.yaml" in page and (report / "sweep.yaml").exists()
    picture = tmp_path / "page.png"
    browse(f"--window-size={width},900", f"--screenshot={picture}", f"file://{report / 'index.html'}")
    assert picture.stat().st_size > 10_000


def browse(*words: str) -> str:
    assert CHROMIUM is not None
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=5000", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
