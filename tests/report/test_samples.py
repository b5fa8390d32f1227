"""Samples of a report: which are shown, and how their tokens are."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecrl.cli import main
from ecrl.report.data import compare
from ecrl.report.runs import group, read_run
from ecrl.report.samples import Token, moments
from ecrl.runs.rollouts import part_path
from tests.support.reports import answer, make_run, rows, write_part


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Entropy is 1 nat until iteration 20, then 0, then 0.05; parts of iterations 1, 20, 22 and 40."""
    metrics = rows(1)
    for row in metrics[1:]:
        row |= {"policy/entropy": 1.0 if row["iteration"] <= 20 else 0.05}
    metrics[21] |= {"policy/entropy": 0.0}
    run = make_run(tmp_path / "run", metrics=metrics)
    tokens = {"token_texts": ["a<b>", "\n"], "token_entropy": [0.25, 0.5], "covariances": [0.125, -0.25]}
    answers = [answer(p, f"{p}{c}", 0.0) for p in (7, 8) for c in "ab"]
    answers += [answer(9, "bad", 0.0, truncated=True), answer(9, "a<b>\n", 1.0, **tokens)]
    for iteration in (1, 20, 22, 40):
        write_part(run, iteration, answers)
    return run


def test_moments_problems_and_answers(run: Path) -> None:
    found, _ = moments(compare(group([read_run(run)], {}), None))
    # Means of three iterations fall fastest to iteration 21; 20 and 22 are as near, and the first is taken.
    assert [m.title.rpartition(" ")[2] for m in found] == ["1", "20", "40"]
    assert [m.title.partition(":")[0] for m in found] == [
        "At the start",
        "Where entropy fell fastest",
        "At the end",
    ]
    # First the problem whose answers differ: the best and the worst; one answer of the others.
    assert [s.response for s in found[0].samples] == ["a<b>\n", "bad", "7a", "8a"]
    assert [s.prompt for s in found[0].samples] == ["<q9>\n", "", "<q7>\n", "<q8>\n"]  # once a problem
    best, worst = found[0].samples[:2]
    assert best.tokens == [[Token("a<b>", 0.25, 0.125), Token("\n", 0.5, -0.25)]] and worst.tokens == []
    assert best.facts == "reward 1, mean of its 2 answers 0.5, 2 tokens, entropy 0.5 nats a token"
    assert "cut off" in worst.facts


def test_samples_on_the_page(run: Path) -> None:
    assert main(["report", str(run)]) == 0
    page = (run / "report" / "index.html").read_text()
    # Shares of the largest, 0.5 and 0.25 nats.
    assert (
        '<i tabindex="0" style="--e:0.50;--c:0.50" data-v="entropy 0.250 nats, covariance +0.1250 nats">'
        "a&lt;b&gt;</i>"
    ) in page
    assert '<i class="n" tabindex="0" style="--e:1.00;--c:1.00"' in page and ">⏎\n</i>" in page
    assert "a<b>" not in page
    text = (run / "report" / "report.md").read_text()
    assert "### This run. At the end: iteration 40" in text and "> a\\<b\\>" in text


def test_a_long_answer_is_cut(run: Path) -> None:
    tokens = {"token_texts": ["x"] * 1000, "old_entropy": [0.5] * 1000}
    write_part(run, 1, [answer(1, "x" * 5000, 1.0, **tokens)])
    (sample,) = moments(compare(group([read_run(run)], {}), None))[0][0].samples
    assert [len(part) for part in sample.tokens] == [300, 150]
    assert len(sample.response) == 1200 + len(" […] ") + 600


def test_runs_without_rollouts_have_no_samples(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", metrics=rows(1))
    assert moments(compare(group([read_run(run)], {}), None)) == ([], [])


def test_a_part_that_is_cut_is_said_and_left_out(run: Path) -> None:
    part = part_path(run, 40)
    part.write_bytes(part.read_bytes()[:-100])
    assert main(["report", str(run)]) == 0
    text = (run / "report" / "report.md").read_text().replace("\\", "")
    assert f"> Samples of iteration 40 are left out: {part} cannot be read" in text
    assert "Where entropy fell fastest: iteration 20" in text and "At the end: iteration 40" not in text
