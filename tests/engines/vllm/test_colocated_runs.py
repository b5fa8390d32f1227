"""The colocated engine in whole runs, in several processes, and with weights that vLLM packs away."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from ecrl.config.schema import Config, ModelConfig
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.vllm import plugin as vllm_plugin
from ecrl.engines.vllm.colocated import VLLMEngine
from ecrl.errors import EcrlError, UsageError
from ecrl.policy.model import PolicyModel, load_policy, load_tokenizer
from ecrl.policy.tiny_model import build_model, build_tokenizer
from ecrl.runs.metrics_file import read_metrics
from ecrl.training.run import train
from tests.support.tiny import TINY

# Each first start on a machine compiles a little.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
PROMPTS = [[10, 11, 12], [20, 21, 22, 23], [30], [40, 41], [50, 51, 52]]
KEYS = list(range(len(PROMPTS)))
SAMPLING = Sampling(1.0, 1.0, 8)
KNOBS = ["engine=vllm", "engine.kv_cache_gib=0.25", "engine.max_model_len=256"]


@pytest.fixture
def policy(tiny_model: Path) -> PolicyModel:
    return load_policy(str(tiny_model), load_tokenizer(str(tiny_model)))


def draw(policy: PolicyModel, process_group: ProcessGroup, share: range) -> list[list[int]]:
    engine = VLLMEngine(policy, process_group, kv_cache_gib=0.25, max_model_len=64)
    engine.sync_weights(policy.lm.named_parameters(), 0)
    drawn = engine.generate([PROMPTS[i] for i in share], SAMPLING, [KEYS[i] for i in share])
    engine.close()
    return [c.token_ids for c in drawn]


def test_two_processes_draw_what_one_draws(tiny_model: Path, policy: PolicyModel, tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    mp.spawn(two_processes, (port, tiny_model, tmp_path), nprocs=2)
    whole = draw(policy, ProcessGroup(), range(len(PROMPTS)))
    assert not dist.is_initialized()
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == whole


def two_processes(rank: int, port: int, path: Path, out: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    environment = dict(os.environ)
    process_group = ProcessGroup()
    drawn = draw(
        load_policy(str(path), load_tokenizer(str(path))), process_group, process_group.share(len(PROMPTS))
    )
    # The trainer's group is still there after the engine is closed.
    torch.save(process_group.gather(drawn), out / f"{rank}.pt")
    assert {name: os.environ.get(name) for name in ("RANK", "LOCAL_RANK")} == {
        name: environment.get(name) for name in ("RANK", "LOCAL_RANK")
    }
    dist.destroy_process_group()


def test_starting_and_drawing_leave_the_trainers_randomness_alone(policy: PolicyModel) -> None:
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    draw(policy, ProcessGroup(), range(2))
    after = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    assert before == after
    torch.set_num_threads(2)
    assert torch.get_num_threads() == 2
    torch.set_num_threads(1)


@pytest.fixture
def _packed(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """vLLM's CPU build as it is shipped: it packs the weights of linear layers when it starts."""
    from vllm import _custom_ops

    monkeypatch.setattr(vllm_plugin, "register", lambda: None)
    monkeypatch.setattr(_custom_ops, "_supports_onednn", True)
    yield


@pytest.mark.usefixtures("_packed")
def test_weights_that_vllm_packs_away_are_noticed(policy: PolicyModel) -> None:
    engine = VLLMEngine(policy, ProcessGroup(), kv_cache_gib=0.25, max_model_len=64)
    with pytest.raises(EcrlError, match=r"model\.layers\.0\.self_attn\.q_proj\.weight, .* packed away"):
        engine.sync_weights(policy.lm.named_parameters(), 0)
    engine.close()


def test_heads_that_its_attention_cannot_take_are_refused(policy: PolicyModel) -> None:
    lm = build_model(ModelConfig(hidden_size=32, layers=1, heads=2), build_tokenizer(), seed=0)
    with pytest.raises(UsageError, match="no attention for heads of size 16"):
        VLLMEngine(PolicyModel(lm, [1], 0), ProcessGroup())


def test_a_run_draws_with_the_policy_that_it_trains(tiny: Callable[..., Config]) -> None:
    config = tiny(
        *KNOBS,
        *["iterations=3", "eval.every=1", "eval.problems=4", "eval.k=2"],
        *["rollout.top_p=0.9", "eval.top_p=0.8", "strategy=[importance_correction]"],
    )
    rows = read_metrics(train(config, lambda line: None).run_dir / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [0, 1, 2, 3]
    assert all(row["rollout/length"] > 0 for row in rows[1:])
    # What top-p cuts off is at most a tenth of the mass.
    assert all(1e-3 < row["mismatch/max"] < 0.106 for row in rows[1:])
    assert not dist.is_initialized()


@pytest.mark.parametrize("knobs", [[], ["engine.dtype=float32"]], ids=["default", "float32"])
def test_a_run_in_bf16_mixed_draws_in_the_type_in_which_it_computes(
    knobs: list[str], tiny: Callable[..., Config]
) -> None:
    config = tiny(*KNOBS, *knobs, "trainer.precision=bf16-mixed", "iterations=3", "update.lr=1e-2")
    rows = read_metrics(train(config, lambda line: None).run_dir / "metrics.jsonl")
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    # Rounding of either side shows, and nothing else.
    assert all(1e-5 < row["mismatch/max"] < 0.1 for row in rows)


def test_the_same_architecture_has_the_same_path(
    policy: PolicyModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Path and configuration are part of the key of vLLM's compilation cache."""
    monkeypatch.setenv("ECRL_CACHE", str(tmp_path))
    keys = []
    for _ in range(2):
        engine = VLLMEngine(policy, ProcessGroup(), kv_cache_gib=0.25, max_model_len=64)
        model_config = engine._llm.llm_engine.vllm_config.model_config
        keys.append((model_config.model, model_config.compute_hash()))
        engine.close()
    assert keys[0] == keys[1]
    (folder,) = tmp_path.iterdir()
    assert keys[0][0] == str(folder) and [f.name for f in folder.iterdir()] == ["config.json"]


def test_each_run_of_a_sweep_has_its_own_process(tiny_model: Path, tmp_path: Path) -> None:
    words = [*TINY, *KNOBS, f"model.path={tiny_model}", f"run_dir={tmp_path}", "iterations=1", "seed=0,1"]
    subprocess.run([sys.executable, "-m", "ecrl", "train", "-m", *words], check=True, timeout=500)
    for name in ("001", "002"):
        assert [row["iteration"] for row in read_metrics(tmp_path / name / "metrics.jsonl")] == [1]


def test_the_command_line_trains_with_it(tiny_model: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    overrides = [*TINY, *KNOBS, f"model.path={tiny_model}", f"run_dir={run_dir}", "iterations=2"]
    subprocess.run([sys.executable, "-m", "ecrl", "train", *overrides], check=True, timeout=250)
    assert [row["iteration"] for row in read_metrics(run_dir / "metrics.jsonl")][-1] == 2


def test_shards_and_adapters_reach_it(tiny_model: Path, tmp_path: Path) -> None:
    """Two processes that shard a policy with adapters draw what one draws, with the weights they train.

    Each has an engine of its own, or both are one engine.
    """
    base = [*TINY, *KNOBS, f"model.path={tiny_model}", "iterations=3", "model.lora.r=4", "update.lr=1e-2"]
    rows = {}
    for processes, split in ((1, 1), (2, 1), (2, 2)):
        run_dir = tmp_path / f"{processes}-{split}"
        overrides = [*base, f"run_dir={run_dir}", f"trainer.devices={processes}", "trainer.accelerator=cpu"]
        overrides += [f"engine.tensor_parallel_size={split}"]
        subprocess.run([sys.executable, "-m", "ecrl", "train", *overrides], check=True, timeout=400)
        rows[processes, split] = read_metrics(run_dir / "metrics.jsonl")
    one = rows.pop((1, 1))
    assert one[-1]["policy/kl_behaviour"] > 1e-5  # the adapters moved, by far more than rounding
    for two in rows.values():
        for a, b in zip(one, two, strict=True):
            assert max(a["mismatch/max"], b["mismatch/max"]) < 1e-4
            drawn = [name for name in a if name.startswith("rollout/")]
            assert [a[name] for name in drawn] == [b[name] for name in drawn]
