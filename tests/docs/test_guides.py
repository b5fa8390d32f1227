"""The guides' commands and files, as they are written."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecrl.cli import main
from ecrl.runs.metrics_file import read_metrics
from tests.support.paths import ROOT
from tests.support.recipes import blocks
from tests.support.tiny import TINY

GUIDES = ROOT / "docs" / "guides"
STRATEGY = (GUIDES / "strategy.md").read_text()
COMMANDS = [shlex.split(line)[1:] for block in blocks(STRATEGY, "bash") for line in block.splitlines()]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A user's folder with the files of the strategy's guide."""
    for block in blocks(STRATEGY, "python", "yaml"):
        first, _, text = block.partition("\n")
        file = tmp_path / first.removeprefix("# ")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "mypkg"]:
        del sys.modules[name]


def shortest(words: list[str], model: Path) -> list[str]:
    settings = [word for word in TINY if not word.startswith("strategy")]
    return [*words, *settings, f"model.path={model}", "run_dir=run", "iterations=2"]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_strategy_of_ones_own(
    words: list[str], folder: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if words[0] != "train":
        assert main(words) == 0 and "the lowest advantage that is left" in capsys.readouterr().out
        return
    assert main(shortest(words, tiny_model)) == 0, capsys.readouterr().err
    shares = [row["strategy/only_success/fraction"] for row in read_metrics(folder / "run" / "metrics.jsonl")]
    assert len(shares) == 2 and max(shares) > 0


def test_no_two_commands_of_the_pages_make_the_same_folder() -> None:
    """Nothing is overwritten, so that the second would be refused."""
    pages = [ROOT / "README.md", ROOT / "docs" / "index.md", *GUIDES.glob("*.md")]
    commands = [block for page in pages for block in blocks(page.read_text(), "bash")]
    words = [
        word.split("=") for block in commands for word in shlex.split(block, comments=True) if "=" in word
    ]
    made = [value for key, value, *_ in words if key in ("run_dir", "output") and "/" in value]
    assert len(made) >= 5 and len(set(made)) == len(made), made


def test_every_setting_that_a_guide_names_exists(tiny_model: Path) -> None:
    """The words of the collapse's guide compose, on the small model."""
    guide = (GUIDES / "collapse.md").read_text()
    lines = [
        shlex.split(line, comments=True) for block in blocks(guide, "bash") for line in block.splitlines()
    ]
    trains = [words[1:] for words in lines if words[:2] == ["ecrl", "train"]]
    assert len(trains) == 2
    assert main([*trains[0], "--cfg"]) == 0
