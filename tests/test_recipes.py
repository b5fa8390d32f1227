"""CONTRIBUTING's recipes, as they are written: each trains, from inside the repository and from outside."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ecrl.cli import main
from ecrl.runs.metrics_file import read_metrics
from tests.support.paths import ROOT
from tests.support.recipes import PARTS, blocks, read_piece, read_recipe, write_inside, write_outside

RECIPES = {part: read_recipe(part) for part in PARTS}
OUTSIDE = [(part, words) for part, recipe in RECIPES.items() for words in recipe.outside]
# Hardly any answer of a random model is right: without a term of another kind there would be no gradient.
WITHOUT_REWARD = ["strategy=[entropy_bonus]", "objective.filters.drop_zero_variance=false"]
DRIVER = """
import json, sys, traceback
import ecrl
from ecrl.cli import main

assert ecrl.__file__.startswith(sys.argv[1]), ecrl.__file__
for part, words in json.loads(sys.argv[2]):
    print(f"\\0{part}", flush=True)
    try:
        print("exit code", main(words))
    except Exception:
        traceback.print_exc(file=sys.stdout)
"""


def shortest_run(part: str, words: list[str], model: Path, run_dir: Path) -> list[str]:
    """Complete a recipe's command to a run of two iterations of a tiny model."""
    if words[0] != "train":
        return words
    settings = WITHOUT_REWARD if part == "environment" else ["env=tests.support.tasks:test/Digits-v0"]
    if part == "objective":
        settings = [*settings, "strategy=[]"]
    return [
        *words,
        *settings,
        f"model.path={model}",
        f"run_dir={run_dir}",
        "iterations=2",
        "rollout.prompts=4",
        "rollout.group_size=4",
        "rollout.max_new_tokens=8",
        "update.minibatches=2",
        "eval.every=0",
        "log.progress=false",
    ]


def check_run(part: str, run_dir: Path, output: str) -> None:
    """The run trained, and the part took part."""
    assert (run_dir / "summary.json").exists(), output
    rows = read_metrics(run_dir / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [1, 2]
    assert all(row["policy/grad_norm"] > 0 for row in rows)
    config = (run_dir / "config.yaml").read_text()
    signs: dict[str, Any] = {
        "strategy": lambda: all(row["strategy/down_weight_long/fraction"] > 0 for row in rows),
        "objective": lambda: "log_ratio.log_ratio_clip" in config,
        "environment": lambda: "Reverse-v0" in config,
        "engine": lambda: "drawn: " in output and "drawn: 0 tokens" not in output,
        "monitor": lambda: all(1 <= row["rollout/longest"] <= 8 for row in rows),
    }
    assert signs[part](), output


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository with the files of all recipes in it."""
    copy = tmp_path_factory.mktemp("inside")
    for folder in ("ecrl", "envs", "callbacks", "configs", "examples", "tests"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, copy / folder, symlinks=True, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", copy)
    for recipe in RECIPES.values():
        write_inside(copy, recipe.pieces)
    return copy


@pytest.fixture(scope="module")
def outputs(repository: Path, tiny_model: Path) -> dict[str, str]:
    """What the commands print that use the parts from inside, one process for all."""
    jobs = [
        (part, shortest_run(part, words, tiny_model, repository / "runs" / part))
        for part, recipe in RECIPES.items()
        for words in recipe.inside
    ]
    command = [sys.executable, "-c", DRIVER, str(repository), json.dumps(jobs)]
    done = subprocess.run(
        command,
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout
    printed: dict[str, str] = {}
    for chunk in done.stdout.split("\0")[1:]:
        part, _, text = chunk.partition("\n")
        printed[part] = printed.get(part, "") + text
    return printed


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_it_trains_from_inside(part: str, repository: Path, outputs: dict[str, str]) -> None:
    check_run(part, repository / "runs" / part, outputs[part])


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_its_commands_succeed_from_inside(part: str, outputs: dict[str, str]) -> None:
    codes = [line for line in outputs[part].splitlines() if line.startswith("exit code ")]
    assert codes == ["exit code 0"] * len(RECIPES[part].inside), outputs[part]


@pytest.mark.slow
def test_the_strategy_inherits_the_conformance_suite(repository: Path) -> None:
    command = [sys.executable, "-m", "pytest", "tests/callbacks/test_conformance.py"]
    done = subprocess.run(
        [*command, "-m", "not slow", "-k", "down_weight_long or has_a_row", "-p", "no:cacheprovider"],
        cwd=repository,
        env=os.environ | {"PYTHONPATH": str(repository), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "10 passed" in done.stdout, done.stdout


@pytest.mark.parametrize("check", [["check"], ["format", "--check"]], ids=" ".join)
def test_the_files_pass_ruff(check: list[str], repository: Path) -> None:
    files = [
        piece.path for recipe in RECIPES.values() for piece in recipe.pieces if piece.path.endswith("py")
    ]
    command = [sys.executable, "-m", "ruff", *check, "--no-cache", *files]
    done = subprocess.run(command, cwd=repository, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_files_import_downwards(repository: Path) -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([linter, "--no-cache"], cwd=repository, capture_output=True, text=True, timeout=60)
    for piece in (piece for recipe in RECIPES.values() for piece in recipe.pieces):
        assert f"{piece.module} ->" not in done.stdout, done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A user's folder with a package and config groups: the parts of all recipes, from outside."""
    folder = tmp_path_factory.mktemp("outside")
    for part, recipe in RECIPES.items():
        pieces = recipe.pieces
        if part == "environment":
            guide = (ROOT / "docs" / "guides" / "environment.md").read_text()
            pieces = [read_piece(block) for block in blocks(guide, "python")]
        write_outside(folder, pieces)
    path = list(sys.path)  # the command line adds the folder that it is called in
    yield folder
    sys.path[:] = path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypkg"]:
        del sys.modules[name]


@pytest.mark.parametrize(("part", "words"), OUTSIDE, ids=[f"{part}-{words[-1]}" for part, words in OUTSIDE])
def test_it_trains_from_outside(
    part: str,
    words: list[str],
    folder: Path,
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    code = main(shortest_run(part, words, tiny_model, tmp_path / "run"))
    captured = capfd.readouterr()
    assert code == 0, captured.err
    check_run(part, tmp_path / "run", captured.out)


def test_outside_needs_the_public_api_only_where_it_suffices(folder: Path) -> None:
    for name in ("down_weight_long", "log_ratio", "longest"):
        code = (folder / "mypkg" / f"{name}.py").read_text()
        assert "from ecrl import " in code
