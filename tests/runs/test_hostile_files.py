"""Checkpoints, models and data that somebody else made are data: no file of them runs code."""

from __future__ import annotations

import io
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.planner import LoadItemType

from ecrl.cli import main
from ecrl.distributed.safe_reading import DataOnlyPlanner
from ecrl.envs.datasets.rows import load_rows
from ecrl.errors import UsageError
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.policy.weights import read_weights
from ecrl.runs.manifest import write_manifest
from tests.support.runs import run
from tests.support.tiny import TINY

#: Code of a model, a tokenizer or a data set, if anybody imported it.
CODE = "import os\nos.mkdir(os.environ['ECRL_TEST_MARK'])\n"


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str]]:
        return os.mkdir, (str(self.mark),)


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "mark"
    monkeypatch.setenv("ECRL_TEST_MARK", str(path))
    pickle.loads(pickle.dumps(Evil(path)))
    path.rmdir()  # it works, where nothing stops it
    return path


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = [*TINY, f"model.path={tiny_model}", "iterations=1"]
    return run(base, tmp_path_factory.mktemp("hostile") / "run")


def evil_metadata(mark: Path) -> bytes:
    return pickle.dumps(Evil(mark))


def dotted_metadata(mark: Path) -> bytes:
    """Reach ``os.mkdir`` through a module that the metadata may name."""
    name = b"torch.distributed.checkpoint.metadata", b"os.mkdir"
    path = str(mark).encode()
    parts = [b"\x80\x04", *(b"\x8c" + bytes([len(n)]) + n for n in name), b"\x93"]
    return b"".join([*parts, b"X", len(path).to_bytes(4, "little"), path, b"\x85R."])


def evil_progress(mark: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"epoch": 1, "callbacks": Evil(mark)}, buffer)
    return buffer.getvalue()


def test_a_checkpoint_of_ours_is_read(finished: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    assert main(["train", f"resume={run_dir}", "iterations=2"]) == 0
    assert (run_dir / "checkpoints" / "2").is_dir()


@pytest.mark.parametrize(
    ("file", "content"),
    [(".metadata", evil_metadata), (".metadata", dotted_metadata), ("progress.pt", evil_progress)],
)
def test_a_checkpoint_with_code(
    finished: Path,
    tmp_path: Path,
    mark: Path,
    file: str,
    content: Callable[[Path], bytes],
    capsys: pytest.CaptureFixture[str],
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    folder = run_dir / "checkpoints" / "1"
    (folder / file).write_bytes(content(mark))
    write_manifest(folder)
    assert main(["train", f"resume={run_dir}", "iterations=2"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and str(folder) in error
    assert not mark.exists()


def test_entries_of_a_checkpoint_that_are_no_tensors(mark: Path) -> None:
    planner, target = DataOnlyPlanner(), {"step": 0}
    planner.set_up_planner(target, None, True)  # type: ignore[arg-type]
    planner.mappings = {"step": ("step",)}
    item: Any = type("Item", (), {"type": LoadItemType.BYTE_IO, "dest_index": type("I", (), {"fqn": "step"})})

    def saved(value: object) -> io.BytesIO:
        buffer = io.BytesIO()
        torch.save(value, buffer)
        buffer.seek(0)
        return buffer

    planner.load_bytes(item, saved(7))
    assert target == {"step": 7}
    with pytest.raises(pickle.UnpicklingError):
        planner.load_bytes(item, saved(Evil(mark)))
    assert not mark.exists()


@pytest.mark.parametrize("known", [True, False])
def test_a_model_with_code_of_its_own(
    tiny_model: Path, tmp_path: Path, mark: Path, known: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    for name in ("evil.py", "configuration_evil.py"):
        (folder / name).write_text(CODE)
    config = json.loads((folder / "config.json").read_text())
    names = {"AutoConfig": "evil.C", "AutoModelForCausalLM": "evil.M"}
    config["auto_map"] = names
    if not known:
        config["model_type"] = "evil"
    (folder / "config.json").write_text(json.dumps(config))
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer["auto_map"] = {"AutoTokenizer": ["evil.T", "evil.T"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    # With a type that transformers knows, its own class is used; another type needs the code, and is refused.
    outcome = main(["train", *TINY, f"model.path={folder}", "iterations=1", f"run_dir={tmp_path}/run"])
    error = capsys.readouterr().err
    assert (outcome, error.count("ecrl: ")) == ((0, 0) if known else (2, 1))
    assert not mark.exists()


def test_weights_in_a_pickle(tiny_model: Path, tmp_path: Path, mark: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    model = load_policy(str(folder), load_tokenizer(str(folder)))
    state = model.lm.state_dict()
    for weights in folder.glob("*.safetensors"):
        weights.unlink()
    torch.save(state, folder / "pytorch_model.bin")
    load_policy(str(folder), load_tokenizer(str(folder)))
    torch.save({**state, "extra": Evil(mark)}, folder / "pytorch_model.bin")
    for load in (
        lambda: load_policy(str(folder), load_tokenizer(str(folder))),
        lambda: read_weights(model.lm, str(folder)),
    ):
        with pytest.raises(UsageError) as raised:
            load()
        assert "\n" not in str(raised.value)
    assert not mark.exists()


def test_data_with_code(tmp_path: Path, mark: Path) -> None:
    pytest.importorskip("datasets")
    import pyarrow as pa
    import pyarrow.parquet as pq

    # Rows are what they are, however they look.
    row = {"question": "__import__('os').mkdir('x')", "answer": pickle.dumps(Evil(mark)).hex()}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    pq.write_table(
        pa.Table.from_pylist([{**row, "raw": pickle.dumps(Evil(mark))}]), tmp_path / "rows.parquet"
    )
    for name in ("rows.jsonl", "rows.parquet"):
        assert dict(load_rows(str(tmp_path / name)).rows[0])["question"] == row["question"]
    # Folders with a loading script, or with a pickle.
    for name, content in {"folder.py": CODE.encode(), "data.pkl": pickle.dumps(Evil(mark))}.items():
        folder = tmp_path / "folder"
        folder.mkdir()
        (folder / name).write_bytes(content)
        with pytest.raises(UsageError):
            load_rows(str(folder))
        (folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
        try:
            load_rows(str(folder))
        except UsageError as error:
            assert "\n" not in str(error)
        shutil.rmtree(folder)
    assert not mark.exists()
