"""Problems from files: every kind of file, and every way in which one can be wrong."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecrl.envs.base import Problem, Score, Split
from ecrl.envs.datasets.cells import value_at
from ecrl.envs.datasets.row_files import Row
from ecrl.envs.datasets.rows import load_rows
from ecrl.envs.datasets.rows_env import RowsEnv
from ecrl.errors import UsageError
from tests.support.row_files import jsonl

ROWS = [{"q": f"what is {i}?", "a": str(i), "meta": {"source": [{"name": "x"}]}} for i in range(200)]


class Quiz(RowsEnv):
    def __init__(self, path: str | None = None, *, split: Split = "train", **kwargs: Any) -> None:
        super().__init__(["q", "a"], path=path, split=split, **kwargs)

    def problem_of(self, row: Row) -> Problem:
        if row["a"] == "bad":
            raise ValueError("the answer is bad")
        return Problem(row["q"], row["a"])

    def score(self, problem: Problem, response: str) -> Score:
        return Score(float(response == problem.answer))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "rows.jsonl", ROWS)


def write_json(path: Path) -> None:
    path.write_text(json.dumps(ROWS))


def write_csv(path: Path) -> None:
    path.write_text("q,a\n" + "".join(f'"{r["q"]}",{r["a"]}\n' for r in ROWS))


def write_parquet(path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(ROWS), path)


@pytest.mark.parametrize(
    ("kind", "write"), [("json", write_json), ("csv", write_csv), ("parquet", write_parquet)]
)
def test_every_kind_of_file_reads_the_same(kind: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / f"rows.{kind}"
    write(path)
    assert [(r["q"], r["a"]) for r in load_rows(str(path)).rows] == [(r["q"], r["a"]) for r in ROWS]


def test_a_local_copy_of_a_data_set(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    jsonl(tmp_path / "train.jsonl", ROWS)
    jsonl(tmp_path / "test.jsonl", ROWS[:5])
    assert len(load_rows(str(tmp_path))) == 200
    assert len(load_rows(str(tmp_path), part="test")) == 5
    with pytest.raises(UsageError, match=r"no part 'dev'; found train, test"):
        load_rows(str(tmp_path), part="dev")


def test_nested_columns() -> None:
    assert value_at(ROWS[0], "meta.source.0.name") == "x"
    assert value_at({"a.b": 1}, "a.b") == 1
    for column in ("meta.source.1.name", "meta.nothing", "q.0.1"):
        with pytest.raises(ValueError, match=r"no column '.*'; found q, a, meta"):
            value_at(ROWS[0], column)


def test_rows_are_loaded_once_and_again_when_the_file_changes(file: Path) -> None:
    one, other = Quiz(str(file)), Quiz(str(file))
    assert one.rows is other.rows
    jsonl(file, ROWS[:100])
    assert len(Quiz(str(file)).rows) == 100


def test_splits_of_one_file_are_disjoint_and_index_picks_any_row(file: Path) -> None:
    keys = {}
    for split in ("train", "val"):
        env = Quiz(str(file), split=split)
        keys[split] = {env.reset(seed=i)[0] for i in range(300)}
        assert env.reset(options={"index": 7})[0] == "what is 7?"
        assert env.step("7")[1] == 1
    assert keys["train"] and keys["val"] and not keys["train"] & keys["val"]


def test_indices_pose_every_problem_of_a_split_once(file: Path, tmp_path: Path) -> None:
    posed = []
    for split in ("train", "val"):
        env = Quiz(str(file), split=split)
        assert len(env.problem_keys) == len(env.problem_indices)
        posed += [env.reset(options={"index": int(i)})[0] for i in env.problem_indices]
    assert sorted(posed) == sorted(row["q"] for row in ROWS)
    copy = pickle.loads(pickle.dumps(Quiz(str(file), split="val")))
    assert list(copy.problem_indices) == list(Quiz(str(file), split="val").problem_indices)
    few = jsonl(tmp_path / "few.jsonl", ROWS[:2])
    with pytest.raises(UsageError, match=r"few\.jsonl has no problem for validation: of its 2, one in ten"):
        Quiz(str(few), split="val")


def test_a_validation_file_is_taken_whole(file: Path, tmp_path: Path) -> None:
    other = jsonl(tmp_path / "val.jsonl", [{"q": f"val {i}", "a": "1"} for i in range(5)])
    train, val = (Quiz(str(file), split=s, val_path=str(other)) for s in ("train", "val"))
    assert {val.reset(seed=i)[0] for i in range(60)} == {f"val {i}" for i in range(5)}
    assert len({train.reset(seed=i)[0] for i in range(3000)}) == 200


def test_pickle_leaves_the_rows_behind(file: Path) -> None:
    env = Quiz(str(file))
    env.reset(seed=1)
    data = pickle.dumps(env)
    assert len(data) < 5000
    assert pickle.loads(data).reset()[0] == env.reset()[0]


WRONG = {
    "malformed": ("a.jsonl", '{"q": "x", "a": "1"}\n{"q": "x", "a" 1}\n', [":2:16", "not valid JSON"]),
    "no object": ("a.jsonl", "[1]\n", [":1", "an object was wanted", "list"]),
    "no column": ("a.jsonl", '{"q": "x", "b": "1"}\n', [":1: no column 'a'; found q, b"]),
    "no answer": (
        "a.jsonl",
        '{"q": "x", "a": "1"}\n{"q": "x", "a": null}\n',
        [":2: column 'a' is empty: null"],
    ),
    "bad row": ("a.jsonl", '{"q": "x", "a": "bad"}\n', [":1: the answer is bad."]),
    "empty": ("a.jsonl", "\n", ["holds no rows"]),
    "ragged": ("a.csv", "q,a\nx,1\ny\n", [":3", "1 columns instead of 2"]),
    "wide": ("a.csv", "q,a\nx,1,2\n", [":2", "3 columns instead of 2"]),
    "json": ("a.json", '{"q": 1}', ["a list of objects was wanted"]),
    "twice": ("a.csv", "\nq,a,q\nx,1,y\n", [":2: the header has the column 'q' more than once"]),
    "quotes": ("a.csv", 'q,a\n"x\ny",1\n\n"z\nz",""\n', [":5: column 'a' is empty: \"\""]),
    "blank lines": ("a.jsonl", '\n\n{"q": "x", "a": " "}\n', [":3: column 'a' is empty: \" \""]),
    "nan": ("a.jsonl", '{"q": "x", "a": NaN}\n', [":1: column 'a' is empty: NaN"]),
    "digits": ("a.jsonl", '\n{"q": ' + "1" * 5000 + "}\n", [":2: unreadable row", "4300"]),
    "deep": ("a.json", '[{"q": "x"},\n' + '{"a":' * 100_000, [":2: unreadable row (nested too deep)"]),
    "digits in json": ("a.json", '[{"q": "x"},\n{"a": ' + "1" * 5000 + "}]", [":2: unreadable row", "4300"]),
    "line in json": ("a.json", '[{"q": "x", "a": "1"},\n\n {"q": "x",\n "a": []}\n]\n', [":3:", "empty: []"]),
    "comma in json": (
        "a.json",
        '[{"q": "x"}\n{"q": "y"}]',
        [":2:1: not valid JSON (Expecting ',' delimiter)"],
    ),
    "more after json": ("a.json", '[{"q": "x"}]\n\n x', [":3:2: not valid JSON (Extra data)"]),
    "open json": ("a.json", '[{"q": "x"},\n', [":2:1: not valid JSON (Expecting value)"]),
    "empty json": ("a.json", " [ ] ", ["holds no rows"]),
    "kind": ("a.xlsx", "x", ["unknown kind of file '.xlsx'"]),
    "bytes": ("a.parquet", "x", ["not a Parquet file"]),
}


@pytest.mark.parametrize("name", WRONG)
def test_bad_files_are_one_line(name: str, tmp_path: Path) -> None:
    file, text, parts = WRONG[name]
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError) as caught:
        Quiz(str(tmp_path / file))
    message = str(caught.value)
    assert str(tmp_path / file) in message and "\n" not in message
    assert all(part in message for part in parts), message


@pytest.mark.parametrize(("path", "part"), [(None, "path=FILE"), ("/no/where.jsonl", "does not exist")])
def test_no_file_is_one_line(path: str | None, part: str) -> None:
    with pytest.raises(UsageError, match=part):
        Quiz(path)


@pytest.mark.parametrize("index", [-1, 200, "x", 1.5, True])
def test_no_such_row_is_one_line(index: Any, file: Path) -> None:
    with pytest.raises(UsageError, match="rows 0 to 199"):
        Quiz(str(file)).reset(options={"index": index})


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"q": "a", "a": 1', "f.jsonl:2:18: not valid JSON"),
        ("[" * 100_000, "f.jsonl:2: unreadable row .nested too deep."),
    ],
)
def test_rows_that_are_none(line: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "f.jsonl").write_text('{"q": "a", "a": 1}\n' + line + "\n")
    with pytest.raises(UsageError, match=message):
        load_rows(str(tmp_path / "f.jsonl"))


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv"])
def test_what_is_no_utf_8_names_line_and_column(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"f.{kind}"
    file.write_bytes(b"\xef\xbb\xbf[\n\nab\xff")
    with pytest.raises(UsageError, match=rf"f\.{kind}:3:3: not UTF-8 .byte 0xff."):
        load_rows(str(file))


def test_every_row_is_tried_and_the_bad_ones_are_counted(tmp_path: Path) -> None:
    rows = [*ROWS, {"q": "x", "a": "bad"}, {"q": "x", "a": None}, {"q": "y", "a": "bad"}]
    path = str(jsonl(tmp_path / "f.jsonl", rows))
    with pytest.raises(UsageError, match=r"f\.jsonl:201: the answer is bad \(2 more of 203 rows are bad"):
        Quiz(path)
    with pytest.warns(UserWarning, match="201: the answer is bad .2 more.*; skipped"):
        env = Quiz(path, bad_rows="skip")
    assert {env.reset(seed=i)[1]["problem"].answer for i in range(2000)} <= {row["a"] for row in ROWS}
    with pytest.raises(UsageError, match=r"f\.jsonl:201: the answer is bad\.$"):
        env.reset(options={"index": 200})
    with pytest.raises(UsageError, match="2 more of 3 rows"):
        Quiz(str(jsonl(tmp_path / "g.jsonl", rows[200:])), bad_rows="skip")


def test_a_bad_row_that_was_not_tried_is_skipped_when_it_is_posed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Quiz, "rows_tried", 100)  # every second row
    monkeypatch.setattr(Quiz, "key_of", lambda self, row: row["q"])
    rows = [{**row, "a": "bad" if i == 9 else row["a"]} for i, row in enumerate(ROWS)]
    path, val = str(jsonl(tmp_path / "f.jsonl", rows)), str(jsonl(tmp_path / "val.jsonl", ROWS[:1]))
    env = Quiz(path, val_path=val, bad_rows="skip")
    assert 9 in env.problem_indices
    assert env.reset(options={"index": 9})[0] == "what is 10?"
    assert {env.reset(seed=i)[1]["problem"].answer for i in range(2000)} <= {row["a"] for row in ROWS}
    with pytest.raises(UsageError, match=r"f\.jsonl:10: the answer is bad\.$"):
        Quiz(path, val_path=val).reset(options={"index": 9})


def test_environments_share_what_the_rows_hold(file: Path) -> None:
    assert Quiz(str(file)).problem_indices is Quiz(str(file)).problem_indices


def test_many_environments_try_the_rows_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Row] = []

    def problem_of(self: Quiz, row: Row) -> Problem:
        read.append(row)
        return Problem(row["q"], row["a"])

    monkeypatch.setattr(Quiz, "problem_of", problem_of)
    splits: tuple[Split, ...] = ("train", "val", "train")
    for split in splits:
        Quiz(str(file), split=split)
    assert len(read) == len(ROWS)
    monkeypatch.setattr(Quiz, "rows_tried", 30)
    monkeypatch.setattr(Quiz, "key_of", lambda self, row: row["q"])
    Quiz(str(file), where={"a": "7"})
    Quiz(str(jsonl(file.with_name("g.jsonl"), ROWS)))
    assert len(read) == len(ROWS) + 1 + 29  # of 200 every seventh


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("{", "not valid JSON"),
        ('{"q": "x"}', "1: no column 'a'"),
        ("", "holds no rows"),
    ],
)
def test_training_looks_at_the_rows_of_validation(text: str | None, message: str, file: Path) -> None:
    val = file.with_name("val.jsonl")
    if text is not None:
        val.write_text(text)
    with pytest.raises(UsageError, match=message) as caught:
        Quiz(str(file), val_path=str(val))
    assert str(val) in str(caught.value)


def test_a_folder_that_is_no_data_set_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "notes.md").write_text("x")
    with pytest.raises(UsageError, match="a folder without data files"):
        load_rows(str(tmp_path))
    jsonl(tmp_path / "f.jsonl", ROWS)
    monkeypatch.setattr("ecrl.envs.datasets.rows._MOST_FILES", 1)
    with pytest.raises(UsageError, match="more than 1 files"):
        load_rows(str(tmp_path))


def test_where_takes_plain_values(file: Path) -> None:
    with pytest.raises(UsageError, match=r"where takes a plain value for each column; got \[1\] for 'q'"):
        Quiz(str(file), where={"q": [1]})
