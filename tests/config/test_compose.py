"""Composition: every shipped YAML, the user's own folders, defaults from constructors."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ecrl.algorithm.strategy_stack import build_strategies
from ecrl.cli import main
from ecrl.config.compose import build_config
from ecrl.config.eval_sets import longest_completion
from ecrl.config.groups import GROUPS, LISTED, options
from ecrl.config.targets import build
from ecrl.errors import UsageError
from tests.support.cli import refused


def test_home_is_spelt_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    keys = ("run_dir", "output", "resume", "model.path", "env.kwargs.path")
    assert main(["eval", "--cfg", *(f"{key}=~/x" for key in keys)]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert [OmegaConf.select(shown, key) for key in keys] == [f"{tmp_path}/x"] * 5
    assert build_config(["run_dir='~/x'"]).run_dir == f"{tmp_path}/x"
    assert f"{tmp_path}/x/config.yaml is missing" in refused(capsys, "train", "resume=~/x")


@pytest.mark.parametrize("group", [g for g in GROUPS if g not in LISTED])
def test_every_shipped_yaml_composes(group: str) -> None:
    for name in options(group):
        if name == "adamw_8bit" and find_spec("torchao") is None:
            continue
        config = build_config([f"{group}={name}"])
        build(config.objective)


def test_every_shipped_strategy_composes_and_builds() -> None:
    for name in options("strategy"):
        (strategy,) = build_strategies(build_config([f"strategy=[{name}]"]).strategy)
        assert name.startswith(strategy.name)


def test_defaults_come_from_constructors_and_overrides_need_no_plus() -> None:
    config = build_config(["strategy=[clip_cov,clip_higher]", "strategy.clip_cov.fraction=0.01"])
    assert list(config.strategy) == ["clip_cov", "clip_higher"]
    assert config.strategy["clip_cov"]["fraction"] == 0.01
    assert config.strategy["clip_cov"]["low"] == 1.0
    assert config.strategy["clip_higher"]["factor"] == 1.4


def test_own_folders_join(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text("mine:\n  _target_: tests.support.outside.DropLate\n")
    (tmp_path / "objective").mkdir()
    (tmp_path / "objective" / "ours.yaml").write_text(
        "_target_: ecrl.algorithm.objective.Objective\n"
        "surrogate: {_target_: ecrl.algorithm.losses.reinforce, _partial_: true}\n"
    )
    config = build_config(["strategy=[mine,clip_cov]", "objective=ours"], tmp_path)
    assert list(config.strategy) == ["mine", "clip_cov"] and config.strategy["mine"]["position"] == 4
    assert main(["strategies", "--config-dir", str(tmp_path)]) == 0
    assert "mine" in capsys.readouterr().out


def test_a_broken_yaml_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "strategy").mkdir()
    path = tmp_path / "strategy" / "broken.yaml"
    for text in (
        "a: [b: c",
        "x:\n\t- 1",
        "mine:\n  _target_: builtins.dict\n",
        "mine:\n  _target_: no.Such\n",
    ):
        path.write_text(text)
        refused(capsys, "train", "strategy=[broken]", "--config-dir", str(tmp_path))


def test_the_command_line_changes_an_experiment() -> None:
    config = build_config(
        ["experiment=paper_32b_kl_cov", "strategy=[clip_cov,clip_higher]", "engine=hf", "update.lr=1e-5"]
    )
    assert list(config.strategy) == ["clip_cov", "clip_higher"] and config.update.lr == 1e-5
    assert config.engine["_target_"] == "ecrl.engines.hf.HFEngine" and config.rollout.prompts == 256


def test_monitors_are_listed_like_strategies(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "monitor").mkdir()
    for name in ("mine", "twin"):
        (tmp_path / "monitor" / f"{name}.yaml").write_text(
            "mine: {_target_: tests.support.outside.DropLate}\n"
        )
    own = ("--config-dir", str(tmp_path))
    config = build_config(["monitor=[mine]", "monitor.mine.position=7"], tmp_path)
    assert config.monitor == {"mine": {"_target_": "tests.support.outside.DropLate", "position": 7}}
    assert build_config(["monitor=[]"], tmp_path).monitor == {}
    for words, says in {
        ("monitor=[mne]",): "Unknown monitor 'mne'. Did you mean 'mine'?",
        ("monitor=[mine,twin]",): "mine and twin both fill monitor.mine",
        ("monitor=[mine]", "monitor.mine.positon=1"): "Did you mean 'position'?",
        ("monitor=[[x]]",): "write monitor=[NAME",
        ("monitor=null",): "names nothing",
    }.items():
        assert says in refused(capsys, "train", *words, *own)


def test_what_a_constructor_refuses_is_said_in_its_own_words() -> None:
    node = {"_target_": "tests.config.test_compose.Refuses"}
    with pytest.raises(UsageError, match=r"^mine: 3 is too many; take fewer$"):
        build(node | {"count": 3})
    with pytest.raises(UsageError, match="Refuses"):  # an error without a message
        build(node)


class Refuses:
    """A class of the user's own."""

    def __init__(self, count: int = 0) -> None:
        raise ValueError(f"mine: {count} is too many;\n  take fewer" if count else "")


def test_the_longest_completion_is_of_training_or_of_a_validation_that_takes_place() -> None:
    sets = "eval.sets={long: {env: arithmetic, max_new_tokens: 99}}"
    assert longest_completion(build_config(["rollout.max_new_tokens=20", "eval.every=0"])) == 20
    assert longest_completion(build_config(["rollout.max_new_tokens=20", sets])) == 99
    assert longest_completion(build_config(["rollout.max_new_tokens=20", sets, "eval.every=0"])) == 20
