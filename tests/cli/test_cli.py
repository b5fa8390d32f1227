"""The command line: what it does, and one clear line for every kind of bad input."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from ecrl.cli import main
from ecrl.cli.train import _show
from ecrl.config.compose import build_config
from ecrl.config.schema import Config
from ecrl.runs.commands import Command, read_commands
from ecrl.training.preflight import preflight
from ecrl.training.run import Outcome
from tests.support.cli import refused
from tests.support.tiny import TINY


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["train", "rollout.promts=3"], "Did you mean 'rollout.prompts'?"),
        (["train", "iteration=3"], "Did you mean 'iterations'?"),
        (["train", "strategy=[clip_cv]"], "Did you mean 'clip_cov'?"),
        (["train", "strategy=[nope]"], "Unknown strategy 'nope'. `ecrl strategies` lists them."),
        (["train", "strategy.kl_cov.fracton=1"], "Did you mean 'fraction'?"),
        (["train", "strategy.kl_cov_small.fraction=1"], "so write strategy.kl_cov.KEY=VALUE."),
        (["train", "objective=grp"], "Did you mean 'grpo'?"),
        (["train", "env=contdown"], "Did you mean 'countdown'?"),
        (["train", "env=ecrl/Countdwn-v0"], "ecrl/Countdown-v0"),
        (["train", "env=no_such_module:me/MyTask-v0"], "no_such_module"),
        (["train", "env.kwargs.colour=3"], "colour"),
        (["train", "rollout.prompts=many"], "many"),
        (["train", "rollout.group_size=1"], "group of 2 or more"),
        (["train", "objective=pkpo", "objective.estimator.k=9"], "group of 9 or more"),
        (["train", "objective=qae", "objective.estimator.quantile=1.5"], "quantile must lie in (0, 1)"),
        (
            [
                "train",
                "rollout.group_size=1",
                "objective=grpo",
                "objective.estimator._target_=ecrl.algorithm.advantages.reinforce_pp",
            ],
            "drop_zero_variance=false",
        ),
        (["train", "trainer.devices=0"], "at least 1"),
        (["train", "trainer.devices=3", "trainer.tensor_parallel_size=2"], "does not divide the 3 processes"),
        (["train", "trainer.devices=3", "trainer.tensor_parallel_size=3"], "num_attention_heads=4"),
        (["train", "model.hidden_size=80000"], "The model is too large"),
        (["train", "model.hidden_size=80000", "trainer.devices=2"], "processes=2"),
        (["eval", "model.hidden_size=160000"], "The model is too large: the weights of its"),
        (["train", "model.heads=3"], "multiple of 2"),
        (["train", "trainer.num_nodes=2"], "needs a launcher on every node"),
        (["train", "trainer.parallel=zero3"], "fsdp, ddp"),
        (["train", "trainer.cpu_offload=true"], "more than one process"),
        (["train", "model.lora.r=4", "trainer.devices=2", "trainer.tensor_parallel_size=2"], "model.lora.r"),
        (["train", "trainer.accelerator=gpu", "trainer.devices=64"], "this machine has"),
        (["train", "trainer.precision=bf16-true"], "32-true, bf16-mixed"),
        (["train", "engine=vllm"], "vLLM"),
        (["train", "engine=vllm_server", "engine.urls=[3]"], "engine.urls=[http://HOST:PORT"),
        (["train", "engine=vllm_server", "engine.urls=[http://x]", "engine.dtype=fancy"], "engine.dtype"),
        (["train", "engine=vllm_server", "engine.urls=[http://x]", "engine.timeout=-1"], "engine.timeout"),
        (
            ["train", "engine=vllm_server", "engine.urls=[http://x]", "engine.max_in_flight=0"],
            "engine.max_in_flight",
        ),
        (["train", "trainer.timeout=0"], "trainer.timeout"),
        (["train", "trainer.timeout=1e12"], "trainer.timeout"),
        (["train", "model.lora.r=4", "model.lora.alpha=0"], "model.lora.alpha must be above 0"),
        (["train", "model.lora.r=4", "model.lora.target_modules=[]"], "adapts nothing"),
        (["train", "model.dtype=bf16"], "model.dtype takes one of auto, float32, bfloat16"),
        (["train", "model.dtype=bfloat16", "trainer.accelerator=cpu"], "set trainer.precision=bf16-mixed"),
        (["train", "model.dtype=bfloat16", "trainer.precision=32-true"], "set trainer.precision=bf16-mixed"),
        (["train", "model.quantization=int8"], "model.quantization takes one of nf4"),
        (["train", "model.quantization=nf4"], "model.quantization=nf4 freezes the model's weights"),
        (
            ["train", "model.quantization=nf4", "model.lora.r=4", "trainer.devices=2"],
            "trainer.parallel=ddp, which keeps a copy on every GPU",
        ),
        (["serve", "model.path=x", "port=99999"], "1 to 65535"),
        (["serve", "model.path=x", "model.lora.r=0"], "model.lora.r must be at least 1"),
        (["train", "rollout.staleness=-1"], "at least 0"),
        (["train", "model.attention=flex_attention", "trainer.accelerator=cpu"], "on a GPU only"),
        (["train", "trainer.precision=fancy"], "fancy"),
        (["train", "update.lr=nan"], "update.lr must be a finite number"),
        (["train", "iterations=0"], "iterations must be at least 1"),
        (["train", "checkpoint.best=val/aime24/avg@4"], "one of the sets countdown"),
        (["train", f"rollout.prompts={10**20}"], "rollout.prompts must be at most"),
        (["train", f"update.max_tokens={10**20}"], "update.max_tokens must be at most"),
        (["train", "trainer.devices=1000000"], "trainer.devices must be at most"),
        (["train", "rollout.staleness=1000000"], "rollout.staleness must be at most"),
        (["train", "rollout.foo=3"], "Known: rollout.group_size, rollout.max_new_tokens, rollout."),
        (["train", "env.kwargs.template={x}"], "\"env.kwargs.template='{x}'\""),
        (["train", "env.kwargs.template=it's"], "\"env.kwargs.template='it\\'s'\""),
        (["train", "seed=1.5"], "seed takes a whole number; got 1.5."),
        (
            ["train", "iterations=null"],
            "iterations takes a value; leave the key out for its default; got null.",
        ),
        (["train", "env.kwargs=3"], "one by one: env.kwargs.NAME=VALUE; got 3."),
        (["train", "update.lr=fast"], "update.lr takes a number; got fast."),
        (["train", "log.progress=3.5"], "log.progress takes true or false; got 3.5."),
        (["train", "log.rollouts=2"], "log.rollouts takes true or false; got 2."),
        (["train", "log.rollout_tokens=7"], "log.rollout_tokens takes true or false; got 7."),
        (["train", "run_dir=[1]"], "run_dir takes text; got [1]."),
        (["train", "warmup.lr=-1"], "warmup.lr must be at least 0"),
        (["train", "=3"], "'=3' is not an override"),
        (["train", "-m", "env.kwargs.template={x}"], "\"env.kwargs.template='{x}'\""),
        (["train", "engine.urls=[http://h:1/p?x=1,b]"], "\"engine.urls=['http://h:1/p?x=1','b']\""),
        (["train", "warmup.wrong=2"], "in [0, 1]"),
        (["train", "model.path="], "model.path is empty"),
        (["train", "seed=99999999999"], "seed must be at most 4294967295"),
        (["train", "env=null"], "names nothing"),
        (["train", "engine=[]"], "names nothing"),
        (["train", "env=[]"], "write env=NAME"),
        (["train", "env=[countdown,arithmetic]"], "write env=NAME"),
        (["train", "strategy=[[x]]"], "write strategy=[NAME"),
        (["train", "strategy=[null]"], "write strategy=[NAME"),
        (["train", "strategy={}"], "write strategy=[NAME"),
        (["train", "strategy=[clip_cov,clip_cov_small]"], "clip_cov and clip_cov_small both fill"),
        (["train", "strategy=[kl_cov,clip_cov,kl_cov]"], "names kl_cov twice"),
        (["train", "strategy.kl_cov.keep_clip=maybe"], "keep_clip must be true or false, got 'maybe'"),
        (["train", "strategy.kl_cov.fraction=abc"], "fraction must be a number, got 'abc'"),
        (["train", "strategy.kl_cov.fraction=true"], "fraction must be a number, got True"),
        (["train", "strategy.kl_cov.estimator=[abs]"], "estimator must be text"),
        (
            ["train", "strategy=[clip_higher]", "strategy.clip_higher.low=x"],
            "low must be a number or null, got 'x'",
        ),
        (["train", "engine.batch_size=1.5"], "engine.batch_size must be a whole number"),
        (["train", "objective.filters.max_resample=abc"], "max_resample must be a whole number"),
        (["train", "objective.filters.max_resample=-1"], "max_resample must not be negative"),
        (["train", "objective.filters=3"], "must be an ecrl.algorithm.objective.Filters"),
        (["train", "objective.bounds.low=1.5"], "low must be in [0, 1]"),
        (["train", "objective.surrogate.dual_clip=0.9"], "objective.surrogate: dual_clip must exceed 1"),
        (["train", "objective=dr_grpo", "objective.aggregation.length=0"], "length must exceed 0"),
        (
            ["train", "objective.aggregation._target_=ecrl.algorithm.losses.constant"],
            "missing a required argument: 'length'",
        ),
        (["train", "--config-dirx=configs"], "Did you mean '--config-dir'?"),
        (["train", "--config-dir="], "needs a folder"),
        (["train", "objective.estimator=3"], "must be a function"),
        (["train", "update.weight_decay=-1"], "update.weight_decay"),
        (["train", "update.max_tokens=10"], "update.max_tokens"),
        (["train", "rollout.temperature=0"], "rollout.temperature"),
        (["train", "model.path=/nowhere"], "does not exist"),
        (["train", "strategy=[kl_cov,clip_higher]"], "kl_cov"),
        (["train", "resume=/nowhere"], "config.yaml is missing"),
        (["train", "iterations"], "key=value"),
        (["train", "--fast"], "Unknown option"),
        (["train", "--config-dir", "/nowhere"], "not a folder"),
        (["train", "+strategy.mine._target_=no.such.Thing"], "no.such.Thing"),
        (["train", "seed=-1"], "seed"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else "",
)
def test_bad_input_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert says in refused(capsys, *words)


@pytest.mark.slow
def test_output_that_nobody_reads_ends_quietly() -> None:
    command = f"{sys.executable} -m ecrl envs | head -1; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=100)
    assert done.stderr == "" and done.stdout.count("\n") == 1
    assert done.returncode in (0, 141)  # 0 if all was in the pipe before it closed


def test_sweep_runs_every_combination(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checked: list[str | None] = []

    def counted(config: Config, **more: Any) -> list[str]:
        checked.append(config.run_dir)
        return preflight(config, **more)

    for module in ("ecrl.training.preflight", "ecrl.training.run"):
        monkeypatch.setattr(f"{module}.preflight", counted)
    words = [*TINY, f"model.path={tiny_model}", f"run_dir={tmp_path / 'sweep'}", "iterations=1", "seed=0,1"]
    assert main(["train", "-m", *words]) == 0
    first, second = sorted(tmp_path.glob("sweep/*"))
    assert checked == [str(first), str(second)]  # each once
    assert [OmegaConf.load(run / "config.yaml").seed for run in (first, second)] == [0, 1]
    assert read_commands(second) == [Command(0, [*words[:-3], "iterations=1", "seed=1", f"run_dir={second}"])]
    assert main(["train", f"resume={first}", "iterations=2"]) == 0
    assert read_commands(first)[1:] == [Command(1, [f"resume={first}", "iterations=2"])]


def test_eval_writes_json(tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "eval.json"
    words = [
        f"model.path={tiny_model}",
        "env=tests.support.tasks:test/Digits-v0",
        "eval.k=4",
        "eval.problems=8",
    ]
    assert main(["eval", *words, f"output={output}"]) == 0
    result = json.loads(output.read_text())
    assert set(result["metrics"]) >= {
        f"val/digits/{n}" for n in ("avg@4", "pass@1", "pass@4", "maj@4", "greedy")
    }
    assert "val/digits/avg@4" in capsys.readouterr().out


def test_warmup_makes_a_base_that_evaluates(tmp_path: Path) -> None:
    small = ["model.hidden_size=32", "model.heads=2", "model.layers=1", "warmup.steps=3", "env=arithmetic"]
    assert main(["warmup", *small, f"output={tmp_path / 'base'}"]) == 0
    words = [f"model.path={tmp_path / 'base'}", "env=arithmetic", "eval.k=2", "eval.problems=2"]
    assert main(["eval", *words]) == 0


@pytest.mark.parametrize("command", ["envs", "strategies", "doctor", "--help"])
def test_listings(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command]) == 0
    wanted = {"envs": "ecrl/Countdown-v0", "strategies": "kl_cov", "doctor": "torch", "--help": "ecrl train"}
    assert wanted[command] in capsys.readouterr().out


def test_a_mistake_in_the_last_of_a_sweep_shows_before_the_first_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "train",
        "-m",
        *TINY,
        "env=countdown",
        "env.kwargs.numbers=3,99",
        f"run_dir={tmp_path / 'sweep'}",
    ]
    assert "numbers must be an integer" in refused(capsys, *words)
    assert not (tmp_path / "sweep").exists()


def test_a_run_without_a_checkpoint_is_refused_at_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    OmegaConf.save(OmegaConf.structured(build_config([])), tmp_path / "config.yaml")
    assert "has no checkpoint" in refused(capsys, "train", f"resume={tmp_path}")


def test_a_name_given_twice_and_a_monitor_that_fails_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert "names standard twice" in refused(capsys, "train", "monitor=[standard,standard]")
    assert "monitor.samples: " in refused(capsys, "train", "monitor.samples.every=0")


def test_the_end_of_a_run_names_what_there_is(
    finished_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = build_config([])
    _show(config, Outcome(finished_run, 2, None, {}, 1.0))
    out = capsys.readouterr().out
    assert f"tensorboard --logdir {finished_run}" in out and f"ecrl rollouts {finished_run}" in out
    _show(config, Outcome(tmp_path, 2, None, {}, 1.0))
    out = capsys.readouterr().out
    assert f"ecrl report {tmp_path}" in out and "tensorboard" not in out and "ecrl rollouts" not in out
