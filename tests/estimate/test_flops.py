"""Work and time: by hand, and against published figures (docs/scale.md)."""

from __future__ import annotations

import pytest

from ecrl.estimate.advice import missing
from ecrl.estimate.flops import body_flops, iteration, seconds, update_seconds
from ecrl.estimate.memory import GIB, moments
from tests.support.jobs import job


def test_work_of_a_small_model_by_hand() -> None:
    model = job().model  # 3 layers, 4 heads × 32
    assert body_flops(model, count=10, pairs=55) == 2 * 3 * model.layer_parameters * 10 + 4 * 3 * 128 * 55
    # 64 × 8 completions of 16 × 0.5 = 8 tokens, prompts of 20: rows of 256 hold a whole group.
    words = ["trainer.precision=32-true", "strategy=[]", "update.epochs=2", "update.row_tokens=256"]
    plan = job(*words, length=0.5, prompt=20)
    forward = body_flops(model, 512 * 8 + 64 * 20, 512 * (8 * 20 + 32) + 64 * 200)
    forward += 2 * model.vocabulary * 128 * 512 * 8
    phases = iteration(plan)
    assert set(phases) == {"prefill", "decode", "forward", "backward", "recomputation", "optimizer"}
    assert phases["forward"].flops == pytest.approx(2 * forward)
    assert phases["backward"].flops == pytest.approx(4 * forward)
    # In float32 (67 against 989 TFLOP/s) products take 9 times as long; flex attention 2.2 times.
    attention = 4 * 3 * 128 * (512 * (8 * 20 + 32) + 64 * 200)
    assert phases["forward"].seconds == pytest.approx(
        2 * 0.61 * 989 / 67 * (forward + 1.2 * attention) / (989e12 * 0.35)
    )
    # 8 optimizer steps move 7 numbers of 4 bytes for each parameter.
    assert phases["optimizer"].seconds == pytest.approx(8 * 28 * model.parameters / (0.8 * 3.35e12))


def test_what_costs_a_pass() -> None:
    full = "trainer.precision=32-true"
    base = iteration(job(full, "strategy=[]"))
    assert "reference" in iteration(job(full, "strategy=[reference_kl]")).keys() - base.keys()
    # 64 × 8 completions of 10 tokens, prompts of 24 with all 8: 6,656 tokens, 1,664 in each of 4 minibatches.
    words = [full, "strategy=[kl_cov]", "rollout.max_new_tokens=10", "update.row_tokens=256"]
    lengths = {"length": 1.0, "prompt": 24}
    assert "planning" not in iteration(job(*words, **lengths))
    split = [*words, "update.max_tokens=600"]  # three micro-batches, of which the first is free
    planned = iteration(job(*split, **lengths))
    assert planned["planning"].flops == pytest.approx(planned["forward"].flops * 2 / 3 * 3 / 4)
    left = iteration(job(*split, "engine=vllm", "rollout.old_logprobs=engine", **lengths))
    assert left["planning"].flops == pytest.approx(left["forward"].flops * 2 / 3)
    assert "old log-probs" not in left
    for overrides in (["engine=vllm"], ["trainer.precision=auto"], ["rollout.staleness=1"]):
        assert "old log-probs" in iteration(job(full, *overrides)).keys() - base.keys()
    frozen = iteration(job(full, "strategy=[]", "model.lora.r=4"))
    assert frozen["backward"].flops == base["backward"].flops / 2


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
        "model.activation_checkpointing=full",
        "model.attention=varlen",
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
        "model.activation_checkpointing=full",
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
    assert peak / GIB == pytest.approx(memory, rel=0.12)


def test_an_engine_of_several_gpus_reads_its_weights_in_parts() -> None:
    """By hand: Qwen2.5-32B on 8 GPUs as one engine; each step also sums twice a layer over the GPUs."""
    words = ["experiment=paper_32b_grpo", "trainer.num_nodes=1", "rollout.prompts=8", "rollout.group_size=1"]
    plan = job(*words, length=1.0, prompt=1)
    weights, cache = 2 * plan.model.matrix_parameters / 8, 2 * 64 * 1 * 128 * 2
    read = 8192 * (weights + 8 * (1 + 4096) * cache) / (0.4 * 3.35e12)
    assert iteration(plan)["decode"].seconds == pytest.approx(read + 8192 * 2 * 64 * 15e-6)


def test_drawing_ahead_on_servers_takes_no_time_of_its_own() -> None:
    servers = ["experiment=paper_7b_grpo", "engine=vllm_server", "engine.urls=[http://a:1]"]
    corrected = ["strategy=[importance_correction]", "rollout.staleness=1"]
    at_once, ahead = job(*servers), job(*servers, *corrected)
    phases = iteration(at_once)
    drawing = phases["prefill"].seconds + phases["decode"].seconds
    assert seconds(at_once) == pytest.approx(drawing + update_seconds(at_once))
    assert seconds(ahead) == pytest.approx(max(drawing, update_seconds(ahead)))
    # On the trainer's own GPUs the two take turns.
    colocated = job("experiment=paper_7b_grpo", *corrected)
    total = sum(phase.seconds for phase in iteration(colocated).values())
    assert seconds(colocated) == pytest.approx(total)


def test_partial_rollouts_do_not_wait_for_the_longest_completion() -> None:
    """By hand: the longest of 8192 tokens has 8192·0.8 left when the others, of a fifth, are done."""
    words = ["experiment=paper_7b_grpo", "engine=vllm_server", "engine.urls=[http://a:1]"]
    words += ["strategy=[importance_correction]", "rollout.staleness=1", "objective.filters.max_resample=0"]
    whole, partial = (job(*words, f"rollout.partial={value}") for value in ("false", "true"))
    step = (2 * whole.model.matrix_parameters + (200 + 8192) * 2 * 28 * 4 * 128 * 2) / (0.4 * 3.35e12)
    saved = iteration(whole)["decode"].seconds - iteration(partial)["decode"].seconds
    assert saved == pytest.approx(8192 * 0.8 * step, rel=1e-6)
