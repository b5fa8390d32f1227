"""`ecrl replay`: what it prints and writes, and what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ecrl.cli import main
from tests.support.cli import refused
from tests.support.paths import ROOT
from tests.support.runs import run
from tests.support.tiny import LEARNING, TINY


@pytest.fixture(scope="module")
def run_dir(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    words = ["strategy=[kl_cov]", "strategy.kl_cov.fraction=0.1", "iterations=1", "log.rollout_tokens=true"]
    base = [*TINY, *LEARNING, f"model.path={tiny_model}"]
    return run(base, tmp_path_factory.mktemp("replay") / "run", *words)


def test_what_is_printed_and_written(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = ["strategy=[clip_cov,kl_cov]", "strategy.clip_cov={fraction: 0.1, low: 0.0, high: 100.0}"]
    output = tmp_path / "out"
    assert main(["replay", str(run_dir), "iteration=1", *words, "count=3", f"output={output}"]) == 0
    out = capsys.readouterr().out
    assert "clip_cov, kl_cov" in out and "(all)" in out and "clip_cov: weight 1 → 0" in out
    assert "chosen tokens are in «»" in out and "«" in out.split("tokens chosen")[1]
    *lines, last = out.splitlines()
    assert max(map(len, (line for line in lines if "run, iteration" not in line))) <= 80
    assert last == f"Look at it:  {output / 'replay.html'}"
    rows = pq.read_table(output / "tokens.parquet").to_pylist()
    chosen = [row for row in rows if "clip_cov" in row["changed_by"]]
    assert chosen and all(row["weight"] == 0 for row in chosen)
    both = {i for i, row in enumerate(rows) if row["changed_by"]}
    assert f"3 of {len(both)} chosen tokens" in out
    assert all(
        ("kl_cov: bounds [0.8, 1.2] → [0, inf]" in r["done"]) == ("kl_cov" in r["changed_by"]) for r in rows
    )
    assert all(bool(row["done"]) == bool(row["changed_by"]) for row in rows)
    said = " ".join(out.split())
    assert "kl_cov: counted are the tokens chosen. Not counted are " in said
    assert " others, of which only the ratio's bounds were moved." in said
    own = "kl_cov: fraction=0.002, coefficient=1.0, estimator=abs, keep_clip=false"
    assert own in said and "clip_cov: fraction=0.1, low=0.0, high=100.0, " in said
    page = (ROOT / "docs" / "rollouts.md").read_text()
    assert all(f"`{name}`" in page for name in rows[0])
    assert f"{len(rows)} tokens in 2 minibatches" in out
    page = (output / "replay.html").read_text()
    command = f"ecrl replay {run_dir} iteration=1 &#x27;strategy=[clip_cov,kl_cov]&#x27; "
    assert f"<pre>{command}" in page and f"<li>{own}</li>" in page
    assert "weight 1" in page and 'name="viewport"' in page and "tokens chosen, underlined" in page
    assert "exists already" in refused(capsys, "replay", str(run_dir), "iteration=1", f"output={output}")


def test_what_a_replay_names_and_which_covariances_a_row_shows(
    run_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["replay", str(run_dir), "iteration=1"]) == 0
    (limit,) = re.findall(r"in braces from (\S+) on", capsys.readouterr().out)
    words = ["replay", str(run_dir), "iteration=1", "strategy=[clip_cov_small,kl_cov_small]"]
    assert main(words) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "clip_cov, preset clip_cov_small: fraction=0.02, low=0.8, high=null, " in out
    assert "kl_cov, preset kl_cov_small: fraction=0.1, coefficient=2.0, " in out
    for row in (0, 5):
        assert main(["rollouts", str(run_dir), "iteration=1", f"show={row}"]) == 0
        assert f"tokens by covariances: in braces from {limit} on" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ([], "needs iteration=N"),
        (["iteration=0"], "iteration must be at least 1, got 0."),
        (["iteration=1", "update.lr=1"], "'update.lr=1': a replay keeps the run's settings but strategy=[…]"),
        (["iteration=1", "strategy=[]"], "There is no strategy to replay: give strategy=[NAME]."),
        (["iteration=1", "strategy=[clip_cv]"], "clip_cv"),
        (["iteration=2"], "has no rollouts of iteration 2; it has those of 1."),
    ],
)
def test_bad_input(words: list[str], line: str, run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert line in refused(capsys, "replay", str(run_dir), *words)


def test_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "takes one run, got 0" in refused(capsys, "replay", "iteration=1")
    assert "is not a run directory" in refused(capsys, "replay", str(tmp_path), "iteration=1")
