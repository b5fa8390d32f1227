"""verl's own clip_cov and kl_cov agree with ours on one micro-batch; needs the real verl."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from ecrl.callbacks.clip_cov import ClipCov
from ecrl.callbacks.entropy_bonus import EntropyBonus
from ecrl.callbacks.kl_cov import KLCov
from ecrl.errors import UsageError

core_algos: Any = pytest.importorskip("verl.trainer.ppo.core_algos", reason="verl is not installed")

from ecrl.integrations.verl import register  # noqa: E402  (needs verl)


def config(**policy_loss: float | None) -> Any:
    limits = {
        "clip_cov_ratio": 0.5,
        "clip_cov_lb": 0.1,
        "clip_cov_ub": 5.0,
        "kl_cov_ratio": 0.3,
        "ppo_kl_coef": 1.5,
    }
    return SimpleNamespace(
        clip_ratio=0.2, clip_ratio_low=None, clip_ratio_high=0.28, clip_ratio_c=3.0, global_batch_info={},
        policy_loss=SimpleNamespace(**{**limits, **policy_loss}),
    )  # fmt: skip


def micro_batch(seed: int) -> dict[str, Tensor]:
    """Twelve ragged responses of up to 40 tokens; advantages are of sequences, right and wrong."""
    draw = torch.Generator().manual_seed(seed)
    old = -3 * torch.rand(12, 40, generator=draw)
    lengths = torch.randint(1, 41, (12, 1), generator=draw)
    advantages = torch.randn(12, 1, generator=draw).expand(12, 40)
    return {
        "old_log_prob": old,
        "log_prob": (old + 0.3 * torch.randn(12, 40, generator=draw)).clamp(max=-1e-3).requires_grad_(),
        "advantages": advantages.clone(),
        "response_mask": (torch.arange(40)[None] < lengths).long(),
    }


def both(theirs: str, ours: str, seed: int, mode: str, settings: Any) -> list[tuple[Tensor, Tensor]]:
    found = []
    for name in (theirs, ours):
        batch = micro_batch(seed)
        loss, metrics = core_algos.get_policy_loss_fn(name)(**batch, loss_agg_mode=mode, config=settings)
        loss.backward()
        assert all(isinstance(value, float) for value in metrics.values())
        found.append((loss.detach(), batch["log_prob"].grad))
    return found


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum", "seq-mean-token-mean"])
@pytest.mark.parametrize("seed", range(5))
def test_kl_cov_is_verls(seed: int, mode: str) -> None:
    register("ecrl_kl_cov", [KLCov(fraction=0.3, coefficient=1.5)])
    theirs, ours = both("kl_cov", "ecrl_kl_cov", seed, mode, config())
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-sum"])
@pytest.mark.parametrize("seed", range(5))
def test_clip_cov_is_verls_where_all_candidates_are_clipped(seed: int, mode: str) -> None:
    """Which of too many candidates are drawn is random in verl."""
    register("ecrl_clip_cov", [ClipCov(fraction=1.0, low=0.1, high=5.0)])
    theirs, ours = both("clip_cov", "ecrl_clip_cov", seed, mode, config(clip_cov_ratio=1.0))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)
    assert int((ours[1] == 0).sum()) > 12 * 40 - int(micro_batch(seed)["response_mask"].sum())


def test_correction_weights_of_the_rollout_apply() -> None:
    register("ecrl_plain", [])
    batch, weights = micro_batch(0), torch.full((12, 40), 0.5)
    loss = core_algos.get_policy_loss_fn("ecrl_plain")
    whole, _ = loss(**batch, config=config())
    half, _ = loss(**batch, config=config(), rollout_is_weights=weights)
    torch.testing.assert_close(half, whole / 2)


def test_a_strategy_that_reads_entropies_is_refused() -> None:
    with pytest.raises(UsageError, match="EntropyBonus needs the policy's entropies, which verl does not"):
        register("ecrl_bonus", [EntropyBonus()])
