"""The folders are one package: the list in pyproject.toml is the folders on disk."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def test_packages_are_the_folders_on_disk() -> None:
    found = set()
    for name, folder in SETTINGS["package-dir"].items():
        for init in (ROOT / folder).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT / folder).parts
            if not (name == "ecrl" and parts[:1] in (("envs",), ("callbacks",), ("configs",))):
                found.add(".".join([name, *parts]))
    assert found == set(SETTINGS["packages"])


@pytest.mark.parametrize("name", SETTINGS["packages"])
def test_every_package_imports(name: str) -> None:
    importlib.import_module(name)


@pytest.mark.parametrize("folder", ["envs", "callbacks", "configs"])
def test_links_lead_to_the_folders(folder: str) -> None:
    link = ROOT / "ecrl" / folder
    assert link.is_symlink() and link.resolve() == ROOT / folder


def test_the_second_copy_is_forbidden(tmp_path: Path) -> None:
    source = tmp_path / "wrong.py"
    source.write_text("from envs.base import ReasoningEnv\n\nprint(ReasoningEnv)\n")
    command = [sys.executable, "-m", "ruff", "check", "--config", str(ROOT / "pyproject.toml"), str(source)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1 and "TID251" in result.stdout


def test_the_wheel_holds_code_and_configs(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {"ecrl/envs/base.py", "ecrl/callbacks/kl_cov.py", "ecrl/py.typed"} <= names
    assert {"ecrl/configs/config.yaml", "ecrl/configs/strategy/kl_cov.yaml"} <= names
    assert not [n for n in names if n.startswith(("envs/", "callbacks/", "configs/", "tests/"))]
