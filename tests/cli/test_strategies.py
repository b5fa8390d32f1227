"""``ecrl strategies`` lists all that there is, and says of each what its code says."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from ecrl.cli import main
from ecrl.config.groups import options
from ecrl.config.source import definition
from ecrl.config.targets import resolve
from ecrl.report.methods_page import as_markdown
from tests.support.conformance import ROWS, node
from tests.support.paths import ROOT

SHIPPED = [row for row in ROWS if not row.target]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["strategies", *words]) == 0
    return " ".join(capsys.readouterr().out.split())


def test_it_lists_every_strategy_and_every_objective(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = printed(capsys)
    for name in (*options("strategy"), *options("objective")):
        assert f" {name} " in text
    weights, bounds = text.index("weights of tokens"), text.index("bounds of the ratio")
    assert weights < text.index(" clip_cov ") < bounds < text.index(" clip_higher ")
    assert "2512.02556" in text and "a pass, several updates" in text


@pytest.mark.parametrize("name", [*options("strategy"), *options("objective")])
def test_show_prints_settings_of_every_one(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    text = printed(capsys, "show", name)
    group = "strategy" if name in options("strategy") else "objective"
    loaded = OmegaConf.load(ROOT / "configs" / group / f"{name}.yaml")
    target = next(iter(loaded.values()))._target_ if group == "strategy" else loaded.estimator._target_
    for setting in list(inspect.signature(resolve(target, name)).parameters)[group == "objective" :]:
        assert f" {setting} " in text
    assert "arxiv.org/abs/" in text or "Source: ours" in text


@pytest.mark.parametrize("row", SHIPPED, ids=str)
def test_the_source_says_what_the_class_has(row) -> None:  # type: ignore[no-untyped-def]
    target = node(row, row.neutral)[row.name]["_target_"]
    what, cls = definition(target, row.name), resolve(target, row.name)
    parameters = inspect.signature(cls).parameters
    assert {name: p.default for name, p in parameters.items()} == {
        name: eval(default) for name, default in what.defaults.items()
    }
    assert set(what.meanings) == set(parameters)
    for flag in ("needs_current", "needs_reference", "needs_entropy", "needs_updates"):
        assert (flag in what.flags) == getattr(cls, flag)
    assert what.neutral and what.summary.endswith(".")


def test_one_of_your_own_is_read_without_importing_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ownpkg").mkdir()
    (tmp_path / "ownpkg" / "__init__.py").write_text("raise RuntimeError\n")
    (tmp_path / "ownpkg" / "half.py").write_text(
        '"""Half: w_i ← w_i/2."""\n\n\nclass Half(Strategy, WeightMixin):\n'
        '    """Halve the weights. Neutral: ``by=1``."""\n\n'
        "    def __init__(self, *, by: float = 2.0) -> None: ...\n"
    )
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "half.yaml").write_text("half: {_target_: ownpkg.half.Half, by: 4.0}\n")
    monkeypatch.syspath_prepend(tmp_path)
    text = printed(capsys, "show", "half", "--config-dir", str(tmp_path))
    assert "Half: w_i ← w_i/2." in text and "by │ 2.0 │ 4.0" in text and "does nothing with: by=1" in text
    assert " half " in printed(capsys, "--config-dir", str(tmp_path))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["show", "clip_cv"], "Did you mean 'clip_cov'?"),
        (["show"], "ecrl strategies show NAME"),
        (["list"], "ecrl strategies show NAME"),
    ],
)
def test_mistakes_are_answered_in_one_line(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["strategies", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


@pytest.mark.parametrize(
    "target", ["no_such.module.Thing", "ecrl.callbacks.NoSuch", "Thing", "torch._C.Thing"]
)
def test_what_cannot_be_read_is_said_in_one_line(
    target: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "strategy").mkdir()
    (tmp_path / "strategy" / "mine.yaml").write_text(f"mine: {{_target_: {target}}}\n")
    assert main(["strategies", "show", "mine", "--config-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"ecrl: strategy.mine._target_='{target}'")


def test_the_page_is_what_the_sources_say() -> None:
    page = (ROOT / "docs" / "strategies.md").read_text()
    assert page == as_markdown(ROOT / "docs" / "strategies"), (
        "write it anew: python -m ecrl.report.methods_page > docs/strategies.md"
    )
    for name in (*options("strategy"), *options("objective")):
        assert f"\n### {name}\n" in page


def test_every_method_is_drawn_for_the_page() -> None:
    arms = OmegaConf.load(ROOT / "benchmarks" / "methods.yaml").arms
    left_out = {"clip_cov", "kl_cov", "kl_cov_32b", "importance_correction"}  # three have a preset that fits
    assert set(arms) == {*options("strategy"), *options("objective")} - left_out
