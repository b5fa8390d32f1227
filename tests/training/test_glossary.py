"""The glossary: every logged metric has a meaning, in TensorBoard too, and the page is up to date."""

from __future__ import annotations

from pathlib import Path

from ecrl.runs.metrics_file import read_metrics
from ecrl.training.glossary import GLOSSARY, OVERVIEW, as_markdown, meaning
from tests.support.paths import ROOT
from tests.support.runs import events


def test_the_page_is_what_the_glossary_writes() -> None:
    assert (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8") == as_markdown()


def test_every_metric_of_a_run_has_a_meaning(finished_run: Path, validated: Path) -> None:
    rows = [row for run in (finished_run, validated) for row in read_metrics(run / "metrics.jsonl")]
    names = {name for row in rows for name in row} - {"iteration", "step"}
    assert len(names) > 40
    assert not [name for name in names if meaning(name) is None]


def test_names_find_their_own_meaning() -> None:
    assert meaning("val/math500/avg@4") == GLOSSARY["val/<set>/avg@<k>"]
    assert meaning("val/mean/avg@k") == GLOSSARY["val/mean/avg@k"]
    assert meaning("policy/loss") == GLOSSARY["policy/loss"]
    assert meaning("strategy/kl_cov/fraction") == GLOSSARY["strategy/<name>/fraction"]
    assert meaning("mine/own") is None


def test_tensorboard_shows_them(finished_run: Path) -> None:
    board = events(finished_run)
    assert set(OVERVIEW) <= set(board.Tags()["scalars"])
    assert board.SummaryMetadata("policy/entropy").summary_description == meaning("policy/entropy")
