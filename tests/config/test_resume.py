"""What may change when a run resumes, and what may not."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ecrl.algorithm.strategy import Strategy
from ecrl.cli import main
from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.config.resume import resumed_config
from tests.support.cli import refused


def test_what_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    resume = f"resume={tmp_path}"
    path = tmp_path / "config.yaml"
    path.write_text(OmegaConf.to_yaml(OmegaConf.structured(build_config([]))))
    for words, says in {
        ("iteration=3",): "Did you mean 'iterations'?",
        ("trainer.devces=2",): "Did you mean 'trainer.devices'?",
        ("update.lr=1",): "'update.lr' cannot change on resume",
        ("strategy.kl_cov.fraction=0.1",): "cannot change on resume",
        ("trainer.precision=bf16-mixed",): "cannot change on resume",
        ("engine._target_=x",): "cannot change on resume",
        ("iterations=many",): "many",
        ("--config-dir", str(tmp_path)): "--config-dir has no use",
    }.items():
        assert says in refused(capsys, "train", resume, *words)
    assert main(["train", "--cfg", resume, "iterations=7", "trainer.accelerator=cpu"]) == 0
    assert "iterations: 7" in capsys.readouterr().out
    assert main(["train", "--cfg", resume, "trainer=single", "trainer.timeout=77"]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.trainer.devices, shown.trainer.timeout) == (1, 77)
    moved = ["engine.batch_size=7", "env.kwargs.path=/new/train.jsonl"]
    assert main(["train", "--cfg", resume, *moved]) == 0
    shown = OmegaConf.create(capsys.readouterr().out)
    assert (shown.engine.batch_size, shown.env.kwargs.path) == (7, "/new/train.jsonl")
    for text, says in {
        "": "holds no configuration",
        "- a": "holds no configuration",
        "a: [b: c": "cannot be read",
        "seed: 1\n": "objective is empty",
        "sed: 1\n": "sed",
    }.items():
        path.write_text(text)
        assert says in refused(capsys, "train", resume)


def test_engines_and_strategies_say_which_knobs_may_change(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["engine=vllm_server", "engine.urls=[http://a:1]", "strategy=[]"]
    words += ["+strategy.mine._target_=tests.config.test_resume.Declares"]
    saved = OmegaConf.to_yaml(OmegaConf.structured(build_config(words)))
    (tmp_path / "config.yaml").write_text(saved)
    resume = f"resume={tmp_path}"
    config = resumed_config([resume, "engine.urls=[http://b:2]", "strategy.mine.patience=9"])
    assert config.engine["urls"] == ["http://b:2"] and config.strategy["mine"]["patience"] == 9
    for word in ("engine.dtype=float16", "engine.batch_size=3", "strategy.mine.power=2"):
        line = refused(capsys, "train", resume, word)
        assert "cannot change on resume" in line and "strategy.mine.patience" in line


def test_monitors_may_change(tmp_path: Path) -> None:
    node = {"_target_": "tests.support.outside.DropLate", "position": 4}
    config = build_config([])
    config.monitor = {"one": node}
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    resume = f"resume={tmp_path}"
    assert resumed_config([resume]).monitor == {"one": node}
    assert resumed_config([resume, "monitor.one.position=5"]).monitor == {"one": node | {"position": 5}}


@pytest.mark.skipif(not options("monitor"), reason="no monitor is shipped")
def test_a_resumed_run_may_choose_its_monitors(tmp_path: Path) -> None:
    name = options("monitor")[0]
    config = build_config(["monitor=[]"])
    (tmp_path / "config.yaml").write_text(OmegaConf.to_yaml(OmegaConf.structured(config)))
    resumed = resumed_config([f"resume={tmp_path}", f"monitor=[{name}]"])
    assert resumed.monitor == build_config([f"monitor=[{name}]"]).monitor != {}


class Declares(Strategy):
    """A strategy with a knob that may change."""

    resumable = frozenset({"patience"})

    def __init__(self, *, power: float = 1.0, patience: int = 2) -> None:
        super().__init__()
        self.power, self.patience = power, patience
