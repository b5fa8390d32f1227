"""Strategies together: each composes with every other, or the run is refused in one line that says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ecrl.algorithm.strategy_stack import build_strategies, check_stack
from ecrl.cli import main
from ecrl.config.schema import Config
from ecrl.errors import UsageError
from tests.support.conformance import ROWS, Row, gradient, make_batch, make_module, node
from tests.support.marks import slow_unless
from tests.support.tiny import TINY
from tests.support.trained import PAIRS, Bench, Cell, Trained, is_first, update

#: Pairs of which one would undo the other, and strategies of which a second would.
REPLACED = ["dynamic_clip", "balanced_clip"]
BOUNDS = ["clip_higher", "adapo", "archer", "flexible_clip", *REPLACED]
REFUSED = [
    *({"kl_cov", name} for name in BOUNDS),
    *({name} for name in ("clip_higher", "high_entropy_tokens", "entropy_budget", "temperature_controller")),
]


def stack(row: Row, other: Row) -> dict[str, Any]:
    """Both strategies; a second one of the same kind has a name of its own."""
    nodes = node(row, row.active)
    return nodes | ({"twin": nodes[row.name]} if other is row else node(other, other.active))


def is_refused(first: str, second: str) -> bool:
    """Whether the first would do nothing; bounds that a later strategy replaces are lost."""
    return {first, second} in REFUSED or (first in BOUNDS and second in REPLACED)


def is_quick(row: Row, objective: str) -> bool:
    return (row.name, objective) == ("kl_cov", "grpo")


@pytest.mark.parametrize(("row", "objective"), slow_unless(is_quick, PAIRS, is_first), ids=str)
def test_each_composes_with_every_other_or_is_refused(row: Row, objective: str, trained: Trained) -> None:
    bench = Bench(Cell(row, objective, "32-true"), trained)
    for other in ROWS:
        nodes = stack(row, other)
        module = bench.module(nodes)
        refused = is_refused(row.name, other.name)
        try:
            check_stack(module.config, module.strategies)
        except UsageError as refusal:
            assert refused and row.name in str(refusal) and "\n" not in str(refusal), refusal
            continue
        assert not refused
        _, result, plan = update(module, bench.batch(module))
        assert torch.isfinite(result).all()
        assert row.planned | (other.planned if other is not row else set()) <= plan.changed_fraction.keys()


def test_a_refusal_is_one_line_and_names_what_helps(
    tiny_model: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = [*TINY, f"model.path={tiny_model}", f"run_dir={tmp_path / 'run'}", "iterations=1"]
    words += ["strategy=[kl_cov,clip_higher]"]
    assert main(["train", *words]) == 2
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("ecrl: kl_cov removes the ratio bounds that clip_higher sets")
    assert line.endswith("keep the bounds with strategy.kl_cov.keep_clip=true.")
    assert not (tmp_path / "run").exists()
    assert main(["train", *words, "strategy.kl_cov.keep_clip=true"]) == 0


def test_order_of_the_stack_is_the_order_of_the_config(tiny: Callable[..., Config]) -> None:
    (row,) = (row for row in ROWS if row.name == "clip_higher")
    stack = node(row, {"high": 0.5}) | {"narrow": node(row, {"high": 0.1})["clip_higher"]}
    for nodes, high in [(stack, 1.1), (dict(reversed(list(stack.items()))), 1.5)]:
        module = make_module(tiny(), build_strategies(nodes))
        _, _, plan = gradient(module, make_batch(module))
        assert plan.tokens.high.unique().tolist() == pytest.approx([high])
