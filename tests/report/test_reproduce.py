"""The commands of a report make the same runs again."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from pathlib import Path

import pytest

from ecrl.config.compose import build_config
from ecrl.report.reproduce import train_commands
from ecrl.report.runs import read_run
from ecrl.runs.commands import Command, save_command
from tests.support.reports import make_run, rows


def commands_of(run_dir: Path, *saved: Command) -> list[str]:
    for command in saved:
        save_command(run_dir, command)
    return train_commands(read_run(run_dir))


@pytest.mark.parametrize(
    "overrides",
    [
        ["strategy=[clip_cov,adaptive_entropy]", "strategy.clip_cov.fraction=0.01", "seed=7"],
        ["strategy=[]", "objective=dapo", "objective.bounds.high=0.3", "rollout.temperature=0.7"],
        ["strategy=[kl_cov]", "engine=vllm_server", "model.lora.r=8", "model.path=/models/a b"],
        ["env.kwargs.note='it\\'s 1, 2'", "strategy=[]", "model.path='1'"],
        ["env=mixture", "strategy=[]", "update.row_tokens=null", "trainer=fsdp"],
    ],
)
def test_commands_compose_to_the_same_settings(overrides: list[str], tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", *overrides, metrics=rows(1))
    (line,) = commands_of(run_dir, Command(0, [*overrides, "run_dir=elsewhere", "iterations=7"]))
    ecrl, train, *words = shlex.split(line)
    assert (ecrl, train) == ("ecrl", "train")
    expected = build_config([*overrides, f"run_dir={run_dir}", "iterations=40"])
    assert asdict(build_config(words)) == asdict(expected)


def test_a_resumed_run_takes_a_command_for_each_part(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", metrics=rows(1))
    lines = commands_of(
        run_dir,
        Command(0, ["seed=1", "--config-dir", "mine"]),
        Command(10, [f"resume={run_dir}"]),  # it failed before its first iteration
        Command(10, [f"resume={run_dir}", "iterations=99", "eval.every=5"]),
    )
    assert lines == [
        f"ecrl train seed=1 --config-dir mine iterations=10 run_dir={run_dir}",
        f"ecrl train eval.every=5 iterations=40 resume={run_dir}",
    ]


def test_a_run_without_commands_is_made_again_from_its_configuration(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", metrics=rows(1))
    comment, line = commands_of(run_dir)
    assert comment.startswith(f"# {run_dir} was made from Python or by an older version")
    python, flag, program = shlex.split(line)
    assert (python, flag) == ("python", "-c") and program.startswith("import ecrl; ")
    assert f"load_run('{run_dir}').config, iterations=40, run_dir='{run_dir}-again')" in program
    compile(program, "program", "exec")
    # Begun by an older version, and resumed.
    assert commands_of(run_dir, Command(10, [f"resume={run_dir}"])) == [comment, line]
