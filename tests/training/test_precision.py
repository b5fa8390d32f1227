"""Mixed precision in one process: autocast."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ecrl.config.schema import Config
from tests.support.conformance import gradient, make_batch, make_module
from tests.support.jobs import job


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


def test_the_policy_knows_in_which_type_it_computes(tiny: Callable[..., Config]) -> None:
    """An engine with weights of its own takes that type, and so does the plan."""
    for precision, dtype in (("32-true", torch.float32), ("bf16-mixed", torch.bfloat16)):
        module = make_module(tiny(f"trainer.precision={precision}"), [])
        assert module.model.lm.dtype == torch.float32 and module.model.compute_dtype == dtype
        bytes_of = {
            name: job(f"trainer.precision={precision}", f"engine={name}").engine_bytes
            for name in ("vllm", "vllm_bf16")
        }
        assert bytes_of == {"vllm": dtype.itemsize, "vllm_bf16": 2}
