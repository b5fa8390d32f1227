"""Reading runs, ours and others'."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from torch.utils.tensorboard import SummaryWriter

from ecrl.analysis.points import pair
from ecrl.analysis.series import read_series
from ecrl.errors import UsageError, usage_errors

# A validation before the first iteration and after the second and fourth; one entropy was not measured.
ROWS = [
    {"iteration": 0, "val/task/avg@4": 0.1},
    {"iteration": 1, "policy/entropy": 0.9, "rollout/reward": 0.12},
    {"iteration": 2, "policy/entropy": 0.7, "rollout/reward": 0.2, "val/task/avg@4": 0.3},
    {"iteration": 3, "policy/entropy": None, "rollout/reward": 0.3},
    {"iteration": 4, "policy/entropy": 0.4, "rollout/reward": 0.35, "val/task/avg@4": 0.5},
]


def write_run(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.yaml").write_text("seed: 0\n")
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return folder


def write_csv(path: Path) -> Path:
    names = ["iteration", "policy/entropy", "rollout/reward", "val/task/avg@4"]
    lines = [",".join("NaN" if row.get(n) is None else str(row[n]) for n in names) for row in ROWS]
    path.write_text("\n".join([",".join(names), *lines]) + "\n")
    return path


def write_jsonl(path: Path) -> Path:
    """As others log: training and validation in rows of their own."""
    halves = [{k: v for k, v in row.items() if k == "iteration" or k.startswith("val")} for row in ROWS]
    rest = [{k: v for k, v in row.items() if not k.startswith("val")} for row in ROWS]
    path.write_text(
        "".join(json.dumps(row) + "\n" for pair in zip(rest, halves, strict=True) for row in pair)
    )
    return path


def write_board(folder: Path) -> Path:
    with SummaryWriter(str(folder / "deeper")) as board:
        for row in ROWS:
            for name, value in row.items():
                if name != "iteration" and value is not None:
                    board.add_scalar(name, value, row["iteration"])
    return folder


SOURCES = {"run": write_run, "log.csv": write_csv, "log.jsonl": write_jsonl, "board": write_board}


@pytest.mark.parametrize("name", SOURCES)
def test_every_source_reads_the_same(name: str, tmp_path: Path) -> None:
    series = read_series(SOURCES[name](tmp_path / name))
    assert series.iteration.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(series["policy/entropy"], [np.nan, 0.9, 0.7, np.nan, 0.4], rtol=1e-6)
    np.testing.assert_allclose(series["val/task/avg@4"], [0.1, np.nan, 0.3, np.nan, 0.5], rtol=1e-6)


def test_columns_of_others_get_our_names(tmp_path: Path) -> None:
    path = tmp_path / "verl.csv"
    path.write_text("trained,actor/entropy,note\n10,0.5,warm\n20,0.4,\n")
    series = read_series(path, columns={"policy/entropy": "actor/entropy", "iteration": "trained"})
    assert series.iteration.tolist() == [10, 20] and series["policy/entropy"].tolist() == [0.5, 0.4]
    assert "note" not in series.columns


def test_rows_without_a_clock_are_numbered(tmp_path: Path) -> None:
    path = tmp_path / "plain.csv"
    path.write_text("h,r\n0.5,0.1\n0.4,0.2\n")
    assert read_series(path).iteration.tolist() == [1, 2]


def bad(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("run/config.yaml", "seed: 0\n", r"run/metrics.jsonl is missing"),
        ("run/readme.txt", "nothing\n", r"run holds neither metrics.jsonl nor TensorBoard events"),
        ("run/metrics.jsonl", "", r"run holds no metrics"),
        ("run/metrics.jsonl", "[1]\n", r"metrics.jsonl, line 1"),
        ("log.txt", "", r"log.txt is no run directory"),
        ("log.csv", "", r"log.csv holds no metrics"),
        ("log.csv", "iteration,policy/entropy\n1,0.5,3\n", r"log.csv, line 2: not the 2 cells"),
        ("log.csv", "iteration,policy/entropy\n1.5,0.5\n", r"log.csv, row 1: 'iteration' is 1.5"),
        ("log.csv", "iteration,policy/entrop\n1,0.5\n", r"log.csv: Unknown column .* mean 'policy/entrop'"),
        ("log.csv", "iteration,policy/entropy\n1,nan\n2,\n", r"log.csv: column 'policy/entropy' holds no"),
        ("log.csv", "iteration,policy/entropy\n1,0.5\n", r"log.csv: Unknown column 'rollout/reward'"),
        ("log.csv", "iteration,policy/entropy,rollout/reward\n1,0.5,\n2,,0.1\n", r"log.csv: .* measured in"),
        ("log.csv", "iteration,policy/entropy,val/a/avg@2\n1,0.5,\n2,,0.1\n", r"log.csv: .* measured after"),
        ("log.csv", "iteration,policy/entropy,rollout/reward\n1,0.5,0.1\n", r"log.csv, .*5 points, got 1"),
        (
            "log.jsonl",
            '{"step": 1, "policy/entropy": 0.5, "rollout/reward": 0}\n{"step": 1, "policy/entropy": 0.6}\n',
            r"log.jsonl: .* 0.5 and then 0.6 \(row 2\) at step 1; are two runs mixed",
        ),
        ("log.jsonl", '{"step": 1}\n{"step": \n', r"log.jsonl, line 2: not a JSON object"),
        ("log.jsonl", '{"step": "x"}\n', r"log.jsonl, row 1: 'step' is 'x'"),
        ("log.jsonl", '{"step": 1' + "0" * 30 + "}\n", r"log.jsonl, row 1: 'step' is 10"),
        ("log.jsonl", "[" * 100_000 + "\n", r"log.jsonl, line 1: not a JSON object"),
        ("log.jsonl", '{"policy/entropy": 1' + "0" * 400 + "}\n", r"holds '10+' \(row 1\), which is no n"),
        ("log.jsonl", '{"policy/entropy": "low"}\n', r"column 'policy/entropy' holds 'low' \(row 1\), which"),
        ("log.csv", "iteration;policy/entropy\n1;0,5\n", r"column 'policy/entropy' holds '0,5' \(row 1"),
        ("log.csv", "iteration,a,a\n1,2,3\n", r"log.csv: two columns are called 'a'"),
        ("run/metrics.jsonl", '{"iteration": 1, "loss": NaN}\n', r"jsonl, line 1: holds NaN, which is no f"),
    ],
)  # fmt: skip
def test_bad_input_names_the_file_and_what_is_missing(
    name: str, text: str, says: str, tmp_path: Path
) -> None:
    path = bad(tmp_path, name, text)
    source = path if path.parent == tmp_path else path.parent
    with pytest.raises(UsageError, match=says) as caught, usage_errors():
        pair(read_series(source)).law()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("separator", [";", "\t"])
def test_other_separators_and_a_byte_order_mark(separator: str, tmp_path: Path) -> None:
    path = write_csv(tmp_path / "log.csv")
    same = read_series(path)["policy/entropy"]
    path.write_text("\ufeff" + path.read_text().replace(",", separator))
    np.testing.assert_array_equal(read_series(path)["policy/entropy"], same)


def test_two_runs_in_one_folder_with_events_are_refused_and_a_resumed_one_is_not(tmp_path: Path) -> None:
    def log(second: int, entropies: dict[int, float]) -> None:
        with SummaryWriter(str(tmp_path / "new")) as board:
            for step, entropy in entropies.items():
                board.add_scalar("policy/entropy", entropy, step)
        (written,) = (tmp_path / "new").iterdir()
        # Files are read in the order of the second in which they were begun, which their names hold.
        written.rename(tmp_path / "board" / f"events.out.tfevents.{second}.host")

    (tmp_path / "board").mkdir()
    log(1000000001, {1: 0.75, 2: 0.5, 3: 0.25})
    log(1000000002, {3: 0.375, 4: 0.125})
    assert read_series(tmp_path / "board")["policy/entropy"].tolist() == [0.75, 0.5, 0.375, 0.125]
    log(1000000003, {1: 0.625, 2: 0.5})
    with pytest.raises(ValueError, match=r"has 0.75 and then 0.625 .* two runs mixed"):
        read_series(tmp_path / "board")["policy/entropy"]


def test_several_folders_with_events_are_refused(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_board(tmp_path / "boards" / name)
    with pytest.raises(
        UsageError, match=r"boards has 2 folders with TensorBoard events \(one/deeper, two/deeper"
    ):
        read_series(tmp_path / "boards")
    with pytest.raises(UsageError, match="does not exist"):
        read_series(tmp_path / "nowhere")
    with pytest.raises(UsageError, match="'actor/entropy'"):
        read_series(write_csv(tmp_path / "log.csv"), columns={"policy/entropy": "actor/entropy"})
