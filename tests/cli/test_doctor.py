"""``ecrl doctor`` reads what the package itself states."""

from __future__ import annotations

import tomllib
from importlib import metadata

import pytest

from ecrl.cli import main
from ecrl.cli.doctor import EXTRAS, requirements
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_required_packages_are_those_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    stated = [line.split(">")[0].split("[")[0] for line in PROJECT["dependencies"]]
    assert requirements() == stated
    assert main(["doctor"]) == 0
    rows = {cells[0]: cells[-1] for line in capsys.readouterr().out.splitlines() if (cells := cells_of(line))}
    assert {rows[name] for name in stated} == {"required"}


def test_every_extra_says_what_it_enables() -> None:
    assert {*EXTRAS, "dev"} == {*PROJECT["optional-dependencies"]}
    assert requirements("kernels") == ["triton", "liger-kernel"]


def test_a_missing_package_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def version(name: str) -> str:
        if name in ("sympy", "datasets"):
            raise metadata.PackageNotFoundError(name)
        return "1.0"

    monkeypatch.setattr("ecrl.runs.versions.metadata.version", version)
    monkeypatch.setenv("COLUMNS", "200")  # no line wraps
    assert main(["doctor"]) == 1
    shown = " ".join(capsys.readouterr().out.split())
    assert "sympy │ missing" in shown and "pip install 'ecrl[data]'" in shown


def test_a_package_of_another_name_counts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    known = {"vllm": ["vllm-of-some-device"]}
    monkeypatch.setattr("ecrl.runs.versions.metadata.packages_distributions", lambda: known)
    real = metadata.version
    monkeypatch.setattr(
        "ecrl.runs.versions.metadata.version",
        lambda name: "0.32.0" if name == "vllm-of-some-device" else real(name),
    )
    assert main(["doctor"]) == 0
    assert "vllm │ 0.32.0" in " ".join(capsys.readouterr().out.split())


def cells_of(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│").split("│")] if line.startswith("│") else []
