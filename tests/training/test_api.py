"""Training from Python: words, keywords, objects; what a run gives; the policy of a checkpoint."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch

import ecrl
from ecrl.algorithm.strategy import Strategy
from ecrl.cli import main
from ecrl.config.schema import Config
from ecrl.errors import UsageError
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.api import _command, _word
from tests.support.checkpoints import checkpoint_tensors
from tests.support.outside import DropLate
from tests.support.paths import ROOT
from tests.support.tiny import TINY, VALIDATED


class Counts(L.Callback):
    """Records how often it was called."""

    calls = 0

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.calls += 1
        pl_module.recorder.record("mine/calls", self.calls)  # type: ignore[union-attr, operator]


def test_words_keywords_and_objects_train_a_run(tiny_model: Path, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "iterations": 2,
        "run_dir": tmp_path / "run",
        "logger": [],
        "strategy": ["kl_cov"],
    }
    strategy, words = DropLate(), [*TINY, f"model.path={tiny_model}"]
    run = ecrl.train(*words, callbacks=[Counts()], strategies=[strategy], **settings)
    assert run.dir == tmp_path / "run" and run.iterations == 2 and run.stopped_by is None
    assert run.metrics == read_metrics(run.dir / "metrics.jsonl") and run.last == run.metrics[-1]
    assert run.curve("mine/calls") == ([1, 2], [1.0, 2.0])
    assert list(run.config.strategy) == ["kl_cov"] and strategy.name == "drop_late"
    with pytest.raises(UsageError, match="Did you mean 'policy/entropy'"):
        run.curve("policy/entropi")
    assert ecrl.load_run(str(run.dir)) == run
    # It goes on with the same objects only, and says so, also on the command line.
    for wrong in ([], [Strategy()]):
        with pytest.raises(
            UsageError, match=r"got its strategies \['tests.support.outside.DropLate'\] from Python"
        ):
            ecrl.train(f"resume={run.dir}", iterations=3, strategies=wrong)
    assert main(["train", f"resume={run.dir}", "iterations=3"]) == 2
    assert ecrl.train(f"resume={run.dir}", iterations=3, strategies=[DropLate()]).iterations == 3


def test_an_object_acts_as_its_preset_would(tiny: Callable[..., Config], tmp_path: Path) -> None:
    node = "strategy.drop_late._target_=tests.support.outside.DropLate"
    named = ecrl.train(tiny(node), iterations=1, run_dir=tmp_path / "named")
    given = ecrl.train(tiny(), iterations=1, run_dir=tmp_path / "given", strategies=[DropLate()])
    plain = ecrl.train(tiny(), iterations=1, run_dir=tmp_path / "plain")
    weights = [checkpoint_tensors(run.dir) for run in (named, given, plain)]
    name = next(key for key in weights[0] if key.startswith("model.") and key.endswith("q_proj.weight"))
    assert torch.equal(weights[0][name], weights[1][name]) and not torch.equal(
        weights[0][name], weights[2][name]
    )


def test_the_policy_of_a_checkpoint_answers(tiny: Callable[..., Config]) -> None:
    run = ecrl.train(tiny(*VALIDATED, "checkpoint.every=1", "checkpoint.keep=2"), iterations=2)
    model, tokenizer = ecrl.load_policy(run)
    trained = checkpoint_tensors(run.dir)
    assert all(torch.equal(p, trained[f"model.lm.{name}"]) for name, p in model.named_parameters())
    prompt = tokenizer("3*(4+1)", return_tensors="pt")
    assert model.generate(**prompt, max_new_tokens=4, do_sample=False).shape[1] > prompt["input_ids"].shape[1]  # type: ignore[operator]
    first, _ = ecrl.load_policy(run.dir, 1)
    assert not torch.equal(first.get_input_embeddings().weight, model.get_input_embeddings().weight)
    ecrl.load_policy(run, "best")
    with pytest.raises(UsageError, match="has no checkpoint of iteration 7; it has 1, 2"):
        ecrl.load_policy(run, 7)
    with pytest.raises(UsageError, match="is not a run directory"):
        ecrl.load_policy("nowhere")


def test_what_cannot_work_is_refused_in_a_line(tiny: Callable[..., Config]) -> None:
    config = tiny()
    refusals: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("Unknown key 'iteration'", (config,), {"iteration": 3}),
        ("iterations must be at least 1", (config,), {"iterations": 0}),
        ("takes overrides as text, or one Config before them; got 3", (config, 3), {}),
        ("resume=… reads the configuration of that run", (config, "resume=x"), {}),
        (r"callbacks=\[…\] takes a list of objects, got 3", (config,), {"callbacks": 3}),
        (r"strategies=\[…\] takes a list of objects, got ", (config,), {"strategies": DropLate()}),
        ("takes Lightning callbacks, got 'x'", (config,), {"callbacks": ["x"]}),
        (r"callbacks=\[…\] takes Lightning callbacks", (config,), {"callbacks": [DropLate()]}),
        (r"strategies=\[…\] takes ecrl.Strategy objects, got 3", (config,), {"strategies": [3]}),
        ("Two strategies are called drop_late", (config,), {"strategies": [DropLate(), DropLate()]}),
        ("2 processes: start this program in each of them, by torchrun", (config, "trainer.devices=2"), {}),
    ]
    for message, words, settings in refusals:
        with pytest.raises(UsageError, match=message):
            ecrl.train(*words, **settings)


def test_words_are_what_the_command_line_would_take(tiny: Callable[..., Config]) -> None:
    assert _command(["seed=1"], ["iterations=2"], Path("mine")) == [
        "seed=1", "iterations=2", "--config-dir", "mine",
    ]  # fmt: skip
    assert _command([tiny()], ["iterations=2"], None) is None


def test_values_are_written_as_overrides_have_them() -> None:
    assert _word(None) == "null" and _word(True) == "true" and _word(1e-5) == "1e-05"
    assert _word(["a", "b"]) == "[a,b]" and _word({"k": [1], "x": False}) == "{k:[1],x:false}"


PROGRAM = """
import sys

import ecrl
from tests.support.outside import DropLate

run = ecrl.train(*sys.argv[1:], iterations=2, strategies=[DropLate()])
assert run.iterations == 2 and "strategy/drop_late/fraction" in run.last, sorted(run.last)
"""


@pytest.mark.slow
def test_a_program_that_torchrun_starts_makes_its_objects_in_each_process(
    tiny_model: Path, tmp_path: Path
) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    words = [*TINY, f"model.path={tiny_model}", f"run_dir={tmp_path / 'run'}"]
    words += ["trainer.accelerator=cpu", "trainer.devices=2"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", str(program)]
    there = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([*torchrun, *words], env=there, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
