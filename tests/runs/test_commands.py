"""The commands that are saved with a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecrl.config.compose import build_config
from ecrl.errors import UsageError
from ecrl.runs.commands import Command, read_commands, save_command
from ecrl.runs.run_dir import open_run_dir


def test_a_run_keeps_the_command_of_its_start_and_of_each_resume(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    words = ["strategy=[]", "env.kwargs.note='it\\'s 1, 2'", f"run_dir={run_dir}"]
    assert open_run_dir(build_config(words), words) == run_dir
    resumed = build_config([f"resume={run_dir}"])
    assert open_run_dir(resumed, [f"resume={run_dir}"], iteration=3) == run_dir
    assert read_commands(run_dir) == [Command(0, words), Command(3, [f"resume={run_dir}"])]


def test_a_run_from_python_has_no_command(tmp_path: Path) -> None:
    run_dir = open_run_dir(build_config([f"run_dir={tmp_path / 'run'}"]))
    assert read_commands(run_dir) == []


@pytest.mark.parametrize("text", ["{", "3\n", '{"iteration": 0}\n', "\x00\n"])
def test_commands_that_cannot_be_read_are_named(text: str, tmp_path: Path) -> None:
    save_command(tmp_path, Command(0, []))
    with (tmp_path / "commands.jsonl").open("a") as file:
        file.write(text)
    with pytest.raises(UsageError, match=r"commands\.jsonl cannot be read"):
        read_commands(tmp_path)
