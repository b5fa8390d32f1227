"""The head over several real processes: a vocabulary in shards, DTensors, and FSDP2."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from transformers import Qwen2Config, Qwen2ForCausalLM

from ecrl.policy.lm_head import VocabShard, token_stats, vocabulary_facts
from tests.support.lm_head import problem
from tests.support.marks import slow_unless

TOKENS, VOCABULARY, HIDDEN = 9, 13, 4


def close(actual: Any, expected: Any) -> None:
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)


def inputs() -> dict[str, Tensor]:
    return problem(TOKENS, VOCABULARY, HIDDEN, torch.float32)


def outcome(
    hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor, **settings: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Results of the head and gradients of a loss of them, in which some rows and terms have no part."""
    results = token_stats(hidden, weight, targets, bias=bias, temperature=0.7, chunk_logits=8, **settings)
    random = torch.Generator().manual_seed(1)
    g, k = torch.randn(2, len(hidden), generator=random)
    g[[0, 4]] = 0
    k[[0, 5]] = 0
    leaves = [hidden, weight, bias]
    return list(results), list(torch.autograd.grad((g * results[0] + k * results[1]).sum(), leaves))


def shards_equal_the_whole(rank: int, size: int) -> None:
    made = inputs()
    results, (d_hidden, d_weight, d_bias) = outcome(**made)
    for bounds in {2: [[0, 5, 13], [0, 13, 13]], 3: [[0, 6, 7, 13], [0, 0, 9, 13]]}[size]:
        start, stop = bounds[rank : rank + 2]
        for name in ("weight", "bias"):
            made[name] = inputs()[name].detach()[start:stop].requires_grad_()
        assert isinstance(dist.group.WORLD, dist.ProcessGroup)
        shard = VocabShard(start, dist.group.WORLD)
        got_results, got_gradients = outcome(**made, vocabulary=shard)
        close(got_results, results)
        close(got_gradients, [d_hidden, d_weight[start:stop], d_bias[start:stop]])
        outside = made | {"targets": torch.full((TOKENS,), VOCABULARY)}
        logprobs, _ = token_stats(**outside, vocabulary=shard)
        assert logprobs.isnan().all()
        facts = {"keep": 0.3, "temperature": 0.7, "chunk_logits": 8}
        close(vocabulary_facts(**made, **facts, vocabulary=shard), vocabulary_facts(**inputs(), **facts))


def dtensors_equal_the_whole(rank: int, size: int) -> None:
    mesh = init_device_mesh("cpu", (size,))
    # On three processes: 5, 5 and 3 rows; and 2, 2 and none.
    for rows in (VOCABULARY, 4):
        made = inputs()
        made |= {n: made[n].detach()[:rows].requires_grad_() for n in ("weight", "bias")}
        made["targets"] = made["targets"] % rows
        results, gradients = outcome(**made)
        spread = {n: distribute_tensor(made[n].detach(), mesh, [Shard(0)]) for n in ("weight", "bias")}
        got_results, got = outcome(**made | {n: t.requires_grad_() for n, t in spread.items()})
        close(got_results, results)
        assert isinstance(got[1], DTensor) and isinstance(got[2], DTensor)
        close([got[0], got[1].full_tensor(), got[2].full_tensor()], gradients)
    whole = distribute_tensor(made["weight"].detach(), mesh, [Replicate()])
    with pytest.raises(ValueError, match="Shard"):
        token_stats(made["hidden"], whole, made["targets"])


class Scorer(nn.Module):
    """A causal LM whose own head is never called, as the policy is."""

    def __init__(self, tied: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lm = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=31,
                hidden_size=16,
                intermediate_size=24,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=2,
                tie_word_embeddings=tied,
            )
        )

    def forward(self, ids: Tensor) -> Tensor:
        hidden = self.lm.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1].flatten(0, 1)
        logprobs, entropy = token_stats(hidden, self.lm.lm_head.weight, ids[:, 1:].flatten(), chunk_logits=50)
        return (0.3 * entropy - logprobs).mean()


def batches(count: int) -> Tensor:
    return torch.randint(31, (count, 3, 7), generator=torch.Generator().manual_seed(2))


def gradients_of(model: nn.Module) -> dict[str, Tensor]:
    found = {}
    for name, parameter in model.named_parameters():
        gradient = parameter.grad
        assert gradient is not None
        found[name] = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
    return found


def fsdp_equals_one_process(rank: int, size: int) -> None:
    for tied in (False, True):
        whole, spread = Scorer(tied), Scorer(tied)
        torch.stack([whole(ids) for ids in batches(size)]).mean().backward()
        for layer in spread.lm.model.layers:
            fully_shard(layer)
        fully_shard(spread)
        spread(batches(size)[rank]).backward()
        close(gradients_of(spread), gradients_of(whole))


def tensor_parallel_head_equals_the_whole(rank: int, size: int) -> None:
    whole, spread = Scorer(tied=False), Scorer(tied=False)
    ids = batches(1)[0]
    loss = whole(ids)
    loss.backward()
    parallelize_module(spread, init_device_mesh("cpu", (size,)), {"lm.lm_head": ColwiseParallel()})
    got = spread(ids)
    got.backward()
    close(got, loss)
    close(gradients_of(spread), gradients_of(whole))


CHECKS: dict[int, list[Callable[[int, int], None]]] = {
    2: [
        shards_equal_the_whole,
        dtensors_equal_the_whole,
        fsdp_equals_one_process,
        tensor_parallel_head_equals_the_whole,
    ],
    3: [shards_equal_the_whole, dtensors_equal_the_whole],
}


def _process(rank: int, size: int, port: int) -> None:
    torch.set_num_threads(1)
    store = dist.TCPStore("127.0.0.1", port, timeout=timedelta(seconds=60))
    dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=60))
    for check in CHECKS[size]:
        check(rank, size)
    dist.barrier()  # a process that leaves early aborts those still in a collective
    dist.destroy_process_group()


@pytest.mark.parametrize("size", slow_unless(lambda size: size == 2, CHECKS))
def test_real_processes_equal_one(size: int) -> None:
    # An error in one process is an error here; its traceback names the check.
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    mp.spawn(_process, args=(size, store.port), nprocs=size)
