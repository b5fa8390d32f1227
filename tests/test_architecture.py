"""CONTRIBUTING's map is the tree, its order is the order of the imports, and the linter holds that order."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.recipes import section

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = SETTINGS["tool"]["importlinter"]["contracts"]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
ROWS: dict[str, str] = dict(re.findall(r"^\| `(\S+)` \| (.+) \|$", section(TEXT, "The map"), re.M))


def module_name(path: str) -> str:
    """A path of the map as a name below ``ecrl``: ``ecrl/policy/lm_head/`` is ``policy.lm_head``."""
    return path.removeprefix("ecrl/").removesuffix("/").removesuffix(".py").replace("/", ".")


def test_the_map_has_the_layers_in_their_order() -> None:
    rows = [module_name(path) for path in ROWS if "." not in module_name(path)]
    for line in CONTRACTS[0]["layers"]:
        layer = set(line.split(" | "))
        assert set(rows[: len(layer)]) == layer
        rows = rows[len(layer) :]
    assert not rows


def test_the_map_has_every_folder_below_its_own() -> None:
    packages = {name.removeprefix("ecrl.") for name in SETTINGS["tool"]["setuptools"]["packages"]} - {"ecrl"}
    modules = {path for path in ROWS if path.endswith(".py")}
    assert {module_name(path) for path in ROWS if path not in modules} == packages
    above = ""
    for path in map(module_name, ROWS):
        assert "." not in path or path.startswith(f"{above}."), f"{path} does not stand below {above}"
        above = path if "." not in path else above


@pytest.mark.parametrize("path", ROWS)
def test_the_map_names_files_that_exist(path: str) -> None:
    assert (ROOT / path).exists()
    folder = (ROOT / path) if path.endswith("/") else ROOT
    for name in re.findall(r"`([\w/]+\.py)`", ROWS[path]):
        assert (folder / name).exists(), f"{path}: {name}"


@pytest.mark.parametrize("title", ["One iteration", "Where to look"])
def test_the_guides_name_files_that_exist(title: str) -> None:
    named = re.findall(r"[\w/]+\.py\b", section(TEXT, title))
    assert len(named) > 10
    assert not [name for name in named if not (ROOT / name).exists()]


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The package, to be spoilt."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for part in ("ecrl", "envs", "callbacks", "configs"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, tmp_path / part, symlinks=True, ignore=ignored)
    return tmp_path


def lint(folder: Path) -> str:
    """What the linter says of a copy that has a fault."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout


# The linked folders are among them: a linter that does not follow links would see nothing wrong.
@pytest.mark.parametrize(
    ("importer", "imported", "contract"),
    [
        ("ecrl/runs/versions.py", "ecrl.policy.model", "Folders import downwards"),
        ("ecrl/estimate/flops.py", "ecrl.training.module", "Folders import downwards"),
        ("envs/tasks/strings.py", "ecrl.rollout.collector", "Folders import downwards"),
        ("callbacks/monitors/samples.py", "ecrl.cli.train", "Folders import downwards"),
        ("envs/base.py", "ecrl.envs.tasks.strings", "Inside envs, too"),
        ("callbacks/kl_cov.py", "ecrl.callbacks.clip_cov", "No strategy imports another, nor a monitor"),
        ("ecrl/algorithm/losses.py", "gymnasium", "The maths of the algorithms imports torch and numpy only"),
        ("ecrl/analysis/stats.py", "torch", "The maths of the analyses imports numpy and scipy only"),
    ],
)
def test_the_linter_sees_a_wrong_import(importer: str, imported: str, contract: str, copy: Path) -> None:
    with (copy / importer).open("a") as file:
        file.write(f"\nif TYPE_CHECKING:\n    import {imported}\n")
    printed = lint(copy)
    assert f"{contract} BROKEN" in printed
    assert f"ecrl.{module_name(importer)} -> {imported} (l." in printed


def test_the_linter_sees_a_new_folder(copy: Path) -> None:
    (copy / "ecrl" / "cellar").mkdir()
    (copy / "ecrl" / "cellar" / "__init__.py").touch()
    assert "not listed as layers:\n\n- ecrl.cellar" in lint(copy)


@pytest.mark.parametrize(
    ("contract", "allowed"),
    [
        ("The maths of the algorithms imports torch and numpy only", {"torch", "numpy", "scipy"}),
        ("The maths of the analyses imports numpy and scipy only", {"numpy", "scipy"}),
    ],
)
def test_pure_maths_is_kept_from_every_other_library(contract: str, allowed: set[str]) -> None:
    packages = {re.split(r"[\[>=]", line)[0] for line in SETTINGS["project"]["dependencies"]}
    libraries = {name.replace("hydra-core", "hydra").replace("-", "_") for name in packages}
    (forbidden,) = [set(c["forbidden_modules"]) for c in CONTRACTS if c["name"] == contract]
    assert libraries - allowed == {name for name in forbidden if not name.startswith("ecrl.")}
