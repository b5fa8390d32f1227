"""What a run has logged to a service, read back from where the service keeps it."""

from __future__ import annotations

import csv
import json
import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from ecrl.training.loggers.base import known_id


@dataclass
class Logged:
    """Numbers by iteration and name; the configuration; names of texts and figures."""

    numbers: dict[int, dict[str, float]] = field(default_factory=lambda: defaultdict(dict))
    settings: dict[str, Any] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    figures: set[str] = field(default_factory=set)


def logged(service: str, run_dir: Path) -> Logged:
    """Read what a service has of a run."""
    return {"csv": _csv, "wandb": _wandb, "mlflow": _mlflow, "trackio": _trackio}[service](run_dir)


def _csv(run_dir: Path) -> Logged:
    found = Logged(settings=yaml.safe_load((run_dir / "csv" / "hparams.yaml").read_text()))
    with (run_dir / "csv" / "metrics.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            step = int(row.pop("step"))
            assert int(row.pop("iteration")) == step
            found.numbers[step] = {name: float(value) for name, value in row.items() if value}
    return found


def _wandb(run_dir: Path) -> Logged:
    from wandb.proto import wandb_internal_pb2

    found = Logged()
    for path in sorted(run_dir.glob("wandb/offline-run-*/*.wandb")):
        for data in _records(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(data)
            for item in (*record.run.config.update, *record.config.update):
                found.settings[item.key] = json.loads(item.value_json)
            row = {tuple(i.nested_key) or (i.key,): json.loads(i.value_json) for i in record.history.item}
            for (name, *below), value in row.items():
                if below == ["_type"]:
                    (found.texts if value == "table-file" else found.figures).add(name)
                elif not below and not name.startswith("_") and name != "trainer/global_step":
                    found.numbers[row["trainer/global_step",]][name] = value
    return found


def _records(content: bytes) -> Iterator[bytes]:
    """Split a ``.wandb`` file, a LevelDB log after seven bytes: blocks of 32 KiB, records in chunks."""
    record, at = b"", 7
    while at + 7 <= len(content):
        if (room := 32768 - at % 32768) < 7:
            at += room
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        record += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last chunk
            yield record
            record = b""


def _mlflow(run_dir: Path) -> Logged:
    from mlflow.tracking import MlflowClient

    client, found = MlflowClient(), Logged()
    run = client.get_run(str(known_id(run_dir, "mlflow")))
    assert run.info.status == "FINISHED" and client.get_experiment(run.info.experiment_id).name == "theirs"
    for name in run.data.metrics:
        for value in client.get_metric_history(run.info.run_id, name):
            found.numbers[value.step][name.replace("_at_", "@").replace("_pct", "%")] = value.value
    found.settings["rollout"] = {"prompts": int(run.data.params["rollout/prompts"])}
    root = Path(run.info.artifact_uri.removeprefix("file://"))
    found.texts = {str(path.parent.relative_to(root)) for path in root.rglob("*.md")}
    found.figures = {str(path.parent.relative_to(root)) for path in root.rglob("*.png")}
    return found


def _trackio(run_dir: Path) -> Logged:
    from trackio.sqlite_storage import SQLiteStorage

    found, name = Logged(), str(known_id(run_dir, "trackio"))
    for row in SQLiteStorage.get_logs("theirs", name):
        for key, value in row.items():
            kind = value.get("_type") if isinstance(value, dict) else None
            if kind == "trackio.markdown":
                found.texts.add(key)
            elif kind == "trackio.image":
                found.figures.add(key)
            elif isinstance(value, float) and "/" in key:
                found.numbers[row["step"]][key] = value
    found.settings = SQLiteStorage.get_run_config("theirs", name) or {}
    return found
