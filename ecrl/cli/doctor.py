"""``ecrl doctor``: what is installed, and what each missing package would enable."""

from __future__ import annotations

import os
import platform
import shutil
from importlib import metadata

from packaging.requirements import Requirement
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.runs.versions import version_of, version_of_module

#: What each extra of the package enables; `dev` is for those who change ecrl.
EXTRAS = {
    "vllm": "rollouts by vLLM: engine=vllm, engine=vllm_server, `ecrl serve`",
    "quantization": "a base in 4 bits below adapters (model.quantization=nf4)",
    "kernels": "fused kernels for the output layer, on a GPU",
    "data": "data sets from the Hugging Face hub",
    "reasoning-gym": "the tasks env=reasoning_gym/TASK",
    "loggers": "logger=[wandb], logger=[mlflow], logger=[trackio]",
    "bench": "the benchmark beside TRL (benchmarks/vs_trl.py)",
    "docs": "the documentation as a site (make docs)",
}

COMMAND = Command(
    name="doctor",
    help="""ecrl doctor: list what is installed, and what each missing package would enable

  ecrl doctor

Exit code 1 if a required package is missing.
""",
    settings=NoSettings,
)


def main(arguments: Arguments[NoSettings]) -> int:
    """Print packages, devices and disk space; exit code 1 if a required package is missing."""
    console = Console(highlight=False)
    required = ["ecrl", *requirements()]
    console.print(_packages(required))
    console.print(_devices())
    free = shutil.disk_usage(".").free / 2**30
    console.print(f"Python {platform.python_version()}; {free:.0f} GiB free on this disk.")
    return 0 if all(version_of(name) for name in required) else 1


def requirements(extra: str = "") -> list[str]:
    """Return the packages that ecrl requires, or those that one of its extras adds."""
    try:
        stated = [Requirement(line) for line in metadata.requires("ecrl") or []]
    except metadata.PackageNotFoundError:  # a checkout that is not installed
        return []
    return [r.name for r in stated if _applies(r, extra) and not (extra and _applies(r, ""))]


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _packages(required: list[str]) -> Table:
    table = Table("package", "version", "what it enables, and how to get it")
    for name in required:
        table.add_row(name, version_of(name) or "[red]missing[/red]", "required")
    for extra, use in EXTRAS.items():
        for name in requirements(extra):
            found = version_of(name) or version_of_module(name)
            advice = use if found else f"{use}: pip install 'ecrl[{extra}]'"
            table.add_row(name, found or "missing", escape(advice), style=None if found else "dim")
    return table


def _devices() -> Table:
    table = Table("device", "what")
    import torch  # takes seconds, for which help and mistakes need not wait

    threads = torch.get_num_threads()
    table.add_row("cpu", f"{platform.machine()}, {os.cpu_count()} cores, torch uses {threads} threads")
    for i in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(i)
        table.add_row(f"cuda:{i}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        table.add_row("cuda", "none: training runs on the CPU, which is enough for small models")
    return table
