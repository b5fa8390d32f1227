"""The public API: what `import ecrl` gives, how quickly, and that its examples hold."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import ecrl
from ecrl import Config

# Their use is an episode or a run: the recipes of CONTRIBUTING.md and the test below show it.
WITHOUT_EXAMPLE = {"NonFiniteError", "PlanObserver", "RolloutObserver", "evaluate"}
WITHOUT_EXAMPLE |= {"Run", "load_policy", "load_run", "train"}


def test_all_names_resolve() -> None:
    assert sorted(ecrl.__all__) == ecrl.__all__ == sorted(ecrl._MODULE_OF)
    for name in ecrl.__all__:
        assert getattr(ecrl, name).__name__ == name
    assert set(ecrl.__all__) <= set(dir(ecrl))


def test_type_checkers_see_the_same_names_from_the_same_modules() -> None:
    tree = ast.parse(Path(ecrl.__file__).read_text())
    (block,) = [n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    seen = {
        alias.name: node.module
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == ecrl._MODULE_OF


def test_other_names_are_refused() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Strategie'"):
        _ = ecrl.Strategie  # type: ignore[attr-defined]


def test_importing_it_is_quick_and_loads_no_library() -> None:
    program = (
        "import sys, time; start = time.perf_counter(); import ecrl; seconds = time.perf_counter() - start;"
        "heavy = {'torch', 'lightning', 'numpy', 'hydra', 'gymnasium'} & set(sys.modules);"
        "assert not heavy, heavy; assert seconds < 0.3, seconds"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ecrl.__all__)
def test_its_examples_hold(name: str) -> None:
    (test, *_) = doctest.DocTestFinder(recurse=False).find(getattr(ecrl, name), name, globs={})
    assert bool(test.examples) == (name not in WITHOUT_EXAMPLE)
    result = doctest.DocTestRunner().run(test)
    assert result.failed == 0, f"the example of {name} fails; run pytest with -s to see it"


def test_a_policy_is_trained_and_evaluated_without_the_command_line(
    tiny: Callable[..., Config], tiny_model: Path, tmp_path: Path
) -> None:
    run = ecrl.train(tiny(), iterations=2)
    assert run.iterations == 2 and run.stopped_by is None
    task = ["env=tests.support.tasks:test/Digits-v0", "eval.problems=4", "eval.k=2"]
    config = ecrl.load_config(*task, f"model.path={run.dir / 'policy'}", "strategy=[]")
    metrics = ecrl.evaluate(config).metrics
    assert any(name.endswith("/avg@2") for name in metrics)
    assert all(name.startswith("val/") for name in metrics)


def test_config_groups_of_ones_own_are_found(tmp_path: Path) -> None:
    group = tmp_path / "strategy"
    group.mkdir()
    (group / "mine.yaml").write_text("mine:\n  _target_: tests.support.outside.DropLate\n  position: 2\n")
    for folder in (tmp_path, str(tmp_path)):
        config = ecrl.load_config("strategy=[mine]", config_dir=folder)
        assert config.strategy["mine"]["position"] == 2
