"""Bits do not depend on how threads race."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ecrl.config.schema import Config
from tests.support.conformance import make_batch, make_module


def test_the_gradient_of_a_shared_prompt_is_the_same_with_any_number_of_threads(
    tiny: Callable[..., Config],
) -> None:
    module = make_module(tiny(), [])
    batch = make_batch(module)
    (micro_batch,) = module.scorer.micro_batches(batch)
    wide = torch.randn(*micro_batch.input_ids.shape, 4096)

    def gradient(threads: int) -> torch.Tensor:
        torch.set_num_threads(threads)
        hidden = wide.clone().requires_grad_()
        module.model.lm.base_model.forward = lambda **_: type("Output", (), {"last_hidden_state": hidden})
        picked = module.model._hidden(micro_batch)
        picked.backward(torch.linspace(-1, 1, picked.numel()).view_as(picked).sin())
        assert hidden.grad is not None
        return hidden.grad

    try:
        alone = gradient(1)
        assert all(torch.equal(gradient(4), alone) for _ in range(20))
    finally:
        torch.set_num_threads(1)
