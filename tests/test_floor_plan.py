"""The plan of the house: few modules flat, no name of the standard library's, tests that stand alone."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

FLAT = {"ecrl": 6, "envs": 8}
#: The queue of rollouts is called what it is.
TAKEN = sys.stdlib_module_names - {"queue"}
TESTS = sorted((ROOT / "tests").rglob("*.py"))


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
