"""Two processes and one are the same run: gradients, choices, weights, metrics, completions."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Gemma2ForCausalLM

from ecrl.cli import main
from ecrl.policy.tiny_model import build_tokenizer
from tests.support import worker
from tests.support.checkpoints import checkpoint_tensors, exported
from tests.support.conformance import ROWS, Row, node
from tests.support.marks import slow_unless
from tests.support.rollouts import assert_same_rollouts
from tests.support.runs import assert_same_run, history
from tests.support.tiny import TINY

pytestmark = pytest.mark.timeout(1000)  # the first test waits for the jobs of all

FSDP = ["trainer.accelerator=cpu", "trainer.devices=2"]
DDP = [*FSDP, "trainer.parallel=ddp"]
TP = [*FSDP, "trainer.tensor_parallel_size=2"]
MODES = {"fsdp": FSDP, "ddp": DDP, "tp": TP}
EVAL = ["iterations=2", "eval.every=2", "eval.problems=3", "eval.k=2", "checkpoint.every=1"]
EVAL += ["eval.sets={own: {}, wide: {k: 3, temperature: 0.7, max_new_tokens: 5}}"]
UNEVEN = ["rollout.prompts=5", "update.minibatches=2", "update.max_tokens=40", "update.row_tokens=30"]
FEW = ["rollout.prompts=1", "update.minibatches=1", "eval.problems=1"]  # fewer than processes
OVERLONG = ["env=tests.support.tasks:test/Count-v0", "rollout.max_prompt_tokens=50"]
MANY_TURNS = ["env=tests.support.tasks:test/Echo-v0", "engine.batch_size=3"]
BUDGET = [  # the knob moves, and stays within its limits
    "strategy=[kl_cov,entropy_budget]",
    "strategy.entropy_budget.knob=kl_cov.fraction",
    "strategy.entropy_budget.maximum=0.9",
    "strategy.entropy_budget.spend=0.001",
    "strategy.kl_cov.fraction=0.4",
]
MUON = ["update.optimizer=muon", "update.schedule={name: linear, warmup: 2}", "update.lr=1e-4"]
KEEP = "update.lr=1e-4"  # AdamW turns rounding of vanishing gradients into steps of this size
QUICK_ROW = "kl_cov"  # of the runs of every strategy
#: What `make test-all` takes: those that keep state, draw, or bring columns, and the temperature's.
SAMPLED = {
    "clip_cov",
    "reference_kl",
    "adaptive_entropy",
    "rl_zvp",
    "lp_reg",
    "ucas",
    "epo",
    "temperature_controller",
}
QUICK_RUNS = {"run-uneven", "run-whole", "run-parts", "run-parts-resumed", f"run-{QUICK_ROW}"}
QUICK_RUNS |= {"run-large-logits", "run-soft-cap"}
BF16 = "minibatch-fsdp-bf16"


def is_quick(job: str) -> bool:
    """Whether a job is for a test that is not slow."""
    return job in {*QUICK_RUNS, BF16} or job.startswith("minibatch-fsdp")


def unwanted(items: Iterable[pytest.Item]) -> set[str]:
    """The jobs of single strategies that none of the tests looks at."""
    chosen = [item.callspec.params for item in items if hasattr(item, "callspec")]
    looked_at = {f"minibatch-{p['mode']}-{p['row'].name}" for p in chosen if p.keys() >= {"mode", "row"}}
    looked_at |= {f"run-{p['row'].name}" for p in chosen if "row" in p and "mode" not in p}
    looked_at |= {f"run-{p['name']}" for p in chosen if "name" in p}
    of_rows = {f"{kind}-{row.name}" for row in ROWS for kind in ("run", *(f"minibatch-{m}" for m in MODES))}
    return of_rows - looked_at - QUICK_RUNS


def jobs_for(
    model: Path, families: dict[str, Path], heads: dict[str, Path], out: Path
) -> dict[str, dict[str, Any]]:
    """Every job of the two processes, by name."""
    base = [*TINY, f"model.path={model}"]
    jobs: dict[str, dict[str, Any]] = {}
    for row in ROWS:
        for mode, settings in MODES.items():
            split = ["update.max_tokens=64"] if mode == "fsdp" else []
            jobs[f"minibatch-{mode}-{row.name}"] = {
                "kind": "minibatch",
                "overrides": [*base, *settings, *split],
                "strategy": node(row, row.active),
            }
        jobs[f"run-{row.name}"] = {
            "kind": "train",
            "overrides": [*base, *FSDP, *EVAL, KEEP, f"run_dir={out / row.name}"],
            "strategy": node(row, row.active),
        }
    for name, path in families.items():
        for mode, settings in MODES.items():
            jobs[f"minibatch-{mode}-{name}"] = {
                "kind": "minibatch",
                "overrides": [*TINY, f"model.path={path}", *settings],
                "strategy": node(ROWS[0], ROWS[0].active),
            }
    jobs[BF16] = {"kind": "minibatch", "overrides": [*base, *FSDP, "trainer.precision=bf16-mixed"]}
    runs = {
        "uneven": [*FSDP, *EVAL, *UNEVEN, *MANY_TURNS, KEEP],
        "few": [*FSDP, *EVAL, *FEW, KEEP],
        "overlong": [*FSDP, *EVAL, *OVERLONG, KEEP],
        "uneven-ddp": [*DDP, *EVAL, *UNEVEN, *MANY_TURNS, KEEP],
        "tensor-parallel": [*TP, *EVAL, KEEP, "model.activation_checkpointing=full"],
        "checkpointed": [*FSDP, *EVAL, KEEP, "model.activation_checkpointing=selective"],
        "offloaded": [*FSDP, *EVAL, KEEP, "trainer.cpu_offload=true"],
        "adapters": [*FSDP, *EVAL, KEEP, "model.lora.r=4", "strategy=[reference_kl]"],
        "adapters-bf16": [*FSDP, *EVAL, "model.lora.r=4", "trainer.precision=bf16-mixed"],
        "budget": [*FSDP, *EVAL, *BUDGET, KEEP],
        "ahead": [*FSDP, *EVAL, KEEP, "rollout.staleness=1", "strategy=[importance_correction]"],
        "whole": [*FSDP, *EVAL, "iterations=4"],
        "parts": [*FSDP, *EVAL, "iterations=2"],
        "muon": [*FSDP, *EVAL, *MUON, "iterations=4", "checkpoint.keep=4"],
        "muon-tp": [*TP, *EVAL, *MUON, "iterations=4"],
        "to-one": [*FSDP, *EVAL, KEEP, "iterations=2"],
        "bf16": [*FSDP, *EVAL, "trainer.precision=bf16-mixed"],
    }
    for name, overrides in runs.items():
        jobs[f"run-{name}"] = {"kind": "train", "overrides": [*base, *overrides, f"run_dir={out / name}"]}
    for name, path in heads.items():
        settings = [*FSDP, "iterations=1", "trainer.precision=bf16-mixed", f"run_dir={out / name}"]
        jobs[f"run-{name}"] = {"kind": "train", "overrides": [*TINY, f"model.path={path}", *settings]}
    jobs["run-parts-resumed"] = {
        "kind": "train",
        "overrides": [f"resume={out / 'parts'}", "iterations=4"],
    }
    forked = [f"fork={out / 'to-one'}", "checkpoint=2", f"run_dir={out / 'forked'}", "iterations=1"]
    jobs["run-forked"] = {"kind": "train", "overrides": forked}
    for name, split, iterations in (("from-one", 1, 3), ("from-one-on", 2, 4)):
        goes_on = [f"resume={out / 'from-one'}", f"iterations={iterations}", "trainer.devices=2"]
        jobs[f"run-{name}"] = {
            "kind": "train",
            "overrides": [*goes_on, f"trainer.tensor_parallel_size={split}"],
        }
    return jobs


@pytest.fixture(scope="module")
def heads(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models with logits of tens of nats, as after training: with a plain head, and with a soft cap."""
    plain = AutoModelForCausalLM.from_pretrained(tiny_model)
    sizes: dict[str, Any] = {name: getattr(plain.config, name) for name in ("vocab_size", "hidden_size")}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16}
    special = {"eos_token_id": 1, "pad_token_id": 0, "bos_token_id": None}
    layers = {"intermediate_size": 64, "num_hidden_layers": 2, "attn_logit_softcapping": None}
    config = Gemma2Config(**sizes, **heads, **special, **layers)
    models = {"large-logits": plain, "soft-cap": Gemma2ForCausalLM(config)}
    folder = tmp_path_factory.mktemp("heads")
    for name, model in models.items():
        with torch.no_grad():
            model.model.norm.weight.fill_(200)
        model.save_pretrained(folder / name)
        build_tokenizer().save_pretrained(folder / name)
    return {name: folder / name for name in models}


@pytest.fixture(scope="module")
def many(
    request: pytest.FixtureRequest,
    tiny_model: Path,
    families: dict[str, Path],
    heads: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """What two processes made of all jobs that the chosen tests need: results and run directories."""
    out = tmp_path_factory.mktemp("many")
    jobs = jobs_for(tiny_model, families, heads, out)
    here = [item for item in request.session.items if item.path == request.path]
    jobs = {name: job for name, job in jobs.items() if name not in unwanted(here)}
    if any(item.get_closest_marker("slow") for item in here):
        start = [*TINY, f"model.path={tiny_model}", *EVAL, KEEP, f"run_dir={out / 'from-one'}"]
        worker.run({"kind": "train", "overrides": start})
    else:
        jobs = {name: job for name, job in jobs.items() if is_quick(name)}
    work_through(jobs, out, processes=2)
    return out


def work_through(jobs: dict[str, dict[str, Any]], out: Path, processes: int) -> None:
    """Let so many processes do the jobs together."""
    file = out / "jobs.json"
    file.write_text(json.dumps(jobs))
    start = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [sys.executable, "-m", *start, "-m", "tests.support.worker", str(file), str(out)]
    subprocess.run(command, check=True, timeout=900, env=os.environ | {"OMP_NUM_THREADS": "1"})


def result(many: Path, name: str) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(many / f"{name}.pt")
    assert "error" not in content, content["error"]
    return content


@pytest.fixture
def alone(tiny_model: Path, tmp_path: Path) -> Callable[..., Path]:
    """Run the same in one process."""

    def run(*overrides: str, strategy: dict[str, Any] | None = None) -> Path:
        job: dict[str, Any] = {"kind": "train"}
        job["overrides"] = [*TINY, f"model.path={tiny_model}", *overrides, f"run_dir={tmp_path / 'run'}"]
        if strategy is not None:
            job["strategy"] = strategy
        outcome = worker.run(job)
        assert "error" not in outcome, outcome["error"]
        return tmp_path / "run"

    return run


def assert_close(many: Path, alone: Path, tolerance: float = 1e-4) -> None:
    """The same completions and choices; numbers and weights equal but for rounding."""
    left, right = history(many), history(alone)
    assert [row.keys() for row in left] == [row.keys() for row in right]
    for one, other in zip(left, right, strict=True):
        for name, value in one.items():
            if value is None:  # the entropy of what trains, where nothing does
                assert other[name] is None, name
                continue
            # A loss is a sum of terms that nearly cancel.
            assert value == pytest.approx(other[name], rel=tolerance, abs=2e-6), name
            counted = name.startswith(("rollout/", "val/")) and name != "rollout/entropy"
            exact = counted or name.endswith("/fraction")
            assert not exact or value == pytest.approx(other[name], rel=1e-12), name
    a, b = checkpoint_tensors(many), checkpoint_tensors(alone)
    assert a.keys() == b.keys()
    for name in a:
        if name.startswith("model."):
            assert (a[name] - b[name]).abs().max() < 2e-5, name
    assert_same_rollouts(many, alone)
    a, b = exported(many / "policy"), exported(alone / "policy")
    assert a.keys() == b.keys()
    assert all((a[name] - b[name]).abs().max() < 2e-5 for name in a)


def assert_same_minibatch(got: dict[str, Any], model: Path, row: Row) -> None:
    """Loss, gradient, choices and metrics are those of one process."""
    job = {"kind": "minibatch", "overrides": [*TINY, f"model.path={model}"]}
    want = worker.run(job | {"strategy": node(row, row.active)})
    assert got["loss"] == pytest.approx(want["loss"], rel=1e-5, abs=1e-6)
    assert (got["gradient"] - want["gradient"]).norm() <= 1e-5 * want["gradient"].norm()
    assert torch.equal(got["weights"] == 0, want["weights"] == 0)
    assert got["coefficients"].keys() == want["coefficients"].keys()
    for name, coefficients in want["coefficients"].items():
        assert torch.equal(got["coefficients"][name] != 0, coefficients != 0)
    for name, value in want["numbers"].items():
        assert name.startswith("time/") or got["numbers"][name] == pytest.approx(value, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("row", "mode"),
    slow_unless(
        lambda row, mode: mode == "fsdp",
        product(ROWS, MODES),
        sample=lambda row, mode: row.name in SAMPLED,
    ),
    ids=lambda value: getattr(value, "name", value),
)
def test_loss_gradient_and_choices(row: Row, mode: str, many: Path, tiny_model: Path) -> None:
    assert_same_minibatch(result(many, f"minibatch-{mode}-{row.name}"), tiny_model, row)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["qwen3", "llama", "mistral"])
def test_other_architectures(name: str, mode: str, many: Path, families: dict[str, Path]) -> None:
    assert_same_minibatch(result(many, f"minibatch-{mode}-{name}"), families[name], ROWS[0])


@pytest.mark.slow
def test_shards_of_split_layers(tmp_path: Path, tiny_model: Path, alone: Callable[..., Path]) -> None:
    """Four processes: two data-parallel ranks of two tensor-parallel ones."""
    settings = ["trainer.accelerator=cpu", "trainer.devices=4", "trainer.tensor_parallel_size=2"]
    base = [*TINY, f"model.path={tiny_model}", *settings]
    jobs = {
        "minibatch": {"kind": "minibatch", "overrides": base, "strategy": node(ROWS[0], ROWS[0].active)},
        "train": {"kind": "train", "overrides": [*base, *EVAL, KEEP, f"run_dir={tmp_path / 'four'}"]},
    }
    work_through(jobs, tmp_path, processes=4)
    assert_same_minibatch(result(tmp_path, "minibatch"), tiny_model, ROWS[0])
    result(tmp_path, "train")
    assert_close(tmp_path / "four", alone(*EVAL, KEEP))


@pytest.mark.parametrize(
    "row",
    slow_unless(lambda row: row.name == QUICK_ROW, ROWS, sample=lambda row: row.name in SAMPLED),
    ids=lambda row: row.name,
)
def test_a_run_of_every_strategy(row: Row, many: Path, alone: Callable[..., Path]) -> None:
    result(many, f"run-{row.name}")
    # UCAS takes z-scores of certainties that hardly differ here, which enlarges rounding.
    tolerance = 1e-3 if row.name == "ucas" else 1e-4
    assert_close(many / row.name, alone(*EVAL, KEEP, strategy=node(row, row.active)), tolerance)


@pytest.mark.parametrize("name", ["uneven", pytest.param("uneven-ddp", marks=pytest.mark.slow)])
def test_uneven_shares_and_several_turns(name: str, many: Path, alone: Callable[..., Path]) -> None:
    result(many, f"run-{name}")
    assert_close(many / name, alone(*EVAL, *UNEVEN, *MANY_TURNS, KEEP))


@pytest.mark.slow
def test_prompts_that_are_too_long(many: Path, alone: Callable[..., Path]) -> None:
    result(many, "run-overlong")
    one = alone(*EVAL, *OVERLONG, KEEP)
    assert_close(many / "overlong", one)
    assert sum(row.get("rollout/overlong_prompts", 0) for row in history(one)) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("tensor-parallel", []),
        ("checkpointed", []),
        ("offloaded", []),
        ("adapters", ["model.lora.r=4", "strategy=[reference_kl]"]),
        ("ahead", ["rollout.staleness=1", "strategy=[importance_correction]"]),
        ("budget", BUDGET),
        ("few", FEW),
    ],
)
def test_settings(name: str, overrides: list[str], many: Path, alone: Callable[..., Path]) -> None:
    result(many, f"run-{name}")
    assert_close(many / name, alone(*EVAL, KEEP, *overrides))


@pytest.mark.parametrize(
    "name",
    slow_unless(
        lambda name: name == "uneven",
        ["uneven", "uneven-ddp", "tensor-parallel", "adapters", "adapters-bf16"],
    ),
)
def test_a_checkpoint_of_two_is_exported_whole(name: str, many: Path, tmp_path: Path) -> None:
    result(many, f"run-{name}")
    assert main(["export", str(many / name), str(tmp_path / "out")]) == 0
    got, want = exported(tmp_path / "out"), exported(many / name / "policy")
    assert got.keys() == want.keys() and all(torch.equal(got[n], want[n]) for n in want)


def test_resume_with_two_processes_is_exact(many: Path) -> None:
    result(many, "run-whole")
    result(many, "run-parts-resumed")
    assert_same_run(many / "whole", many / "parts")


@pytest.mark.slow
def test_a_run_of_two_goes_on_in_one_and_back(many: Path, alone: Callable[..., Path]) -> None:
    result(many, "run-to-one")
    result(many, "run-from-one")
    result(many, "run-from-one-on")  # from shards to split layers
    whole = alone(*EVAL, KEEP, "iterations=4")
    outcome = worker.run(
        {"kind": "train", "overrides": [f"resume={many / 'to-one'}", "iterations=4", "trainer.devices=1"]}
    )
    assert "error" not in outcome, outcome["error"]
    assert_close(many / "to-one", whole)
    assert_close(many / "from-one", whole)


@pytest.mark.slow
def test_muon_shards_its_steps_and_goes_on_in_one(many: Path, alone: Callable[..., Path]) -> None:
    """A sharded matrix is made orthogonal whole, so the run is that of one process."""
    whole = alone(*EVAL, *MUON, "iterations=4")
    for name in ("muon", "muon-tp"):
        result(many, f"run-{name}")
        assert_close(many / name, whole)
    words = [f"resume={many / 'muon'}", "checkpoint=2", "trainer.devices=1"]
    outcome = worker.run({"kind": "train", "overrides": words})
    assert "error" not in outcome, outcome["error"]
    assert_close(many / "muon", whole)


@pytest.mark.slow
def test_two_processes_fork_a_run_and_keep_its_best(many: Path) -> None:
    for name in ("run-to-one", "run-forked"):
        result(many, name)
    assert [row["iteration"] for row in history(many / "forked")] == [0, 1]
    assert history(many / "forked")[0]["val/mean/avg@k"] >= 0


def test_bf16_rounds_as_in_one_process(many: Path, tiny_model: Path) -> None:
    """Alone, too, FSDP casts; autocast is several times further away than the order of the gradient's sum."""
    got = result(many, BF16)
    base = [*TINY, f"model.path={tiny_model}", "trainer.accelerator=cpu", "trainer.precision=bf16-mixed"]
    want = worker.run({"kind": "minibatch", "overrides": base})
    cast = worker.run({"kind": "minibatch", "overrides": [*base, "trainer.parallel=ddp"]})

    def distance(other: dict[str, Any]) -> float:
        return float((got["gradient"] - other["gradient"]).norm() / other["gradient"].norm())

    print(got["loss"], want["loss"], cast["loss"], distance(want), distance(cast))
    assert got["loss"] == pytest.approx(want["loss"], rel=1e-3)
    assert distance(want) < 0.01


def test_bf16_takes_logits_as_large_as_after_training(many: Path) -> None:
    result(many, "run-large-logits")


def test_bf16_still_refuses_a_soft_cap(many: Path) -> None:
    error = torch.load(many / "run-soft-cap.pt")["error"]
    assert "UsageError: Gemma2ForCausalLM post-processes its logits" in error


@pytest.mark.slow
def test_bf16_keeps_float32_weights(many: Path) -> None:
    result(many, "run-bf16")
    rows = history(many / "bf16")
    assert 0 < rows[-1]["mismatch/max"] < 0.2  # the engine rounds otherwise than scoring does
    tensors = checkpoint_tensors(many / "bf16")
    assert {t.dtype for t in tensors.values()} == {torch.float32}
