"""The parser of all commands: words, settings, overrides, flags and help."""

from __future__ import annotations

from dataclasses import dataclass, fields
from importlib import import_module
from pathlib import Path

import pytest

from ecrl.cli import COMMANDS, USAGE, main
from ecrl.cli.arguments import Arguments, Command, NoSettings
from ecrl.config.limits import field_key, number
from ecrl.errors import UsageError


@dataclass(frozen=True)
class Settings:
    model__path: str = ""
    width: int = number(1, least=1)
    rate: float | None = number(None, above=0)
    sizes: tuple[float, ...] = ()
    output: Path | None = None


TABLE = Command("table", "help", Settings, words=True)
RUN = Command("run", "help", Settings, overrides=True, flags=("-m", "--config-dir"))


def test_words_settings_overrides_and_flags_are_told_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    (tmp_path / "a=b").touch()
    line = ["runs/1", "a=b", "~/x", "c/d=e", "model.path=m", "rate=1e-3", "sizes=1,2.5", "output=~/o"]
    assert TABLE.parse(line) == Arguments(
        ["runs/1", "a=b", "/home/me/x", "c/d=e"],
        Settings("m", 1, 1e-3, (1.0, 2.5), Path("/home/me/o")),
        [],
    )
    line = [
        "seed=1,2",
        "width=3",
        "--config-dir",
        "~/mine",
        "env.kwargs.path=~/data",
        "--multirun",
    ]
    assert RUN.parse(line) == Arguments(
        [],
        Settings(width=3),
        ["seed=1,2", "env.kwargs.path=/home/me/data"],
        config_dir=Path("/home/me/mine"),
        sweep=True,
    )


@pytest.mark.parametrize(
    ("command", "word", "says"),
    [
        (TABLE, "widht=3", "Unknown setting of `ecrl table` 'widht'. Did you mean 'width'?"),
        (TABLE, "width=x", "`ecrl table`: width takes a whole number, got 'x'."),
        (TABLE, "width=", "width takes a whole number, got ''."),
        (TABLE, "width=0", "width must be at least 1, got 0."),
        (TABLE, "rate=0", "rate must be above 0, got 0.0."),
        (TABLE, "sizes=1,x", "sizes takes numbers with commas between them, got '1,x'."),
        (TABLE, "-m", "`ecrl table` has no -m; its options: --help."),
        (TABLE, "--cgf", "Unknown option '--cgf'."),
        (RUN, "--cfg", "`ecrl run` has no --cfg; its options: -m, --config-dir, --help."),
        (RUN, "--config-di", "Did you mean '--config-dir'?"),
        (RUN, "--config-dir", "--config-dir needs a folder: --config-dir DIR."),
        (RUN, "seed", "'seed' is not an override; write key=value, e.g. seed=1."),
        (Command("list", "help", NoSettings), "x=1", "`ecrl list` takes no arguments, got 'x=1'."),
    ],
)
def test_what_a_command_does_not_take(command: Command[object], word: str, says: str) -> None:
    with pytest.raises(UsageError) as error:
        command.parse([word])
    assert says in str(error.value)


def test_a_setting_stands_once_but_the_last_override_wins() -> None:
    with pytest.raises(UsageError, match="width stands twice"):
        TABLE.parse(["width=1", "width=2"])
    assert RUN.parse(["width=1", "width=2"]).settings.width == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_a_help_of_its_own_that_names_all_it_takes(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"ecrl {name}: ") and max(map(len, shown.splitlines())) <= 110
    command = import_module(COMMANDS[name]).COMMAND
    assert command.name == name and f"ecrl {name}" in USAGE
    for wanted in (*(f"{field_key(f)}=" for f in fields(command.settings)), *command.flags):
        assert f"\n  {wanted}" in shown, wanted


def test_the_defaults_in_a_help_are_those_of_the_settings(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        main([name, "--help"])
        lines = capsys.readouterr().out.splitlines()
        command = import_module(COMMANDS[name]).COMMAND
        for setting in fields(command.settings):
            (line,) = (x for x in lines if x.startswith(f"  {field_key(setting)}="))
            if setting.default not in (None, "", ()):
                assert f"(default: {as_text(setting.default)})" in line


def as_text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
