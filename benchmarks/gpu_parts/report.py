"""Results as they come: a JSON line for each measurement, and Markdown tables of all lines."""

from __future__ import annotations

import gc
import json
import platform
import sys
import time
from collections.abc import Callable, Iterable
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

PACKAGES = ("torch", "triton", "transformers", "lightning", "peft", "hydra-core", "vllm", "trl")

Row = dict[str, str]


class LeftOutError(Exception):
    """A measurement is not possible here; the message says why."""


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def device_name() -> str:
    return torch.cuda.get_device_name() if device().type == "cuda" else platform.processor() or "CPU"


def need_gpu() -> None:
    """Leave out a measurement that only a GPU can make.

    Raises:
        LeftOutError: there is none.
    """
    if device().type == "cpu":
        raise LeftOutError("needs a GPU")


def clean() -> None:
    gc.collect()
    if device().type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


class Report:
    """Appends to ``results.jsonl``.

    Args:
        folder: where to write.
        smoke: tiny sizes, on whatever device there is.
        budget: seconds from now on after which no measurement is started.
    """

    def __init__(self, folder: Path, smoke: bool, budget: float) -> None:
        self.folder, self.smoke = folder, smoke
        self._end = time.perf_counter() + budget
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, table: str, label: Row, function: Callable[[], Row]) -> bool:
        """Measure one row and write it; if that fails, the row says why. Returns whether it did not."""
        result: Row
        start = time.perf_counter()
        try:
            result = function() if start < self._end else {"left out": "no time left"}
        except LeftOutError as error:
            result = {"left out": str(error)}
        except ModuleNotFoundError as error:
            result = {"left out": f"{error.name} is not installed"}
        except Exception as error:  # of any kind, so that the other measurements are still made
            lines = str(error).strip().splitlines() or [""]
            result = {"failed": f"{type(error).__name__}: {lines[0][:200]}"}
        clean()
        self._write(table, {**label, **result}, time.perf_counter() - start)
        return not {"failed", "left out"} & result.keys()

    def _write(self, table: str, row: Row, seconds: float) -> None:
        line: dict[str, Any] = {"table": table, "row": row, "seconds": round(seconds, 1)}
        line |= {"device": device_name(), "date": date.today().isoformat(), "smoke": self.smoke}
        with (self.folder / "results.jsonl").open("a") as file:
            file.write(json.dumps(line, ensure_ascii=False) + "\n")
        print(f"{table}: {row}", flush=True)


def versions() -> Row:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def write_tables(folder: Path) -> str:
    """Write ``results.md`` from the lines of ``results.jsonl``, and return it."""
    lines = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    tables: dict[str, list[Row]] = {}
    for line in lines:
        tables.setdefault(line["table"], []).append(line["row"])
    about = ", ".join(f"{k} {v}" for k, v in versions().items())
    smoke = "; SMOKE TEST" * lines[0]["smoke"]
    parts = [f"{lines[0]['device']}, {lines[0]['date']}; {about}{smoke}.", f"`{' '.join(sys.argv)}`"]
    parts += [f"### {name}\n\n{_markdown(rows)}" for name, rows in tables.items()]
    text = "\n\n".join(parts) + "\n"
    (folder / "results.md").write_text(text)
    return text


def _markdown(rows: Iterable[Row]) -> str:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(row.get(c, "").replace("|", "/") for c in columns) + " |" for row in rows]
    return "\n".join(lines)
