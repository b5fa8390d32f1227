"""Data sets in a run: each row once an epoch, validation row by row, and no row in both."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ecrl.config.compose import build_config
from ecrl.config.eval_sets import env_name
from ecrl.config.resume import resumed_config
from ecrl.config.schema import Config, EnvConfig
from ecrl.distributed.process_group import ProcessGroup
from ecrl.engines.base import Sampling
from ecrl.engines.hf import HFEngine
from ecrl.envs.safe_calls import make
from ecrl.errors import UsageError
from ecrl.metrics import MetricsRecorder
from ecrl.policy.model import load_policy, load_tokenizer
from ecrl.rollout.chat import Chat
from ecrl.rollout.collector import Collector
from ecrl.training.preflight import preflight
from ecrl.training.run import train
from tests.support.row_files import jsonl
from tests.support.runs import assert_same_run, history, run, silent
from tests.support.tiny import TINY

ROWS = [{"problem": f"{i} + 1 = ?", "answer": str(i + 1)} for i in range(60)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return jsonl(tmp_path / "sums.jsonl", ROWS)


def posed(file: Path, tiny_model: Path, split: Any, seed: int, numbers: range, **kwargs: Any) -> list[str]:
    tokenizer = load_tokenizer(str(tiny_model))
    policy = HFEngine(load_policy(str(tiny_model), tokenizer), ProcessGroup())
    env = {"path": str(file), **kwargs}
    collector = Collector(lambda s: make("ecrl/Math-v0", s, env), policy, Chat(tokenizer), seed)
    drawn = collector.collect(split, numbers, 1, Sampling(1.0, 1.0, 1), 0, MetricsRecorder())
    return [t.prompt for t in drawn]


def test_training_runs_in_epochs_without_replacement(file: Path, tiny_model: Path) -> None:
    count = len(make("ecrl/Math-v0", "train", {"path": str(file)}).unwrapped.problem_indices)  # type: ignore[attr-defined]
    two_epochs = posed(file, tiny_model, "train", 0, range(2 * count))
    first, second = two_epochs[:count], two_epochs[count:]
    assert len(set(first)) == count and set(first) == set(second) and first != second
    assert (
        posed(file, tiny_model, "train", 0, range(count - 3, count + 3)) == two_epochs[count - 3 : count + 3]
    )
    assert posed(file, tiny_model, "train", 1, range(count)) != first


def test_validation_poses_each_problem_once_with_every_seed(file: Path, tiny_model: Path) -> None:
    val = jsonl(file.with_name("val.jsonl"), [{"problem": f"{i} - 1 = ?", "answer": "0"} for i in range(7)])
    whole = [posed(file, tiny_model, "val", seed, range(7), val_path=str(val)) for seed in (0, 1)]
    assert whole[0] == whole[1] and len(set(whole[0])) == 7


@pytest.fixture
def base(file: Path, tiny_model: Path) -> list[str]:
    words = [word for word in TINY if not word.startswith(("env=", "eval."))]
    keep_all = "objective.filters.drop_zero_variance=false"
    return [*words, f"model.path={tiny_model}", "env=math", f"env.kwargs.path={file}", "eval.k=2", keep_all]


def test_a_run_resumes_in_the_middle_of_an_epoch(base: list[str], tmp_path: Path) -> None:
    again = ["eval.every=2", "objective.filters={drop_zero_variance: true, max_resample: 1}"]
    whole = run([*base, *again], tmp_path / "whole", "iterations=4")
    parts = run([*base, *again], tmp_path / "parts", "iterations=2")
    train(resumed_config([f"resume={parts}", "iterations=4"]), silent)
    assert_same_run(whole, parts)
    assert any(name.startswith("val/sums/avg@2") for name in history(whole)[0])


@pytest.fixture
def ragged(file: Path) -> Path:
    """Sums of which one in three has a prompt of more than a thousand tokens."""
    rows = [{**row, "problem": row["problem"] + " ?" * 600 * (i % 3 == 0)} for i, row in enumerate(ROWS)]
    return jsonl(file.with_name("ragged.jsonl"), rows)


def test_prompts_that_are_too_long_leave_the_epochs_whole(
    base: list[str], ragged: Path, tmp_path: Path
) -> None:
    words = [*base, f"env.kwargs.path={ragged}", "eval.every=2", "rollout.max_prompt_tokens=100"]
    whole = run(words, tmp_path / "whole", "iterations=6")
    parts = run(words, tmp_path / "parts", "iterations=2")
    train(resumed_config([f"resume={parts}", "iterations=6"]), silent)
    assert_same_run(whole, parts)
    rows = history(whole)
    assert rows[0]["val/ragged/overlong_prompts"] == rows[-1]["val/ragged/overlong_prompts"] > 0
    train_env: Any = make("ecrl/Math-v0", "train", {"path": str(ragged)}).unwrapped
    overlong = sum(int(index) % 3 == 0 for index in train_env.problem_indices)
    posed = len(train_env.problem_indices) - overlong
    # 6 iterations of 8 prompts: each row that fits once, then the next epoch begins.
    seen = sum(row.get("rollout/overlong_prompts", 0) for row in rows)
    assert posed < 48 and overlong <= seen <= 2 * overlong


def test_validation_takes_all_by_default() -> None:
    assert build_config([]).eval.problems == "all"


def test_rows_of_both_splits_are_refused(tiny: Callable[..., Config], file: Path) -> None:
    words = ["env=gsm8k", f"env.kwargs.path={file}", "env.kwargs.problem_column=problem", "eval.every=1"]
    with pytest.raises(
        UsageError, match="60 of the 60 validation problems of ecrl/Math-v0 are problems of tr"
    ):
        preflight(tiny(*words))
    preflight(tiny(*words, "eval.shared=allow"))
    preflight(tiny(*words, "eval.every=0"))
    preflight(tiny(*words, "env.kwargs.val_part=null"))
    preflight(tiny(*words), training=False)


def test_members_of_a_mixture_are_compared_too(tiny: Callable[..., Config], file: Path) -> None:
    both = {"path": str(file), "val_path": str(file)}
    config = tiny("env=mixture", "eval.every=1")
    config.env.kwargs = {"envs": ["ecrl/Countdown-v0", {"id": "ecrl/Math-v0", "kwargs": both}]}
    with pytest.raises(UsageError, match="60 of the 60"):
        preflight(config)


@pytest.mark.parametrize("wanted", ["0", "-1", "most", "1.5", "true"])
def test_other_numbers_of_problems_are_refused(wanted: str, tiny: Callable[..., Config]) -> None:
    with pytest.raises(UsageError, match=r"eval\.problems"):
        tiny(f"eval.problems={wanted}")


def test_more_problems_than_there_are_is_refused(tiny: Callable[..., Config], file: Path) -> None:
    words = ["env=math", f"env.kwargs.path={file}", "eval.every=1", "eval.problems=99"]
    with pytest.raises(UsageError, match=r"eval.problems=99, but ecrl/Math-v0 has only \d+ for validation"):
        preflight(tiny(*words))


def test_data_sets_have_names_of_their_own() -> None:
    def name(**settings: Any) -> str:
        return env_name(EnvConfig(**settings))

    assert name() == "countdown"
    assert name(id="ecrl/Math-v0", kwargs={"path": "openai/gsm8k"}) == "gsm8k"
    assert name(id="ecrl/Math-v0", kwargs={"path": "/data/my sums.jsonl"}) == "my_sums"
    assert name(id="ecrl/Math-v0", kwargs={"path": "x.jsonl"}, name="mine") == "mine"
