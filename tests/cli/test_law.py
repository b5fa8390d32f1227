"""`ecrl law` on our runs and on others' logs."""

from __future__ import annotations

import csv
import errno
import json
import os
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from ecrl.analysis.law import fit_law
from ecrl.cli import main
from tests.support.runs import history


def law_rows(output: Path) -> list[dict[str, str]]:
    with (output / "law.csv").open() as file:
        return list(csv.DictReader(file))


def test_ecrl_law_prints_and_writes(
    validated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    assert main(["law", str(validated), f"output={output}"]) == 0
    said = capsys.readouterr().out
    assert "val/digits/avg@2 after update t" in said and "first 15%: a fit takes at least 5" in said
    rows = history(validated)
    law = fit_law([r["policy/entropy"] for r in rows[1:]], [r["val/digits/avg@2"] for r in rows[:-1]])
    assert f"{law.a:.3f}" in said and f"{law.ceiling_interval[1]:.3f}" in said
    (row,) = law_rows(output)
    assert float(row["a"]) == law.a and row["reward"] == "val/digits/avg@2" and row["early_0.15_rmse"] == ""
    with (output / "points.csv").open() as file:
        assert len(list(csv.DictReader(file))) == law.points == 10
    assert (output / "law.png").read_bytes().startswith(b"\x89PNG")
    assert main(["law", str(validated), f"output={output}"]) == 2
    assert "nothing is overwritten" in capsys.readouterr().err


def test_a_folder_of_runs_stands_for_its_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("GRPO-1", "GRPO-2"):
        (tmp_path / name).mkdir()
        rows = ({"iteration": i, "policy/entropy": 1 / i, "rollout/reward": i} for i in range(1, 9))
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "logs").mkdir()
    assert main(["law", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "GRPO-1" in said and "GRPO-2" in said and "logs" not in said


def test_ecrl_law_over_model_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Logs of another framework, with its names and its clock."""
    sizes, entropy = (0.5, 1.5, 3.0), np.linspace(0.8, 0.1, 40)
    for size in sizes:
        a, b = 0.1 + 0.05 * np.log(size), 0.8 + 0.1 * np.log(size)
        lines = (
            json.dumps({"trained": i, "actor/entropy": h, "critic/rewards/mean": b - a * np.exp(h)})
            for i, h in enumerate(entropy.tolist(), start=1)
        )
        (tmp_path / f"{size}.jsonl").write_text("\n".join(lines))
    words = [str(tmp_path / f"{size}.jsonl") for size in sizes]
    columns = ["reward=critic/rewards/mean", "entropy=actor/entropy", "iteration=trained"]
    assert main(["law", *words, *columns, "sizes=0.5,1.5,3", "predict=32", f"output={tmp_path / 'o'}"]) == 0
    said = capsys.readouterr().out
    a, b = 0.1 + 0.05 * np.log(32), 0.8 + 0.1 * np.log(32)
    (line,) = (line for line in said.splitlines() if line.split()[:1] == ["32"])
    assert line.split()[1:] == [f"{a:.3f}", f"{b:.3f}", f"{b - a:.3f}"]
    assert [float(row["early_0.15_rmse"]) for row in law_rows(tmp_path / "o")] == pytest.approx(
        [0] * 3, abs=1e-9
    )


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "at least one run"),
        (["RUN", "rewad=x"], "Did you mean 'reward'?"),
        (["RUN", "reward=val/digits/avg@3"], "Did you mean 'val/digits/avg@2'?"),
        (["RUN", "entropy=policy/entrop"], "Did you mean 'policy/entropy'?"),
        (["RUN", "iteration=stp"], "Did you mean 'step'?"),
        (["RUN", "smooth=0"], "smooth must be at least 1, got 0"),
        (["RUN", "smooth=1.5"], "whole number"),
        (["RUN", "reward=rollout/reward", "smooth=50"], "a mean of 50 takes as many iterations"),
        (["RUN", "smooth=2", "smooth=3"], "smooth stands twice"),
        (["RUN", "RUN"], "name each run once"),
        (["RUN", "OTHER", "sizes=1"], "1 sizes for 2 runs"),
        (["RUN", "sizes=1,-2"], "sizes must be above 0, got -2"),
        (["RUN", "sizes=big"], "sizes takes numbers with commas between them, got 'big'"),
        (["RUN", "sizes=1"], "three sizes or more"),
        (["RUN", "predict=3"], "sizes=S1,S2"),
        (["RUN", "nowhere"], "nowhere does not exist"),
        (["RUN", "OTHER"], "Name one that all have"),
    ],
)
def test_ecrl_law_refuses_in_a_line(
    words: list[str], says: str, validated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.csv"
    other.write_text(
        "iteration,policy/entropy,rollout/reward\n" + "".join(f"{i},0.{i},{i}\n" for i in range(1, 9))
    )
    assert main(["law", *({"RUN": str(validated), "OTHER": str(other)}.get(w, w) for w in words)]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def write_log(folder: Path, name: str, rows: int, reward: str = "rollout/reward") -> Path:
    folder.mkdir(exist_ok=True)
    with (folder / name).open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["iteration", "policy/entropy", reward])
        lines.writerows([i, 1 / i, 1 - np.exp(1 / i) / 4 + 0.01 * (-1) ** i] for i in range(1, rows + 1))
    return folder / name


def test_names_are_no_markup(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write_log(tmp_path, "[red]:x:.csv", 12, "[/r]")
    assert main(["law", str(log), "reward=[/r]"]) == 0
    said = capsys.readouterr().out
    assert "[red]:x:.csv" in said and "[/r] with policy/entropy" in said


def test_a_name_that_is_no_utf8(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = write_log(tmp_path, os.fsdecode(b"caf\xe9.csv"), 12)
    assert main(["law", str(log), f"output={tmp_path / 'o'}"]) == 0
    assert "caf?.csv" in capsys.readouterr().out and law_rows(tmp_path / "o")[0]["run"] == "caf?.csv"


@pytest.mark.parametrize(("points", "shares"), [(12, []), (13, ["36%"]), (30, ["36%"]), (31, ["15%", "36%"])])
def test_how_many_points_an_early_prediction_takes(
    points: int, shares: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["law", str(write_log(tmp_path, "log.csv", points))]) == 0
    said = capsys.readouterr().out
    assert ("Early prediction" in said) == bool(shares)
    assert [share for share in ("15%", "36%") if f"prediction from the first {share}" not in said] == shares


def test_what_would_fail_after_the_work_is_refused_before_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = write_log(tmp_path, "log.csv", 12)
    for word in (f"output={log}/x", f"output={'x' * 5000}", "-m", "--cfg", "--config-dir"):
        assert main(["law", str(log), word]) == 2
        captured = capsys.readouterr()
        assert captured.err.count("\n") == 1 and "points" not in captured.out
    monkeypatch.setattr(Figure, "savefig", no_room)
    assert main(["law", str(log), f"output={tmp_path / 'o'}"]) == 2
    assert "cannot be written: [Errno 28]" in capsys.readouterr().err


def no_room(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
