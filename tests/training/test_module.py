"""The module: a loss that is not finite."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ecrl.algorithm.losses import SurrogateLoss
from ecrl.config.schema import Config
from ecrl.errors import NonFiniteError
from ecrl.training.run import train
from tests.support.checkpoints import checkpoint_tensors
from tests.support.runs import silent


def test_non_finite_stops_with_a_checkpoint(
    tiny: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny("iterations=3")
    config.objective["surrogate"] = {"_target_": "tests.training.test_module.explosive", "_partial_": True}
    with pytest.raises(NonFiniteError, match=r"The loss became nan in iteration 1, optimizer step 1"):
        train(config, silent)
    state = checkpoint_tensors(tmp_path / "run", "nonfinite")
    assert state and all(torch.isfinite(tensor).all() for tensor in state.values())


def explosive(tokens: Any) -> SurrogateLoss:
    """A surrogate that is NaN."""
    return SurrogateLoss(tokens.logprobs * float("nan"))
