"""Every logger of ``logger=[…]`` with the real package, without a network; refusals, each in a line."""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config
from ecrl.errors import EcrlError, UsageError
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.loggers.base import known_id
from ecrl.training.loggers.tensorboard import TensorBoard
from ecrl.training.preflight import preflight
from ecrl.training.run import train
from tests.support.loggers import logged
from tests.support.marks import slow_unless
from tests.support.runs import events, silent
from tests.support.tiny import TINY

Compose = Callable[..., Config]
SHOWN = ["iterations=2", "eval.every=1", "eval.problems=4", "eval.k=2", "log.samples_every=1"]


@pytest.fixture(autouse=True, scope="module")
def _offline(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a service keeps is below the tests' folders; Trackio reads its own only when it is imported."""
    folder = tmp_path_factory.mktemp("services")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_SILENT", "true")
        patch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        patch.setenv("MLFLOW_TRACKING_URI", f"file:{folder / 'mlruns'}")
        patch.setenv("TRACKIO_DIR", str(folder / "trackio"))
        yield


SERVICES = {
    "csv": ["logger=[csv]"],
    "wandb": ["logger=[wandb]", "logger.wandb.offline=true", "logger.wandb.project=theirs"],
    "mlflow": ["logger=[mlflow]", "logger.mlflow.experiment=theirs"],
    "trackio": ["logger=[trackio]", "logger.trackio.project=theirs"],
}


@pytest.mark.parametrize("service", slow_unless(lambda name: name == "csv", SERVICES))
def test_a_service_gets_each_number_and_a_resumed_run_goes_on(service: str, tiny: Compose) -> None:
    run_dir = train(tiny(*SHOWN, *SERVICES[service], "checkpoint.every=1"), silent).run_dir
    first = known_id(run_dir, service)
    train(resumed_config([f"resume={run_dir}", "iterations=3"]), silent)
    assert known_id(run_dir, service) == first
    assert not (run_dir / "tensorboard").exists()
    got = logged(service, run_dir)
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    for row in rows:
        numbers = {name: value for name, value in row.items() if name not in ("iteration", "step")}
        mine = got.numbers[row["iteration"]]
        assert mine == pytest.approx(numbers), row["iteration"]
    assert got.settings["rollout"]["prompts"] == 8
    if service != "csv":
        assert got.figures
        assert any(name.startswith("samples") for name in got.texts)


def test_all_at_once(tiny: Compose) -> None:
    config = tiny("iterations=1", "logger=[tensorboard,csv]")
    run_dir = train(config, silent).run_dir
    (row,) = read_metrics(run_dir / "metrics.jsonl")
    with (run_dir / "csv" / "metrics.csv").open(newline="") as file:
        (line,) = csv.DictReader(file)
    assert float(line["policy/entropy"]) == row["policy/entropy"] and line["iteration"] == "1"
    assert events(run_dir).Scalars("policy/entropy")[0].step == 1


@pytest.mark.slow
def test_the_first_of_two_processes_logs(tiny_model: Path, tmp_path: Path) -> None:
    words = [*TINY, f"model.path={tiny_model}", f"run_dir={tmp_path / 'run'}", "iterations=2"]
    words += ["trainer.accelerator=cpu", "trainer.devices=2", "logger=[csv,tensorboard]"]
    done = subprocess.run(
        [sys.executable, "-m", "ecrl", "train", *words], capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr
    with (tmp_path / "run" / "csv" / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"]
    assert [event.step for event in events(tmp_path / "run").Scalars("policy/entropy")] == [1, 2]


def test_none(tiny: Compose) -> None:
    run_dir = train(tiny("iterations=1", "logger=[]"), silent).run_dir
    assert len(read_metrics(run_dir / "metrics.jsonl")) == 1
    assert not {"tensorboard", "csv", "loggers.json"} & {path.name for path in run_dir.iterdir()}


def test_a_table_loses_what_a_resumed_run_takes_back(tiny: Compose) -> None:
    run_dir = train(
        tiny("iterations=2", "logger=[csv]", "checkpoint.every=1", "checkpoint.keep=2"), silent
    ).run_dir
    train(resumed_config([f"resume={run_dir}", "iterations=3", "checkpoint=1"]), silent)
    with (run_dir / "csv" / "metrics.csv").open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2", "3"]


def test_any_lightning_logger_gets_the_numbers(tiny: Compose, tmp_path: Path) -> None:
    node = [
        "+logger.mine._target_=lightning.pytorch.loggers.CSVLogger",
        f"logger.mine.save_dir={tmp_path / 'mine'}",
    ]
    config = tiny("iterations=1", "logger=[]", *(word.lstrip("+") for word in node))
    (row,) = read_metrics(train(config, silent).run_dir / "metrics.jsonl")
    (path,) = (tmp_path / "mine").rglob("metrics.csv")
    with path.open(newline="") as file:
        assert [float(line["policy/entropy"]) for line in csv.DictReader(file)] == [row["policy/entropy"]]


@pytest.mark.parametrize(
    ("store", "line"),
    [
        (
            "sqlite:///x.db",
            "sqlite:///x.db is a database, which mlflow-skinny cannot open. Take the full package",
        ),
        (
            "file:/x",
            "MLflow opens file:/x, a folder, only with MLFLOW_ALLOW_FILE_STORE=true in the environment.",
        ),
    ],
)
def test_a_store_that_mlflow_does_not_open_is_refused_before_the_run(
    store: str, line: str, tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow")
    words = ["logger=[mlflow]", f"logger.mlflow.tracking_uri='{store}'"]
    monkeypatch.setattr("ecrl.training.loggers.mlflow.find_spec", lambda name: None)
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE")
    with pytest.raises(UsageError) as refused:
        preflight(tiny(*words))
    assert str(refused.value).startswith(f"logger=[mlflow]: {line}") and "\n" not in str(refused.value)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setattr("ecrl.training.loggers.mlflow.find_spec", lambda name: "there")
    preflight(tiny(*words))


@pytest.mark.slow
def test_wandb_is_silent_offline(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.delenv("WANDB_SILENT")
    train(tiny("iterations=1", "logger=[wandb]", "logger.wandb.offline=true"), silent)
    captured = capfd.readouterr()
    assert "wandb" not in captured.out + captured.err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["logger=[wandbb]"], "Unknown logger 'wandbb'. Did you mean 'wandb'?"),
        (["logger=[csv]", "logger.csv.folder=x"], "Unknown key in logger.csv 'folder'."),
        (["logger=[wandb]", "logger.wandb.tags=3"], "logger.wandb.tags must be a list of texts, got 3."),
        (["logger=[wandb]", "logger.wandb.offline=7"], "logger.wandb.offline must be true or false, got 7."),
        (["logger=[csv,csv]"], "logger=[…] names csv twice; drop one."),
        (["logger=7"], "'logger=7' names nothing; write logger=[NAME,…], one of: csv, mlflow, tensorboard,"),
        (["logger.wandb.project=x"], "logger.wandb has no `_target_`, got {'project': 'x'}; is wandb in"),
        (["logger.mine._target_=pathlib.Path"], "logger.mine._target_=pathlib.Path is no Lightning logger"),
    ],
)  # fmt: skip
def test_what_is_no_logger_is_refused(tiny: Compose, words: list[str], line: str) -> None:
    with pytest.raises(UsageError) as refused:
        preflight(tiny(*words))
    assert str(refused.value).startswith(line)


def test_a_missing_package_is_named(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecrl.training.loggers.run_loggers.version_of_module", lambda module: None)
    preflight(tiny("logger=[tensorboard,csv]"))
    for service in ("wandb", "mlflow", "trackio"):
        with pytest.raises(UsageError, match=f"needs {service}, .*: pip install {service}"):
            preflight(tiny(f"logger=[{service}]"))


def test_what_cannot_be_opened_leaves_no_folder(tiny: Compose) -> None:
    config = tiny("logger=[mlflow]", "logger.mlflow.tracking_uri=nowhere://x")
    with pytest.raises(UsageError, match=r"logger\.mlflow: .*nowhere"):
        train(config, silent)
    assert not Path(str(config.run_dir)).exists()


def test_one_that_fails_later_ends_the_run_by_name(tiny: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_disk(self: Any, metrics: Any, step: Any) -> None:
        raise ValueError("no space")

    monkeypatch.setattr("ecrl.training.loggers.csv_table.Csv.log_metrics", no_disk)
    with pytest.raises(EcrlError, match=r"logger\.csv failed: ValueError: no space"):
        train(tiny("iterations=3", "logger=[csv]", "checkpoint.every=1"), silent)


def test_a_slow_one_is_not_closed_while_it_is_written_to(
    tiny: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lightning finalizes loggers also after the validation before the first iteration."""
    said: list[str] = []

    def log_metrics(self: Any, metrics: Any, step: int) -> None:
        said.append(f"begin {step}")
        time.sleep(0.3)
        said.append(f"end {step}")

    monkeypatch.setattr(TensorBoard, "log_metrics", log_metrics)
    monkeypatch.setattr(TensorBoard, "finalize", lambda self, status: said.append("closed"))
    train(tiny("iterations=1", "eval.every=1", "eval.problems=2", "eval.k=1"), silent)
    assert said == ["begin 0", "end 0", "closed", "begin 1", "end 1", "closed"]


def test_names_of_the_group_are_those_of_the_docs() -> None:
    assert options("logger") == ["csv", "mlflow", "tensorboard", "trackio", "wandb"]
    assert list(build_config([]).logger) == ["tensorboard"]
