"""Mixed precision in one process: autocast."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ecrl.config.schema import Config
from tests.support.conformance import gradient, make_batch, make_module


def test_a_pass_without_gradient_leaves_the_next_its_gradient(tiny: Callable[..., Config]) -> None:
    """Autocast keeps casts of the weights; those of a pass without gradient must not serve an update."""
    module = make_module(tiny("trainer.precision=bf16-mixed", "update.max_tokens=64"), [])
    batch = make_batch(module)
    precision = module.trainer.precision_plugin
    with precision.forward_context():
        _, alone, _ = gradient(module, batch)
    with precision.forward_context():
        module.scorer.score(batch)
        _, after, _ = gradient(module, batch)
    assert len(alone) == sum(p.numel() for p in module.model.parameters())
    assert torch.equal(alone, after)
