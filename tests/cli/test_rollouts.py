"""`ecrl rollouts`: what it lists, what it shows, what it refuses."""

from __future__ import annotations

import re
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from ecrl.cli import main
from ecrl.cli.listing import listing, shortened, shortened_inside
from ecrl.cli.token_colours import legend, written
from ecrl.errors import UsageError
from ecrl.runs.rollouts import COLUMNS, TOKEN_COLUMNS, part_path, read_rollouts, validated_sets
from ecrl.runs.row_filter import check_metrics, conditions, sorted_rows
from ecrl.runs.same_answers import distinct_answers, with_same
from tests.support.cli import refused
from tests.support.paths import ROOT

ROWS = [
    {
        "reward": 0.0,
        "truncated": True,
        "answer": None,
        "length": 7,
        "metrics": [{"name": "a@1", "value": 0.5}],
    },
    {"reward": 1.0, "truncated": False, "answer": "a<b", "length": 3, "metrics": []},
    {
        "reward": 1.0,
        "truncated": True,
        "answer": "7",
        "length": 5,
        "metrics": [{"name": "a@1", "value": 2.0}],
    },
]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("reward=0", [0]),
        ("reward=1,truncated=true", [2]),
        ("length>=5", [0, 2]),
        ("length != 5", [0, 1]),
        ("answer=null", [0]),
        ("answer!=null,length<4", [1]),
        ("answer=a<b", [1]),
        ("metrics.a@1>0.4", [0, 2]),
        ("metrics.a@1=null", [1]),
    ],
)
def test_conditions(text: str, found: list[int]) -> None:
    wanted = conditions(text)
    assert [i for i, row in enumerate(ROWS) if all(c.holds(row) for c in wanted)] == found


def test_order() -> None:
    assert [row["length"] for row in sorted_rows(ROWS, "length")] == [3, 5, 7]
    assert [row["length"] for row in sorted_rows(ROWS, "-length")] == [7, 5, 3]
    assert [row["answer"] for row in sorted_rows(ROWS, "-answer")] == ["a<b", "7", None]
    assert [row["length"] for row in sorted_rows(ROWS, "-metrics.a@1")] == [5, 7, 3]


def test_a_metric_that_no_row_has_is_refused() -> None:
    check_metrics(["metrics.a@1", "reward"], ROWS)
    with pytest.raises(UsageError, match="Unknown metric of the environment 'a@2'"):
        check_metrics(["metrics.a@2"], ROWS)


def test_how_often_a_group_says_the_same() -> None:
    said = [(1, "4"), (1, "4"), (1, None), (1, None), (2, "4")]
    rows = [
        {"problem": problem, "answer": answer, "greedy": False, "response": f"r{number}"}
        for number, (problem, answer) in enumerate(said)
    ]
    rows.append(rows[0] | {"greedy": True})
    assert [row["same"] for row in with_same(rows)] == [2, 2, 1, 1, 1, 1]
    assert distinct_answers(rows[:5]) == (3 + 1) / 2
    assert distinct_answers(rows[:2]) == distinct_answers([rows[0], rows[5]]) == 1


def test_the_list_fits_the_terminal_and_shows_the_problem(
    finished_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["rollouts", str(finished_run), "count=3", "sort=-same"]) == 0
    out = capsys.readouterr().out
    first, heading, numbers, text, *_ = out.splitlines()
    assert "32 responses" in first and heading.split()[:3] == ["row", "reward", "length"]
    row = read_rollouts(finished_run, 2)[int(numbers.split()[0])]
    assert text.strip().startswith(row["prompt"].split("\n")[0]) and " → " in text
    assert all(len(line) <= 80 for line in out.splitlines() if not line.startswith("One in full"))
    assert ", distinct " in out
    same = heading.split().index("same")
    assert int(numbers.split()[same]) >= int(out.splitlines()[4].split()[same]) >= 1


def test_a_list_of_wide_texts_is_cut() -> None:
    entry = {"row": "1", "covariance": "0.125", "answer": "漢" * 40}, "x" * 100
    assert [line.cell_len for line in listing([entry], 40, ["answer"])] == [40, 40, 40, 40, 40 - 2]
    assert str(list(listing([entry], 40, ["answer"]))[1]).endswith("漢…")
    assert shortened_inside("abcdefghij", 7) == "ab … ij" and shortened("abcdef", 6) == "abcdef"


def test_without_colours_tokens_have_numbers() -> None:
    console = Console(file=StringIO(), color_system=None)
    shown = written(console, ["a", "b\n", "c"], [3.0, -0.4, 0.1], 3.0, marked=[0, 2])
    assert shown.plain == "«a»{3}b⏎\n«c»" and "in braces" in legend(console, 3.0)
    coloured = Console(file=StringIO(), color_system="256", force_terminal=True, no_color=False)
    assert written(coloured, ["a", "b"], [3.0, -0.4], 3.0).plain == "ab"
    no_colour = Console(file=StringIO(), color_system="256", force_terminal=True, no_color=True)
    assert written(no_colour, ["a"], [3.0], 3.0).plain == "a{3}"


def test_a_list_holds_what_was_asked_for(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = read_rollouts(finished_run, 2)
    wanted = [row for row in rows if row["truncated"] and row["length"] > 3]
    words = ["where=truncated=true,length>3", "sort=-entropy", "count=5", "text=."]
    assert main(["rollouts", str(finished_run), "iteration=2", *words]) == 0
    out = capsys.readouterr().out
    assert f"{len([r for r in wanted if re.search('.', r['response'])])} of {len(rows)} responses" in out
    (best,) = re.findall(r"show=(\d+)", out)
    assert rows[int(best)]["entropy"] == max(row["entropy"] for row in wanted)
    assert main(["rollouts", str(finished_run), f"show={best}"]) == 0
    out = capsys.readouterr().out
    assert "Its tokens are not on disk (log.rollout_tokens). " in out and "log.rollout_tokens=true" in out
    assert rows[int(best)]["prompt"].strip() in out and "prompt" in out and "iteration 2" in out
    (name,) = validated_sets(finished_run)
    assert main(["rollouts", str(finished_run), f"set={name}", "where=greedy=true"]) == 0
    assert f"4 of 12 responses, iteration 2, validation set {name}" in capsys.readouterr().out


def test_nothing_found_is_said(finished_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rollouts", str(finished_run), "where=reward>5"]) == 0
    assert capsys.readouterr().out.startswith("0 of 32 responses, iteration 2")


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["where=rewrd=1"], "Unknown column 'rewrd'. Did you mean 'reward'?"),
        (["where=metrics.nope=1"], "metrics.nope: this environment reports no metrics."),
        (["sort=-metrics.nope"], "metrics.nope: this environment reports no metrics."),
        (["where=reward"], "'reward' is no condition; write COLUMN=VALUE"),
        (["where=reward=x"], "reward is a number; got 'x'."),
        (["where=truncated<true"], "truncated is true or false; compare it with = or !=."),
        (["where=truncated=yes"], "truncated is true or false; got 'yes'."),
        (["text=("], "text='(' is no regular expression"),
        (["sort=prompts"], "Unknown column 'prompts'. Did you mean 'prompt'?"),
        (["show=32"], "show=32: there are 32 rows, from 0 to 31."),
        (["set=nothing"], "Unknown validation set 'nothing'."),
        (["iteration=3"], "has no rollouts of iteration 3; it has those of 1, 2."),
        (["count=0"], "count must be at least 1, got 0."),
    ],
)
def test_bad_input(
    words: list[str], line: str, finished_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert line in refused(capsys, "rollouts", str(finished_run), *words)


def test_runs_that_have_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "takes one run, got 0" in refused(capsys, "rollouts")
    assert "is not a run directory" in refused(capsys, "rollouts", str(tmp_path / "none"))
    assert "has no rollouts. Runs with log.rollouts=true" in refused(capsys, "rollouts", str(tmp_path))
    part_path(tmp_path, 1).parent.mkdir(parents=True)
    part_path(tmp_path, 1).write_bytes(b"PAR1 cut short")
    for iteration in range(2, 13):
        part_path(tmp_path, iteration).touch()
    some = "has no rollouts of iteration 99; it has those of 12 iterations, from 1 to 12."
    assert some in refused(capsys, "rollouts", str(tmp_path), "iteration=99")
    assert "000001.parquet cannot be read" in refused(capsys, "rollouts", str(tmp_path), "iteration=1")
    assert "has no rollouts of a validation" in refused(capsys, "rollouts", str(tmp_path), "set=x")
    with pytest.raises(UsageError, match="no answers to a validation set"):
        read_rollouts(tmp_path, 1, "gsm8k")


def test_the_page_has_every_column() -> None:
    page = (ROOT / "docs" / "rollouts.md").read_text()
    for name, (_, meaning) in {**COLUMNS, **TOKEN_COLUMNS}.items():
        assert f"| `{name}` | {meaning} |" in page
