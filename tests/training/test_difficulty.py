"""`ecrl envs difficulty` and the filter by pass rate, with a policy that has learnt some of its problems."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from ecrl.cli import main
from ecrl.config.compose import build_config
from ecrl.config.schema import Config
from ecrl.envs.base import Problem, ReasoningEnv, Score
from ecrl.envs.datasets.pass_rates import read_pass_rates
from ecrl.envs.safe_calls import make
from ecrl.errors import EcrlError, UsageError
from ecrl.hashing import stable_hash
from ecrl.rollout.collector import Collector
from ecrl.training.preflight import preflight
from ecrl.training.warmup import make_base
from tests.support.cli import refused
from tests.support.row_files import jsonl
from tests.support.runs import history, run
from tests.support.tiny import TINY

ROWS = [{"problem": f"{i}{j}", "answer": str(i + j)} for i in range(6) for j in range(5)]
TEMPLATE = "template='{problem} = '"
EVAL = ["eval.k=8", "eval.max_new_tokens=8", "eval.temperature=0.9"]


class ThreesEnv(ReasoningEnv):
    """Right worked solutions say 3, wrong ones another digit."""

    def sample_problem(self, rng: np.random.Generator) -> Problem:
        return Problem(f"{rng.integers(10)}{rng.integers(10)} = ", None)

    def score(self, problem: Problem, response: str) -> Score:
        return Score(0.0)

    def solution(self, problem: Problem, rng: np.random.Generator, correct: bool = True) -> str:
        return f"#### {3 if correct else rng.integers(10)}"


gym.register("test/Threes-v0", entry_point=ThreesEnv)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return jsonl(tmp_path_factory.mktemp("rows") / "sums.jsonl", [*ROWS, ROWS[0]])


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small policy that answers ``#### 3`` about every second time."""
    path = tmp_path_factory.mktemp("policy") / "base"
    small = ["model.hidden_size=32", "model.layers=1", "model.heads=2", "warmup.steps=60", "warmup.batch=16"]
    task = "env=tests.training.test_difficulty:test/Threes-v0"
    make_base(build_config([*TINY, *small, "warmup.lr=1e-2", task]), path)
    return path


@pytest.fixture(scope="module")
def words(file: Path, policy: Path) -> list[str]:
    return ["envs", "difficulty", "math", f"model.path={policy}", f"path={file}", TEMPLATE, *EVAL]


@pytest.fixture(scope="module")
def measured(words: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("rates") / "rates.jsonl"
    assert main([*words, f"output={output}"]) == 0
    return output


def env_kwargs(file: Path, **more: Any) -> dict[str, Any]:
    return {"path": str(file), "template": "{problem} = ", **more}


def test_every_training_problem_is_measured_once(measured: Path, file: Path) -> None:
    lines = measured.read_text().splitlines()
    found = read_pass_rates(str(measured))
    env: Any = make("ecrl/Math-v0", "train", env_kwargs(file)).unwrapped
    assert set(found.rates) == set(env.problem_keys.tolist()) and len(lines) == 1 + len(found.rates)
    assert all(row["answers"] == 8 for row in map(json.loads, lines[1:]))
    assert found.measured["k"] == 8 and found.measured["temperature"] == 0.9
    threes = {stable_hash(row["problem"]) for row in ROWS if row["answer"] == "3"}
    of_threes = [rate for key, rate in found.rates.items() if key in threes]
    of_others = [rate for key, rate in found.rates.items() if key not in threes]
    assert np.mean(of_threes) > 0.35 > 0.15 > np.mean(of_others)


@pytest.mark.slow
def test_interrupted_measuring_goes_on_where_it_was(
    measured: Path, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ecrl.training.validation.VAL_COMPLETIONS", 40)
    output, collect, calls = tmp_path / "rates.jsonl", Collector.collect, []

    def interrupted(self: Collector, *args: Any) -> Any:
        calls.append(args)
        if len(calls) == 3:
            raise EcrlError("interrupted")
        return collect(self, *args)

    monkeypatch.setattr(Collector, "collect", interrupted)
    assert main([*words, f"output={output}"]) == 1
    assert len(output.read_text().splitlines()) == 1 + 2 * 5
    with output.open("a") as file:
        file.write('{"key": "00f')
    assert main([*words, f"output={output}"]) == 0
    assert read_pass_rates(str(output)).rates == read_pass_rates(str(measured)).rates
    before = output.read_bytes()
    calls.clear()
    assert main([*words, f"output={output}"]) == 0 and output.read_bytes() == before and not calls


def test_training_takes_the_problems_in_between(
    measured: Path, file: Path, policy: Path, tmp_path: Path
) -> None:
    rates = read_pass_rates(str(measured)).rates
    kwargs = env_kwargs(file, pass_rates=str(measured), pass_rate=[0.25, 0.75])
    env: Any = make("ecrl/Math-v0", "train", kwargs).unwrapped
    kept = {key for key, rate in rates.items() if 0.25 <= rate <= 0.75}
    assert 0 < len(kept) < len(rates) and set(env.problem_keys.tolist()) == kept
    for seed in range(20):
        env.reset(seed=seed)
        assert stable_hash(env.problem.key) in kept
    val: Any = make("ecrl/Math-v0", "val", kwargs).unwrapped
    plain: Any = make("ecrl/Math-v0", "val", env_kwargs(file)).unwrapped
    assert list(val.problem_indices) == list(plain.problem_indices)
    base = [word for word in TINY if not word.startswith("env=")]
    base += [f"model.path={policy}", "env=math", f"env.kwargs.path={file}", f"env.kwargs.{TEMPLATE}"]
    base += [f"env.kwargs.pass_rates={measured}", "env.kwargs.pass_rate=[0.25,0.75]", "iterations=1"]
    config = build_config([*base, f"run_dir={tmp_path / 'run'}", "rollout.prompts=40"])
    assert preflight(config) == [
        f"ecrl/Math-v0 has {len(kept)} problems for training, fewer than rollout.prompts=40, so an iteration "
        "poses some of them more than once."
    ]
    other = build_config([*base, "model.path=null", f"run_dir={tmp_path / 'run'}"])
    assert f"was measured with model.path={policy}, not None" in preflight(other)[-1]
    assert len(history(run(base, tmp_path / "run"))) == 1


def test_what_is_refused(
    measured: Path, file: Path, words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    tiny: Callable[..., Config],
) -> None:  # fmt: skip
    for more, says in (
        (["eval.k=5"], "was measured with k=8, not 5; choose another"),
        (["eval.kk=5"], "Did you mean 'eval.k'"),
        (["nonsense=5"], "nonsense"),
    ):
        assert says in refused(capsys, *words, *more, f"output={measured}")
    assert "without end" in refused(capsys, "envs", "difficulty", "countdown", words[3])
    assert "Write `ecrl envs`" in refused(capsys, "envs", "difficulty")
    assert "Write `ecrl envs`" in refused(capsys, *words, "split=val")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(f"{line}\n" for line in measured.read_text().splitlines()[:4]))
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"measured": {}}\n{"key": "xyz", "pass_rate": 1}\n')
    rates = str(measured)
    cases: list[tuple[Any, str | None, str]] = [
        ([0.1, 0.9], None, "go together"),
        (None, rates, "go together"),
        ([0.9, 0.1], rates, r"two shares, as \[0.1, 0.9\]; got \[0.9, 0.1\]"),
        ([0.5], rates, "two shares"),
        (0.5, rates, "pass_rate must be a list"),
        ([0.1, 0.9], "nowhere", "pass_rates='nowhere' cannot be read: No such file"),
        ([0.1, 0.9], str(few), r"lacks \d+ of the \d+ problems of training; measure"),
        ([0.1, 0.9], str(bad), "bad.jsonl:2 is no pass rate"),
        ([0.01, 0.02], rates, r"keeps none of the \d+ training problems"),
    ]
    for bounds, where, message in cases:
        config = tiny("env=math")
        config.env.kwargs = env_kwargs(file, pass_rate=bounds, pass_rates=where)
        with pytest.raises(UsageError, match=message):
            preflight(config)
