"""Code of the user's own that raises: one line, a file that says more, and a run folder that stays whole."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from ecrl.config.compose import build_config
from ecrl.config.resume import resumed_config
from ecrl.errors import EcrlError
from ecrl.runs.checkpoints import find_checkpoint
from ecrl.training.run import evaluate, train
from tests.support.runs import history, run, silent
from tests.support.tiny import TINY

RAISING, ALONE, ECHO = (
    f"env=tests.support.raising:test/{name}-v0" for name in ("Raising", "RaisingAlone", "RaisingEcho")
)
MIXTURE = [
    "env=mixture",
    "env.kwargs.envs=[{id: 'tests.support.raising:test/Raising-v0'}, {id: ecrl/Countdown-v0}]",
]


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    words = [word for word in TINY if not word.startswith("env=")]
    keep_all = "objective.filters.drop_zero_variance=false"
    return [*words, f"model.path={tiny_model}", "iterations=1", "eval.k=2", "eval.problems=4", keep_all]


def files(run_dir: Path) -> list[Path]:
    return sorted((run_dir / "errors").iterdir())


@pytest.mark.parametrize(
    ("words", "name"),
    [
        ([RAISING], "step-train-iteration0-problem"),
        ([RAISING, "env.kwargs.hook=stop"], "step-train-iteration0-problem"),
        ([RAISING, "env.kwargs.hook=reset"], "reset-train-problem0"),
        ([RAISING, "env.kwargs.hook=gold"], "gold-train-problem0"),
        ([RAISING, "env.kwargs.hook=same_answer", "eval.every=1"], "same_answer-raising-iteration0-problem"),
        ([RAISING, "eval.every=1"], "step-raising-iteration0-problem"),
        ([ALONE], "step-train-iteration0-problem"),
        ([RAISING, "env.kwargs.hook=pool"], "step-train-iteration0-problem"),
        ([ECHO], "step-train-iteration0-problem"),
        (MIXTURE, "step-train-iteration0-problem"),
    ],
)
def test_an_environment_that_raises_ends_the_run(
    words: list[str], name: str, base: list[str], tmp_path: Path
) -> None:
    for _ in range(2):  # the second time in the folder that the first one left
        with pytest.raises(
            EcrlError, match=r"failed: \w+.*Prompt, response and traceback: .*env\.on_error=zero"
        ) as e:
            run([*base, *words], tmp_path / "run")
        assert "\n" not in str(e.value)
    assert "progress" not in [thread.name for thread in threading.enumerate()]
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["errors"]
    found = [file for file in files(tmp_path / "run") if file.name.startswith(name)]
    assert found and str(found[0].parent) in str(e.value)
    text = found[0].read_text()
    assert "Traceback" in text
    said = {"env.kwargs.hook=stop": "StopIteration", "env.kwargs.hook=pool": "verifier_faults.py"}
    assert said.get(words[-1], "a fault of the user's own") in text
    if name.startswith("step"):
        assert "--- prompt ---" in text and "--- response ---" in text
        assert "tests/support/raising.py" in text


def test_a_failed_answer_can_score_0(base: list[str], tmp_path: Path) -> None:
    said: list[str] = []
    words = [*base, RAISING, "env.kwargs.digits=02468", "env.on_error=zero", "eval.every=1", "iterations=2"]
    run_dir = train(build_config([*words, f"run_dir={tmp_path / 'run'}"]), said.append).run_dir
    rows = history(run_dir)
    assert 0 < rows[1]["rollout/env_errors"] < 32 and rows[1]["rollout/env_errors"] % 4 == 0
    assert rows[1]["rollout/completions"] == 32
    assert rows[1]["val/raising/env_errors"] > 0
    assert len(files(run_dir)) == 20  # and no more, however many there are
    warnings = [line for line in said if "failed in" in line]
    assert len(warnings) == 2
    assert "in validation of raising, tests.support.raising:test/Raising-v0" in warnings[0]


@pytest.mark.parametrize("hook", ["reset", "gold", "same_answer"])
def test_other_hooks_do_not_end_such_a_run(hook: str, base: list[str], tmp_path: Path) -> None:
    words = [
        RAISING,
        f"env.kwargs.hook={hook}",
        "env.kwargs.digits=02468",
        "env.on_error=zero",
        "eval.every=1",
    ]
    rows = history(run([*base, *words], tmp_path / "run"))
    posed = rows[1]["rollout/completions"]
    assert posed + rows[1]["rollout/env_errors"] == 32
    assert (posed < 32) == (hook == "reset")
    assert files(tmp_path / "run")


def test_turns_before_a_failure_earn_nothing(base: list[str], tmp_path: Path) -> None:
    rows = history(run([*base, ECHO, "env.on_error=zero"], tmp_path / "run"))
    assert rows[0]["rollout/env_errors"] == 32 and rows[0]["rollout/reward"] == 0


def test_nothing_but_failures_is_an_error(base: list[str], tmp_path: Path) -> None:
    with pytest.raises(EcrlError, match="failed in each of its 32 episodes"):
        run([*base, RAISING, "env.kwargs.hook=reset", "env.on_error=zero"], tmp_path / "run")


def test_an_evaluation_leaves_a_file_too(base: list[str]) -> None:
    with pytest.raises(EcrlError, match=r"traceback: .*\.txt") as e:
        evaluate(build_config([*base, RAISING]))
    path = Path(str(e.value).split("traceback: ")[1].partition(". env.on")[0])
    assert "a fault of the user's own" in path.read_text()


MONITOR: dict[str, Any] = {"monitor.mine._target_": "tests.support.raising.RaisingMonitor"}


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["strategy.mine._target_=tests.support.raising.RaisingStrategy"], "strategy.mine"),
        (["monitor.mine._target_=tests.support.raising.RaisingMonitor"], "monitor.mine"),
    ],
)
def test_a_strategy_or_monitor_that_raises_is_named(
    words: list[str], part: str, base: list[str], tmp_path: Path
) -> None:
    env = "env=tests.support.tasks:test/Digits-v0"
    line = (
        rf"{part} failed: ZeroDivisionError: a fault.*raising\.py:\d+\)\. Its traceback is in .*{part}\.txt"
    )
    with pytest.raises(EcrlError, match=line):
        run([*base, env, *words], tmp_path / "run")
    assert "in fail\n" in (tmp_path / "run" / "errors" / f"{part}.txt").read_text()


def test_the_last_checkpoint_stays_whole(base: list[str], tmp_path: Path) -> None:
    words = ["env=tests.support.tasks:test/Digits-v0", "iterations=3", "checkpoint.every=1"]
    monitor = ["monitor.mine._target_=tests.support.raising.RaisingMonitor", "monitor.mine.iteration=1"]
    with pytest.raises(EcrlError, match=r"monitor\.mine failed"):
        run([*base, *words, *monitor], tmp_path / "run")
    find_checkpoint(tmp_path / "run")  # checks every byte
    assert train(resumed_config([f"resume={tmp_path / 'run'}", "monitor=[]"]), silent).iterations == 3
