"""`ecrl plan`: what fits, what does not and how it could."""

from __future__ import annotations

import pytest

from ecrl.cli import main
from ecrl.estimate.advice import ways_out
from tests.support.jobs import job


def test_a_plan_that_fits(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "experiment=paper_7b_kl_cov", "gpus=8", "gpu_memory=80"]) == 0
    shown = capsys.readouterr().out
    for part in ("weights", "gradients", "optimizer", "activations", "logits", "vLLM weights", "KV cache"):
        assert part in shown
    assert "7.62e9 parameters" in shown and "planning" in shown


@pytest.mark.parametrize(
    ("words", "largest"),
    [
        pytest.param(
            ["experiment=paper_32b_kl_cov", "gpus=32", "engine.tensor_parallel_size=1"],
            "vLLM weights (61.0 GiB)",
            marks=pytest.mark.slow,
        ),
        (["experiment=paper_7b_grpo", "gpus=1"], "optimizer (56.7 GiB)"),
        pytest.param(["experiment=paper_7b_grpo", "gpus=4"], "KV cache (31.8 GiB)", marks=pytest.mark.slow),
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
        (["gpu=t4", "trainer.precision=bf16-mixed"], "the t4 has no bfloat16; set trainer.precision=32-true"),
        (["gpu_memory=-1"], "must be above 0"),
        (["engine=vllm", "gpus=6", "engine.tensor_parallel_size=4"], "does not divide the 6 processes"),
        (["experiment=paper_7b_grpo", "engine.tensor_parallel_size=8"], "the model's 28 attention heads"),
        (
            ["engine=vllm_server", "server_gpus=3"],
            "server_gpus=3 does not divide the model's 4",
        ),
        (["gpu_memory=inf"], "must be a finite number"),
        (["engine.gpu_memory_utilization=2", "engine=vllm"], "(0, 1]"),
        (["gpu_memory=much"], "gpu_memory takes a number"),
        (["-m", "seed=0,1"], "has no -m"),
        (["gpu_memry=80"], "gpu_memry"),
    ],
)
def test_bad_input_is_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", *words]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1


def test_servers_have_gpus_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "experiment=paper_32b_grpo", "engine=vllm_server", "engine.urls=[http://a:1,http://b:1]"]
    assert main([*words, "server_gpus=4"]) == 0
    said = capsys.readouterr().out
    assert "Servers: 2 of 4 GPUs each (server_gpus), 15.3 GiB of weights on each" in said
    assert "Weight sync: 61.0 GiB to each server.\n" in said
    assert main(words) == 0
    assert main([*words, "gpu_memory=48", "trainer.devices=32"]) == 1
    error = capsys.readouterr().err
    assert "does not fit on a server of server_gpus=1" in error and error.count("\n") == 1


def test_a_weight_sync_may_send_adapters_alone(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", "experiment=paper_7b_grpo", "engine=vllm_server", "engine.urls=[http://a:1]"]
    main([*words, "model.lora.r=16"])
    # Of each layer's seven matrices 90,112 rows and columns, times 16, 28 layers and 2 bytes.
    said = "Weight sync: 14.2 GiB to each server, or, after the first one, 0.075 GiB of adapters to servers"
    assert said in capsys.readouterr().out.replace("\n", " ")
