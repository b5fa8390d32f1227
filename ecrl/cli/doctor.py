"""``ecrl doctor``: what is here, and what each missing piece would enable."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Sequence

import torch
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecrl.cli.options import parse
from ecrl.errors import UsageError
from ecrl.runs.versions import version_of

REQUIRED = ("ecrl", "torch", "lightning", "transformers", "gymnasium", "hydra-core", "sympy", "tensorboard")
OPTIONAL = {
    "vllm": ("rollouts by vLLM: `engine=vllm`, `engine=vllm_server`, `ecrl serve`", "pip install ecrl[vllm]"),
    "trl": ("the benchmark beside TRL (`benchmarks/vs_trl.py`)", "pip install ecrl[bench]"),
    "matplotlib": ("figures (`benchmarks/`, `docs/`)", "pip install matplotlib"),
}


def main(arguments: Sequence[str]) -> int:
    """Print versions, devices and extras; exit code 1 if a required package is missing."""
    if parse(arguments).overrides:
        raise UsageError("`ecrl doctor` takes no arguments.")
    console = Console(highlight=False)
    packages = Table("package", "version", "what it enables, and how to get it")
    for name in REQUIRED:
        packages.add_row(name, version_of(name) or "[red]missing[/red]", "required")
    for name, (use, install) in OPTIONAL.items():
        found = version_of(name)
        packages.add_row(
            name,
            found or "missing",
            use if found else escape(f"{use}: {install}"),
            style=None if found else "dim",
        )
    console.print(packages)
    devices = Table("device", "what", show_header=True)
    devices.add_row(
        "cpu", f"{platform.machine()}, {os.cpu_count()} cores, torch uses {torch.get_num_threads()} threads"
    )
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        devices.add_row(f"cuda:{i}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        devices.add_row("cuda", "none: training runs on the CPU, fit for small models")
    console.print(devices)
    free = shutil.disk_usage(".").free / 2**30
    console.print(f"Python {platform.python_version()}; {free:.0f} GiB free on this disk.")
    return 0 if all(version_of(name) for name in REQUIRED) else 1
