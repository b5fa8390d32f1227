"""The shipped experiments have the paper's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecrl.algorithm.objective import Objective
from ecrl.algorithm.strategy_stack import build_strategies, check_stack
from ecrl.cli import main
from ecrl.config.compose import build_config
from ecrl.config.eval_sets import validation_sets
from ecrl.config.groups import options
from ecrl.config.targets import build
from ecrl.sweep.definition import make_sweep, read_sweep, sweep_file
from tests.support.experiments import LAW_MODELS
from tests.support.marks import slow_unless

METHODS = ("grpo", "clip_higher", "on_policy", "clip_cov", "kl_cov")
CONTROL = [f"paper_{size}_{name}" for size in ("7b", "32b") for name in METHODS]
LAW = ["paper_law", "paper_law_32b", "paper_covariance"]


def test_these_are_the_papers() -> None:
    assert {*CONTROL, *LAW} == set(options("experiment"))


@pytest.mark.parametrize("name", slow_unless(lambda name: "32b" not in name, [*CONTROL, *LAW]))
def test_what_all_share(name: str) -> None:
    config = build_config([f"experiment={name}"])
    assert (config.rollout.group_size, config.rollout.temperature, config.update.epochs) == (8, 1.0, 1)
    assert (config.update.weight_decay, config.update.grad_clip) == (0.0, 1.0)
    objective: Objective = build(config.objective)
    assert objective.aggregation.func.__name__ == "token_mean"  # type: ignore[attr-defined]
    assert objective.estimator.func.__name__ == "grpo"  # type: ignore[attr-defined]
    assert objective.filters.drop_zero_variance and not objective.needs_reference
    assert config.engine["_target_"] == "ecrl.engines.vllm.colocated.VLLMEngine"
    assert config.engine["dtype"] == "bfloat16"
    assert config.trainer.precision == "bf16-mixed" and config.trainer.parallel == "fsdp"
    large = "32b" in name
    assert (config.trainer.devices, config.trainer.num_nodes) == (8, 4 if large else 1)
    assert not config.trainer.cpu_offload
    assert config.engine["gpu_memory_utilization"] == 0.6
    assert config.engine.get("tensor_parallel_size", 1) == (8 if large else 1)
    assert config.model.path == ("Qwen/Qwen2.5-32B" if large else "Qwen/Qwen2.5-7B")
    assert check_stack(config, build_strategies(config.strategy)) == []


@pytest.mark.parametrize("name", slow_unless(lambda name: "32b" not in name, CONTROL))
def test_entropy_control_has_the_papers_settings(name: str) -> None:
    _, size, method = name.split("_", 2)
    config = build_config([f"experiment={name}"])
    assert config.env == build_config(["env=dapo_math_17k"]).env
    assert config.rollout.max_new_tokens == 8192
    assert config.update.lr == {"7b": 5e-7, "32b": 1e-6}[size]
    sets = {of.name: (of.k, of.temperature, of.problems) for of in validation_sets(config)}
    sampled = dict.fromkeys(("aime24", "aime25", "amc"), (32, 0.6, "all"))
    greedy = dict.fromkeys(("math500", "omni_math", "olympiad_bench", "minerva"), (1, 0.0, "all"))
    assert sets == sampled | greedy
    # As many updates, of as many completions, and as many completions between validations.
    prompts, updates = config.rollout.prompts, config.update.minibatches
    assert (prompts, updates) == ((32, 1) if method == "on_policy" else (256, 8))
    assert config.iterations * updates == 2400 and config.eval.every * prompts == 4 * 256
    expected = {"grpo": [], "on_policy": []}.get(method, [method])
    assert [s.name for s in build_strategies(config.strategy)] == expected
    objective: Objective = build(config.objective)
    assert objective.filters.max_resample == 9
    width = 1.0 if method == "clip_cov" else 0.2
    assert (objective.bounds.low, objective.bounds.high) == (width, width)
    chosen = config.strategy.get(method, {})
    if method == "clip_higher":
        assert objective.bounds.high * chosen["factor"] == pytest.approx(0.28)
    if method == "clip_cov":
        assert (chosen["fraction"], chosen["low"], chosen["high"]) == (2e-4, 1.0, 5.0)
    if method == "kl_cov":
        assert (chosen["fraction"], chosen["coefficient"]) == ({"7b": 2e-3, "32b": 2e-4}[size], 1.0)


@pytest.mark.parametrize("name", ["paper_law", pytest.param("paper_law_32b", marks=pytest.mark.slow)])
@pytest.mark.parametrize("algorithm", ["grpo", "rloo_clip", "prime", "reinforce_pp"])
def test_the_laws_study_has_the_papers_settings(name: str, algorithm: str) -> None:
    config = build_config([f"experiment={name}", f"objective={algorithm}"])
    assert config.env == build_config(["env=eurus2_math"]).env
    assert (config.rollout.prompts, config.update.minibatches, config.update.lr) == (512, 2, 5e-7)
    assert config.iterations * config.update.minibatches == 2400 and config.eval.every == 4
    objective: Objective = build(config.objective)
    assert (objective.bounds.low, objective.bounds.high) == (0.2, 0.2)
    assert objective.filters.drop_zero_variance and objective.filters.max_resample == 0
    assert [task.lr for task in objective.auxiliary.values()] == ([1e-6] if algorithm == "prime" else [])
    assert config.strategy == {}


def test_the_check_of_the_theory_is_a_plain_policy_gradient() -> None:
    config = build_config(["experiment=paper_covariance"])
    assert (config.update.minibatches, config.update.lr, config.iterations) == (1, 5e-7, 2000)
    objective: Objective = build(config.objective)
    assert objective.surrogate.func.__name__ == "reinforce"  # type: ignore[attr-defined]
    assert {"covariance", "entropy_dynamics"} <= set(config.monitor)


@pytest.mark.parametrize("preset", slow_unless("mistral_nemo_12b".__eq__, LAW_MODELS))
def test_the_laws_models(preset: str) -> None:
    path, _ = LAW_MODELS[preset]
    assert build_config(["experiment=paper_law", f"model={preset}"]).model.path == path


def test_the_data_sets_of_programs_are_the_presets() -> None:
    members = build_config(["experiment=paper_law", "env=paper_code"]).env.kwargs["envs"]
    for member in members:
        preset = build_config([f"env={member['name']}"]).env
        assert (member["id"], member["kwargs"]) == (preset.id, preset.kwargs)
    assert len(members) == 3


def test_an_experiment_takes_other_data() -> None:
    config = build_config(["experiment=paper_7b_grpo", "env=gsm8k"])
    assert config.env == build_config(["env=gsm8k"]).env


@pytest.mark.slow
def test_the_shipped_sweeps_are_the_papers(tmp_path: Path) -> None:
    arms = {}
    for name in options("sweep"):
        values = read_sweep(sweep_file(name))
        assert values.pop("jobs") == 1  # each cell takes all GPUs
        sweep = make_sweep(values, name)
        arms[name] = {cell.arm: sweep.compose(cell.overrides) for cell in sweep.cells(tmp_path)}
    bonus, reference = arms.pop("paper_entropy_bonus"), arms.pop("paper_reference_kl")
    for grid, method, values in (
        (bonus, "entropy_bonus", [1e-4, 1e-3, 5e-3, 1e-2]),
        (reference, "reference_kl", [0.001, 0.01, 0.05, 0.1]),
    ):
        none, *others = grid.values()
        assert none.strategy == {}
        assert [config.strategy[method]["coefficient"] for config in others] == values
    algorithms = [config.objective["estimator"] for config in arms.pop("paper_law_algorithms").values()]
    assert [a["_target_"].rpartition(".")[2] for a in algorithms] == ["grpo", "rloo", "prime", "reinforce_pp"]
    one_node = {path for preset, (path, _) in LAW_MODELS.items() if preset[-3:] not in ("24b", "32b")}
    assert {config.model.path for study in arms.values() for config in study.values()} == one_node


def test_an_unknown_sweep_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["sweep", "paper_law_algorithm", "output=o"]) == 2
    assert "Did you mean 'paper_law_algorithms'?" in capsys.readouterr().err
