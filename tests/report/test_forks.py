"""A run and its fork: where the fork's curves begin, what it is called, and what is known of its parent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ecrl.cli import main
from ecrl.report.clocks import clocks
from ecrl.report.data import compare
from ecrl.report.reproduce import commands
from ecrl.report.runs import group, read_run
from ecrl.report.samples import moments
from ecrl.runs.commands import Command, save_command
from tests.support.cli import refused
from tests.support.reports import answer, make_pair, make_run, rows, table, write_part


def report(paths: list[Path], output: Path) -> str:
    assert main(["report", *map(str, paths), f"output={output}"]) == 0
    return (output / "report.md").read_text().replace("\\", "")


def test_a_run_and_its_fork(tmp_path: Path) -> None:
    text = report(make_pair(tmp_path), tmp_path / "out")
    assert "> kl_cov is a fork of plain at iteration 10: its curves begin there." in text
    assert "2 arms × 1 seed, up to iteration 40" in text
    curve = [r for r in table(tmp_path / "out" / "figures" / "task_avg_4.csv") if r["arm"] == "kl_cov"]
    # Its parent had drawn 101 tokens an iteration, in a hundredth of an hour.
    assert [float(curve[0][x]) for x in ("iterations", "tokens", "hours")] == pytest.approx([10, 1010, 0.1])
    assert [float(curve[-1][x]) for x in ("iterations", "tokens", "hours")] == pytest.approx([40, 4040, 0.4])
    start, middle = rows(1)[0]["val/task/avg@4"], rows(1, 0.1)[0]["val/task/avg@4"]
    lines = text.splitlines()
    assert any(line.startswith(f"| before RL | – | – | {start:.3f} |") for line in lines)
    assert any(line.startswith(f"| plain at iteration 10 | – | – | {middle:.3f} |") for line in lines)
    # The settings in which they differ, and not the model, which is the same.
    assert "| fork of | – | plain at iteration 10 |" in text
    assert "| strategy.kl_cov.fraction | – | 0.1 |" in text and "/home/someone" not in text
    shared = text[text.index("## Settings that all share") :]
    assert "| update.lr |" in shared and "checkpoint.load" not in shared and "log." not in shared
    # One seed each: the text says what happened to the fork as well.
    assert "kl_cov, at the end (and against plain): entropy (nats) 0." in text


def test_what_the_parent_had_spent_is_not_on_record(tmp_path: Path) -> None:
    plain, fork = make_pair(tmp_path / "runs")
    moved = shutil.move(plain, tmp_path / "elsewhere")
    apart = compare(group([read_run(Path(moved)), read_run(fork)], {}), None)
    assert any(
        "kl_cov is a fork of plain at iteration 10: its curves begin there." in note for note in apart.notes
    )
    assert "What was spent before a fork is not on record: curves are over iterations only." in apart.notes
    assert clocks(apart.arms) == ["iterations"]
    # A parent that moved with its fork is found beside it.
    (tmp_path / "new").mkdir()
    shutil.move(moved, tmp_path / "new" / "plain")
    shutil.move(fork, tmp_path / "new" / "kl_cov")
    together = compare(group([read_run(tmp_path / "new" / name) for name in ("plain", "kl_cov")], {}), None)
    assert clocks(together.arms) == ["iterations", "tokens", "hours"]


def test_a_fork_alone_counts_as_it_counted(tmp_path: Path) -> None:
    fork = make_pair(tmp_path)[1]
    text = report([fork], tmp_path / "out")
    assert "> This run is a fork of plain at iteration 10. Its iterations are counted from there." in text
    assert "30 iterations took" in text and "before RL" not in text.split("## Figures")[0]
    assert table(tmp_path / "out" / "figures" / "task_avg_4.csv")[0]["iterations"] == "0.0"


def test_a_fork_may_end_after_its_parent(tmp_path: Path) -> None:
    comparison = compare(group([read_run(p) for p in make_pair(tmp_path, parent=20, at=20)], {}), None)
    assert comparison.iterations == 50
    assert any("plain ends at iteration 20" in note for note in comparison.notes)
    # The last fifth of 50 iterations: 11 to 20 of the one, 41 to 50 of the other.
    plain, fork = (comparison.finals(arm, "policy/entropy")[1] for arm in comparison.arms)
    assert plain == pytest.approx(sum(row["policy/entropy"] for row in rows(1)[11:21]) / 10)
    assert fork == pytest.approx(sum(row["policy/entropy"] for row in rows(1)[21:31]) / 10)


def test_a_fork_without_a_common_iteration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fork = make_pair(tmp_path, at=30)[1]
    other = make_run(tmp_path / "other", "seed=1", "update.lr=1e-5", metrics=rows(1, iterations=20))
    line = refused(capsys, "report", str(fork), str(other), f"output={tmp_path / 'out'}")
    assert f"{fork} was forked at iteration 30, and {other} ends at 20" in line


def test_forks_of_several_seeds_are_one_arm(tmp_path: Path) -> None:
    paths = []
    for seed in (1, 2):
        plain = make_run(tmp_path / f"plain-{seed}", f"seed={seed}", metrics=rows(seed))
        words = [f"seed={seed}", "strategy=[clip_cov]"]
        paths += [
            plain,
            make_run(tmp_path / f"held-{seed}", *words, metrics=rows(seed, iterations=20), fork=plain, at=20),
        ]
    comparison = compare(group([read_run(path) for path in paths], {}), None)
    assert [(arm.name, sorted(arm.runs)) for arm in comparison.arms] == [("plain", [1, 2]), ("held", [1, 2])]
    again = make_run(tmp_path / "other-1", *words[1:], "seed=1", metrics=rows(1), fork=paths[0], at=10)
    assert len(group([read_run(path) for path in [*paths, again]], {})) == 3  # from another iteration


def test_a_fork_is_made_again_after_its_parent(tmp_path: Path) -> None:
    plain, fork = make_pair(tmp_path)
    save_command(plain, Command(0, ["strategy=[]"]))
    save_command(fork, Command(0, [f"fork={plain}", "checkpoint=10"]))
    for paths in ([fork], [fork, plain]):  # alone too, and each once
        *lines, last = commands(compare(group([read_run(path) for path in paths], {}), None), None, [])
        assert last == "ecrl report" and lines == [
            f"ecrl train 'strategy=[]' iterations=40 run_dir={plain}",
            f"ecrl train fork={plain} checkpoint=10 iterations=30 run_dir={fork}",
        ]


def test_samples_of_a_fork_have_both_counts(tmp_path: Path) -> None:
    paths = make_pair(tmp_path)
    write_part(paths[1], 30, [answer(1, "a", 1.0)])
    found, _ = moments(compare(group([read_run(path) for path in paths], {}), None))
    assert [m.title for m in found] == ["At the start: iteration 40 (30 of the fork)"]
