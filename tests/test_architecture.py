"""CONTRIBUTING's map is the tree, its order is that of the imports, and tests stand alone."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tests.support.recipes import section

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())
CONTRACTS = SETTINGS["tool"]["importlinter"]["contracts"]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
ROWS: dict[str, str] = dict(re.findall(r"^\| `(\S+)` \| (.+) \|$", section(TEXT, "The map"), re.M))
FLAT = {"ecrl": 6, "envs": 8}
#: The queue of rollouts is called what it is.
TAKEN = sys.stdlib_module_names
TESTS = sorted((ROOT / "tests").rglob("*.py"))


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


def imported(file: Path) -> Iterator[str]:
    """Names of the modules that a file imports, also within its functions."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names)


def test_no_test_imports_another_test() -> None:
    wrong = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in TESTS
        for name in imported(file)
        if name.startswith(".") or (name.startswith("tests.") and not re.match(r"tests\.support(\.|$)", name))
    }
    assert wrong == set(), "helpers that two tests need live in tests/support/"


def test_a_test_names_no_other_test_as_the_home_of_a_class() -> None:
    wrong = {}
    for file in TESTS:
        own = ".".join(file.relative_to(ROOT).with_suffix("").parts)
        named = {f"tests.{m}" for m in re.findall(r"\btests\.([a-z0-9_.]*test_[a-z0-9_]+)", file.read_text())}
        if named - {own}:
            wrong[str(file.relative_to(ROOT))] = named - {own}
    assert wrong == {}


def test_every_folder_of_tests_is_a_package() -> None:
    # Otherwise two files of one name in different folders would be one module to pytest.
    folders = {file.parent for file in TESTS}
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize("folder", FLAT)
def test_few_modules_lie_flat(folder: str) -> None:
    flat = [path.name for path in (ROOT / folder).glob("*.py") if path.stem != "__init__"]
    assert len(flat) <= FLAT[folder], f"{folder}/ holds {sorted(flat)}; a folder of its own shows what it is"


@pytest.mark.parametrize("folder", ["ecrl", "envs", "callbacks"])
def test_no_module_is_named_like_one_of_the_standard_library(folder: str) -> None:
    taken = [str(path.relative_to(ROOT)) for path in (ROOT / folder).rglob("*.py") if path.stem in TAKEN]
    assert taken == []
