"""Definitions of sweeps: files, growth, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ecrl.cli import main
from ecrl.errors import UsageError
from ecrl.sweep.definition import Sweep
from tests.support.cli import refused

ARMS = 'arms={grpo: "strategy=[]", on_policy: ["strategy=[]", "update.minibatches=1"]}'


def test_a_file_and_more_seeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, folder = tmp_path / "study.yaml", tmp_path / "out"
    file.write_text(
        "arms:\n  grpo: 'strategy=[]'\n  small: ['strategy=[clip_cov]']\n"
        "seeds: [1]\noverrides: [iterations=2]\n"
    )
    assert main(["sweep", str(file), f"output={folder}", "--cfg"]) == 0
    assert (
        f"ecrl train iterations=2 'strategy=[clip_cov]' seed=1 run_dir={folder}/small-1"
        in capsys.readouterr().out
    )
    assert not folder.exists()
    folder.mkdir()
    (folder / "sweep.yaml").write_text(file.read_text())
    # Anything but more arms and more seeds is another sweep.
    for words, says in {
        ("overrides", "iterations=3"): "the common overrides was ['iterations=2'], now ['iterations=3']",
        ("seeds", "seeds=[2]"): "seeds was [1], now [2]",
        ("arms", "arms={grpo: 'strategy=[kl_cov]', small: 'strategy=[clip_cov]'}"): "arm 'grpo'",
        ("arm", "arms={grpo: 'strategy=[]'}"): "arm 'small'",
    }.items():
        assert says in refused(capsys, "sweep", str(folder), words[1])


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([ARMS, "seeds=[1]"], "needs output=DIR"),
        (["output=o", "seeds=[1]"], "arms must map names to overrides"),
        (["output=o", "arms={}", "seeds=[1]"], "arms must map"),
        (["output=o", "arms={a: 'strategy=[]'", "seeds=[1]"], "not valid YAML"),
        (["output=o", "arms={a: seed=1}", "seeds=[1]"], "for the sweep to set"),
        (["output=o", "arms={a: 3}", "seeds=[1]"], "one override or a list"),
        (["output=o", "arms={a: strategy=[]}", "seeds=[1]"], "put quotes around"),
        (["output=o", "arms={../a: 'strategy=[]'}", "seeds=[1]"], "cannot name a folder"),
        (["output=o", "arms={a: 'strategy=[]', a: 'strategy=[kl_cov]'}", "seeds=[1]"], "duplicate key"),
        (["output=o", ARMS], "seeds must be whole numbers"),
        (["output=o", ARMS, "seeds=[1,1]"], "stands twice"),
        (["output=o", ARMS, "seeds=3"], "neither a list"),
        (["output=o", ARMS, "seeds=[-1]"], "seeds must be whole numbers"),
        (["output=o", ARMS, "seeds=[1]", "jobs=0"], "jobs must be"),
        (["output=o", ARMS, "seeds=[1]", "run_dir=x"], "for the sweep to set"),
        (["output=o", ARMS, "seeds=[1]", "rollout.promts=2"], "Did you mean 'rollout.prompts'?"),
        (["output=o", "arms={a: 'strategy=[clip_cv]'}", "seeds=[1]"], "arm 'a': Unknown strategy"),
        (
            ["output=o", "arms={a: 'strategy=[]', b: update.minibatches=4}", "strategy=[]", "seeds=[1]"],
            "one and the same",
        ),
        (["output=o", "arms={a: 'strategy=[]', b: env=sudoku}", "seeds=[1]"], "the same problems"),
        (["output=o", "arms={a: 'strategy=[]', b: rollout.prompts=32}", "seeds=[1]"], "the same problems"),
        (["output=o", ARMS, "seeds=[1]", "-m"], "no -m"),
        (["no_such_file.yaml", "output=o"], "cannot be read"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str],
    says: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, "sweep", *words)
    assert not (tmp_path / "o").exists()


def test_a_definition_that_is_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "study.yaml").write_bytes(bytes([0x80, 0xFF]))
    assert "cannot be read" in refused(capsys, "sweep", str(tmp_path / "study.yaml"), "output=o")


def test_what_is_said_of_another_definition_is_what_differs() -> None:
    many = [f"log.samples_every={i}" for i in range(50)]
    old = Sweep({"a": [*many, "update.lr=1e-4"]}, [1], [*many, "iterations=2"])
    old.check_grown_from(old, Path("d/sweep.yaml"))
    for new, says in (
        (replace(old, overrides=[*many, "iterations=3"]), r"overrides was \['iterations=2'\], now \['iter"),
        (replace(old, arms={"a": [*many, "update.lr=1e-5"]}), r"'a' was \['update.lr=1e-4'\], now \['update"),
    ):
        with pytest.raises(UsageError, match=says):
            new.check_grown_from(old, Path("d/sweep.yaml"))
    with pytest.raises(UsageError, match="another definition"):  # env.kwargs={…} after env.kwargs.x=…
        replace(old, overrides=[*old.overrides[::-1]]).check_grown_from(old, Path("d/sweep.yaml"))


def test_arms_of_other_problems_are_told_by_the_key(tmp_path: Path) -> None:
    arms = {"a": ["strategy=[]"], "b": ["strategy=[]", "env.kwargs.x=1"]}
    with pytest.raises(UsageError, match=r"in env.kwargs.x, so .*: None and 1\."):
        Sweep(arms, [1]).cells(tmp_path)
