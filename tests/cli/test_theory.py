"""`ecrl theory`."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecrl.cli import main


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["draws=5", "actions=10", "states=3"]
    assert main(["theory", *words, f"output={tmp_path / 'out'}"]) == 0
    printed = capsys.readouterr().out
    assert "3 states" in printed and "within the stated 0.500%" in printed
    assert printed.count("✓") == 1 + 8 and printed.count("✗") == 1  # one of each in the legend
    assert (tmp_path / "out" / "theory.png").read_bytes().startswith(b"\x89PNG")
    assert main(["theory", *words, "tolerance=1e-6"]) == 1
    printed = capsys.readouterr().out
    assert "beyond" in printed and printed.count("✗") > 1
    assert main(["theory", *words, "small=1"]) == 1


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("action=3", "Did you mean 'actions'"),
        ("actions=x", "actions takes a whole number, got 'x'"),
        ("actions", "actions takes a whole number"),
        ("actions=1", "at least 2"),
        ("tolerance=nan", "tolerance must be a finite number"),
        ("tolerance=-1", "tolerance must be at least 0"),
        ("output=/proc/none/out", "cannot be written"),
    ],
)
def test_bad_words_are_one_line(word: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["theory", word]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [(["seed=1", "seed=2"], 2, "seed stands twice"), (["actions=9999999999999"], 1, "Out of memory")],
)
def test_twice_or_too_much_is_one_line(
    words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["theory", *words]) == code
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_figure_that_cannot_be_written_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "theory.png").mkdir()
    assert main(["theory", f"output={tmp_path}", "draws=3", "actions=5"]) == 2
    assert capsys.readouterr().err.startswith(f"ecrl: output={str(tmp_path)!r} cannot be written")
