"""``ecrl plan``: its formulas against what was measured and published, and the experiments it plans."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import Qwen2Config

from ecrl.algorithm.strategy_stack import build_strategies, check_stack
from ecrl.cli import main
from ecrl.cli.plan import COMMAND, planned_config
from ecrl.config.compose import build_config
from ecrl.config.groups import options
from ecrl.config.targets import build
from ecrl.estimate.advice import missing, ways_out
from ecrl.estimate.flops import body_flops, iteration
from ecrl.estimate.job import Job
from ecrl.estimate.memory import GIB, kv_bytes_per_token, moments
from ecrl.policy.meta_model import meta_model
from tests.support.paths import ROOT

PAPER = [f"paper_{size}_{name}" for size in ("7b", "32b") for name in ("grpo", "clip_cov", "kl_cov")]


def job(*words: str, **arguments: Any) -> Job:
    parsed = COMMAND.parse([*words, *(f"{k}={v}" for k, v in arguments.items())])
    return Job(planned_config(parsed), parsed.settings)


# ---------------------------------------------------------------- experiments


def test_the_shipped_experiments_are_the_papers() -> None:
    assert set(PAPER) == {name for name in options("experiment") if name.startswith("paper")}


@pytest.mark.parametrize("name", PAPER)
def test_experiments_have_the_papers_settings(name: str) -> None:
    _, size, algorithm = name.split("_", 2)
    config = build_config([f"experiment={name}"])
    assert (config.rollout.prompts, config.rollout.group_size, config.rollout.temperature) == (256, 8, 1.0)
    assert config.rollout.max_new_tokens == 8192
    assert (config.update.minibatches, config.update.epochs) == (8, 1)
    assert config.update.lr == {"7b": 5e-7, "32b": 1e-6}[size]
    assert (config.update.weight_decay, config.update.grad_clip) == (0.0, 1.0)
    assert (config.eval.every, config.eval.k, config.eval.temperature) == (4, 32, 0.6)
    assert config.iterations * config.update.minibatches == 2400
    strategies = build_strategies(config.strategy)
    assert [s.name for s in strategies] == ([] if algorithm == "grpo" else [algorithm])
    check_stack(config, strategies)
    objective = build(config.objective)
    assert objective.aggregation.func.__name__ == "token_mean"
    assert objective.filters.drop_zero_variance and objective.filters.max_resample > 0
    width = 1.0 if algorithm == "clip_cov" else 0.2
    assert (objective.bounds.low, objective.bounds.high) == (width, width)
    chosen = config.strategy.get(algorithm, {})
    if algorithm == "clip_cov":
        assert (chosen["fraction"], chosen["low"], chosen["high"]) == (2e-4, 1.0, 5.0)
    if algorithm == "kl_cov":
        assert (chosen["fraction"], chosen["coefficient"]) == ({"7b": 2e-3, "32b": 2e-4}[size], 1.0)
    assert config.engine["_target_"] == "ecrl.engines.vllm.colocated.VLLMEngine"
    assert config.trainer.precision == "bf16-mixed" and config.trainer.parallel == "fsdp"


def test_the_command_line_changes_an_experiment() -> None:
    config = build_config(
        ["experiment=paper_32b_kl_cov", "strategy=[clip_cov,clip_higher]", "engine=hf", "update.lr=1e-5"]
    )
    assert list(config.strategy) == ["clip_cov", "clip_higher"] and config.update.lr == 1e-5
    assert config.engine["_target_"] == "ecrl.engines.hf.HFEngine" and config.rollout.prompts == 256


@pytest.mark.parametrize(
    ("path", "parameters", "kv"),
    [
        ("Qwen/Qwen2.5-7B", 7_615_616_512, 57_344),
        ("Qwen/Qwen2.5-32B", 32_763_876_352, 262_144),
        ("Qwen/Qwen3-0.6B", 596_049_920, 114_688),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248, 131_072),
    ],
)
def test_published_models_on_the_meta_device(path: str, parameters: int, kv: int) -> None:
    plan = job(f"model.path={path}")
    lm = meta_model(plan.config.model)
    assert all(p.is_meta for p in lm.parameters())
    assert plan.model.parameters == parameters == sum(p.numel() for p in lm.parameters())
    assert kv_bytes_per_token(plan.model) == kv
    assert plan.model.layers * plan.model.layer_parameters + plan.model.root_parameters == parameters


def test_adapters_are_what_peft_makes(tmp_path: Path) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    lm = meta_model(build_config([]).model)
    targets = ["q_proj", "down_proj"]
    inject_adapter_in_model(LoraConfig(r=4, target_modules=targets), lm)
    made = sum(p.numel() for name, p in lm.named_parameters() if ".lora_" in name)
    assert job().model.adapter_parameters(4, targets) == made


# ---------------------------------------------------------------- formulas


def test_work_of_a_small_model_by_hand() -> None:
    model = job().model  # 3 layers, 4 heads × 32
    assert body_flops(model, count=10, pairs=55) == 2 * 3 * model.layer_parameters * 10 + 4 * 3 * 128 * 55
    # 64 × 8 completions of 16 × 0.5 = 8 tokens, prompts of 20: rows of 256 hold a whole group.
    plan = job("strategy=[]", "update.epochs=2", "update.row_tokens=256", length=0.5, prompt=20)
    forward = body_flops(model, 512 * 8 + 64 * 20, 512 * (8 * 20 + 32) + 64 * 200)
    forward += 2 * model.vocabulary * 128 * 512 * 8
    phases = iteration(plan)
    assert set(phases) == {"prefill", "decode", "forward", "backward", "recomputation"}
    assert phases["forward"].flops == pytest.approx(2 * forward)
    assert phases["backward"].flops == pytest.approx(4 * forward)
    assert phases["forward"].seconds == pytest.approx(2 * forward / (989e12 * 0.35))


def test_what_costs_a_pass() -> None:
    base = iteration(job("strategy=[]"))
    assert "reference" in iteration(job("strategy=[reference_kl]")).keys() - base.keys()
    planned = iteration(job("strategy=[kl_cov]"))
    assert planned["planning"].flops == pytest.approx(planned["forward"].flops * 3 / 4)
    assert "old log-probs" in iteration(job("engine=vllm")).keys() - base.keys()
    frozen = iteration(job("strategy=[]", "model.lora.r=4"))
    assert frozen["backward"].flops == base["backward"].flops / 2


def test_only_an_engine_on_the_trainers_gpus_takes_their_memory() -> None:
    vllm = moments(job("engine=vllm"))["rollout"]
    assert vllm["vLLM weights"] > 0 and vllm["KV cache"] > 0
    servers = job("engine=vllm_server", "engine.urls=[http://localhost:8000]")
    assert moments(servers)["rollout"].keys() == moments(servers)["step"].keys() - {"step"}
    assert "logits" in moments(job("engine=hf"))["rollout"]


def test_shards_and_copies() -> None:
    words = ["experiment=paper_7b_grpo"]
    whole = 4 * 7_615_616_512
    for overrides, gpus, share in (
        ([], 8, 1 / 8),
        (["trainer.parallel=ddp"], 8, 1.0),
        (["trainer.tensor_parallel_size=2"], 8, 1 / 8),
        (["trainer.parallel=ddp", "trainer.tensor_parallel_size=2"], 8, 1 / 2),
    ):
        parts = moments(job(*words, *overrides, gpus=gpus))["head"]
        assert parts["weights"] == parts["gradients"] == pytest.approx(whole * share)
        assert parts["optimizer"] == pytest.approx(2 * whole * share)
    assert "weights" not in moments(job(*words, "trainer.cpu_offload=true", gpus=8))["head"]
    lora = moments(job(*words, "model.lora.r=16", gpus=8))["head"]
    assert lora["optimizer"] < 0.02 * whole and lora["weights"] > whole / 8


@pytest.mark.parametrize("checkpointing", ["false", "true"])
def test_measured_peak_memory(checkpointing: str, tmp_path: Path) -> None:
    Qwen2Config(
        hidden_size=384,
        intermediate_size=1152,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        vocab_size=4096,
        tie_word_embeddings=False,
    ).save_pretrained(tmp_path)
    plan = job(
        f"model.path={tmp_path}",
        f"model.activation_checkpointing={checkpointing}",
        "trainer.accelerator=cpu",
        "update.max_tokens=1024",
    )
    predicted = max(sum(parts.values()) for name, parts in moments(plan).items() if name != "rollout")
    # Large tensors go back to the system when they are freed, so that the peak is that of live ones.
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MALLOC_MMAP_THRESHOLD_": "65536",
        "MALLOC_TRIM_THRESHOLD_": "0",
        "MALLOC_ARENA_MAX": "1",
    }
    command = [sys.executable, "-m", "tests.support.measure_memory", str(tmp_path), "1024", checkpointing]
    result = subprocess.run(
        command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=250, check=True
    )
    measured = int(result.stdout)
    print(f"predicted {predicted / 2**20:.0f} MiB, measured {measured / 2**20:.0f} MiB")
    assert measured > 250e6
    assert predicted == pytest.approx(measured, rel=0.15)


# ---------------------------------------------------------------- published figures (docs/scale.md)


def test_published_grpo_step_of_llama_8b() -> None:
    """NeMo-RL issue 959: Llama-3.1-8B, 8 GPUs: training 38 s, two log-prob passes 19 s, generation 57 s."""
    plan = job(
        "model.path=meta-llama/Llama-3.1-8B",
        "engine=vllm_bf16",
        "strategy=[reference_kl]",
        "rollout.prompts=64",
        "rollout.group_size=32",
        "rollout.max_new_tokens=4096",
        "update.max_tokens=8192",
        "update.row_tokens=0",
        "model.activation_checkpointing=true",
        "trainer.precision=bf16-mixed",
        gpus=8,
        length=777 / 4096,
        prompt=100,
    )
    seconds = {name: phase.seconds for name, phase in iteration(plan).items()}
    assert sum(seconds[n] for n in ("forward", "backward", "recomputation")) == pytest.approx(38, rel=0.1)
    assert seconds["old log-probs"] + seconds["reference"] == pytest.approx(19, rel=0.1)
    assert seconds["prefill"] + seconds["decode"] == pytest.approx(57, rel=0.1)
    assert missing(plan) <= 0


@pytest.mark.parametrize(
    ("length", "mfu", "rate", "memory"), [(16384, 0.111, 11.90e3, 12.5), (65536, 0.268, 10.15e3, 19.6)]
)
def test_published_trainer_of_qwen3(length: int, mfu: float, rate: float, memory: float) -> None:
    """prime-rl's table: Qwen3-0.6B on one H100, full training, recomputation."""
    plan = job(
        "model.path=Qwen/Qwen3-0.6B",
        "engine=vllm_bf16",
        "strategy=[]",
        "rollout.prompts=1",
        "rollout.group_size=2",
        f"rollout.max_new_tokens={length - 1}",
        f"update.max_tokens={length}",
        "update.row_tokens=0",
        "update.minibatches=1",
        "model.activation_checkpointing=true",
        "trainer.precision=bf16-mixed",
        length=1.0,
        prompt=1,
        utilisation=mfu,
    )
    phases = iteration(plan)
    assert 2 * length / (phases["forward"].seconds + phases["backward"].seconds) == pytest.approx(
        rate, rel=0.02
    )
    peak = max(sum(parts.values()) for name, parts in moments(plan).items() if name != "rollout")
    assert peak / GIB == pytest.approx(memory, rel=0.1)


# ---------------------------------------------------------------- command line


def test_a_plan_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "experiment=paper_7b_kl_cov", "gpus=8", "gpu_memory=80"]) == 0
    shown = capsys.readouterr().out
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "vLLM weights", "KV cache"):
        assert part in shown
    assert "7.62e9 parameters" in shown and "planning" in shown


@pytest.mark.parametrize(
    ("words", "largest"),
    [
        (["experiment=paper_32b_kl_cov", "gpus=32", "trainer.cpu_offload=false"], "vLLM weights (61.0 GiB)"),
        (["experiment=paper_7b_grpo", "gpus=1"], "optimizer (56.7 GiB)"),
        (["experiment=paper_7b_grpo", "gpus=4"], "KV cache (31.8 GiB)"),
    ],
)
def test_a_plan_that_does_not_fit(words: list[str], largest: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "does not fit" in error and f"largest part is {largest}" in error
    ways = list(ways_out(job(*words)))
    assert len(ways) >= 2 and ways[0] in error
    for way in ways:
        capsys.readouterr()
        assert main(["plan", *words, *way.split()]) == 0, way


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["gpus=6", "trainer.tensor_parallel_size=4"], "does not divide the 6 processes"),
        (["experiment=paper_7b_grpo", "gpus=8", "trainer.tensor_parallel_size=8"], "28 query heads"),
        (["model.path=no/such-model"], "plan downloads nothing"),
        (["gpu=h1000"], "Did you mean 'h100'?"),
        (["gpus=many"], "many"),
        (["utilisation=0"], "in (0, 1]"),
        (["gpu_memory=-1"], "must be above 0"),
        (["gpu_memory=much"], "gpu_memory takes a number"),
        (["-m", "seed=0,1"], "has no -m"),
        (["gpu_memry=80"], "gpu_memry"),
    ],
)
def test_bad_input_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
