"""`ecrl envs show` and `ecrl envs check`."""

from __future__ import annotations

import pytest

from ecrl.cli import main


def test_show_prints_a_right_and_a_wrong_answer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "show", "countdown", "numbers=4"]) == 0
    output = capsys.readouterr().out
    for part in (
        "ecrl/Countdown-v0",
        "Text(",
        "operators",
        "'+-*'",
        "a right answer earns 1",
        "a wrong answer earns 0",
    ):
        assert part in output


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["envs", "show"], "ecrl envs show ID"),
        (["envs", "check", "numbers=3"], "ecrl envs check ID"),
        (["envs", "check", "nowhere"], "nowhere"),
        (["envs", "show", "countdown", "digits=3"], "digits"),
        (["envs", "list"], "ecrl envs show ID"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], part: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert part in error and error.count("\n") == 1


def test_checking_what_cannot_be_made_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["envs", "check", "ecrl/Gem-v0"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "target" in captured.err
