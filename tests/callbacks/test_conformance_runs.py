"""What every strategy owes in whole runs: neutral is bit-identical to none, resumed to one in one piece."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ecrl.config.resume import resumed_config
from ecrl.config.schema import PRECISIONS, Config
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors
from tests.support.conformance import ROWS, Row, node
from tests.support.marks import slow_unless
from tests.support.runs import assert_same_run, silent
from tests.support.trained import OBJECTIVES, PAIRS, Trained, is_first


def config(trained: Trained, run_dir: Path, objective: str, precision: str, iterations: int) -> Config:
    """A short run of the trained policy."""
    config = trained.config(objective, precision)
    config.run_dir, config.iterations = str(run_dir), iterations
    config.rollout.max_new_tokens, config.rollout.temperature = 8, 1.0
    return config


def policy_weights(run_dir: Path) -> dict[str, Tensor]:
    tensors = checkpoint_tensors(run_dir)
    return {name: tensor for name, tensor in tensors.items() if name.startswith("model.lm.")}


@pytest.fixture(scope="module")
def plain(trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """Weights after a run without any strategy."""
    run_dir = tmp_path_factory.mktemp("plain") / "run"
    weights = policy_weights(train(config(trained, run_dir, "grpo", "32-true", 2), silent).run_dir)
    before = load_policy(str(trained.path), load_tokenizer(str(trained.path))).state_dict(prefix="model.")
    assert any(not torch.equal(weights[name], before[name]) for name in weights)  # it did train
    return weights


@pytest.mark.parametrize("row", slow_unless(lambda row: row.name == "reference_kl", ROWS), ids=str)
def test_a_neutral_run_is_bit_identical_to_one_without(
    row: Row, trained: Trained, plain: dict[str, Tensor], tmp_path: Path
) -> None:
    neutral = config(trained, tmp_path / "run", "grpo", "32-true", 2)
    neutral.strategy = node(row, row.neutral)
    weights = policy_weights(train(neutral, silent).run_dir)
    assert weights.keys() == plain.keys()
    assert all(torch.equal(weights[name], plain[name]) for name in weights)


def is_quick(row: Row, objective: str) -> bool:
    return (row.name, objective) == ("entropy_budget", "prime")


@pytest.mark.parametrize(("row", "objective"), slow_unless(is_quick, PAIRS, is_first), ids=str)
def test_a_resumed_run_is_bit_identical_to_one_in_one_piece(
    row: Row, objective: str, trained: Trained, tmp_path: Path
) -> None:
    """Half of the pairs in either precision, so that each strategy and each objective meets both."""
    precision = PRECISIONS[(ROWS.index(row) + OBJECTIVES.index(objective)) % 2]

    def run(name: str, iterations: int) -> Path:
        started = config(trained, tmp_path / name, objective, precision, iterations)
        started.strategy = node(row, row.active)
        return train(started, silent).run_dir

    whole, parts = run("whole", 4), run("parts", 2)
    at_half = policy_weights(parts)
    train(resumed_config([f"resume={parts}", "iterations=4"]), silent)
    assert_same_run(whole, parts)
    assert any(not torch.equal(tensor, at_half[name]) for name, tensor in policy_weights(whole).items())
