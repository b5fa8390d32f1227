"""Every rollout on disk: what the parts say, how many stay, and what a run that goes on or fails leaves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecrl.config.compose import build_config
from ecrl.config.resume import forked_config, resumed_config
from ecrl.errors import NonFiniteError, UsageError
from ecrl.runs.rollouts import (
    COLUMNS,
    FOLDER,
    TOKEN_COLUMNS,
    facts_of,
    part_path,
    read_rollouts,
    read_table,
    saved_rollouts,
    validated_sets,
)
from ecrl.training.module import PolicyModule
from ecrl.training.run import train
from tests.support.rollouts import assert_same_rollouts, parts
from tests.support.runs import history, run, silent
from tests.support.tiny import LEARNING, TINY

TOKENS = "log.rollout_tokens=true"


@pytest.fixture(scope="module")
def with_tokens(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that learns, with each token on disk; two minibatches, twice each."""
    base = [*TINY, *LEARNING, f"model.path={tiny_model}", "strategy=[kl_cov]", "strategy.kl_cov.fraction=0.1"]
    more = ["eval.every=2", "eval.problems=8", "eval.k=2", "update.epochs=2", "iterations=3", TOKENS]
    return run([*base, *more], tmp_path_factory.mktemp("tokens") / "run")


def _mean(rows: list[dict[str, Any]], column: str) -> float:
    return float(np.mean([row[column] for row in rows]))


def test_the_parts_say_what_the_metrics_say(with_tokens: Path) -> None:
    metrics = history(with_tokens)
    assert saved_rollouts(with_tokens) == [1, 2, 3] and not list(with_tokens.rglob("*.partial"))
    for iteration in (1, 2, 3):
        rows, logged = read_rollouts(with_tokens, iteration), metrics[iteration]
        assert list(rows[0]) == [*COLUMNS, *TOKEN_COLUMNS]
        assert {row["iteration"] for row in rows} == {iteration}
        assert _mean(rows, "reward") == pytest.approx(logged["rollout/reward"])
        assert _mean(rows, "truncated") == pytest.approx(logged["rollout/truncated"])
        assert _mean(rows, "length") == pytest.approx(logged["rollout/length"])
        assert _mean(rows, "entropy") == pytest.approx(logged["rollout/entropy"], rel=1e-5)
        trained = [row for row in rows if row["trained"]]
        assert len({row["problem"] for row in trained}) == logged["rollout/groups_trained"]
        assert _mean(trained, "entropy") == pytest.approx(logged["policy/entropy"], rel=1e-5)
        for row in rows:
            assert "".join(row["token_texts"]).startswith(row["response"]) or not row["response"].isascii()
            assert row["prompt"]
            assert len(row["token_texts"]) == row["length"] == len(row["engine_logprobs"]) == sum(row["own"])
            assert (row["advantages"] is None) == (row["covariance"] is None) == (not row["trained"])
    # The covariances of the first minibatch are those that the monitor logs.
    rows = [row for row in read_rollouts(with_tokens, 1) if row["trained"]]
    groups = list(dict.fromkeys(row["problem"] for row in rows))
    first = set(np.array_split(groups, 2)[0].tolist())
    covariances = np.concatenate([row["covariances"] for row in rows if row["problem"] in first])
    assert covariances.mean() == pytest.approx(metrics[1]["cov/mean"], rel=1e-4)
    assert all(
        np.allclose(row["logprobs"], row["old_logprobs"], atol=1e-5)
        for row in rows
        if row["problem"] in first
    )
    assert not any(
        np.allclose(row["logprobs"], row["old_logprobs"], atol=1e-5)
        for row in rows
        if row["problem"] not in first
    )
    assert facts_of(read_table(with_tokens, 2)) == {"step": 4, "temperature": 1.0, "own_logprobs": True}


def test_validation_has_parts_of_its_own(with_tokens: Path) -> None:
    (name,) = validated_sets(with_tokens)
    assert saved_rollouts(with_tokens, name) == [0, 2]
    rows = read_rollouts(with_tokens, 2, name)
    assert [row["greedy"] for row in rows] == [False] * 16 + [True] * 8
    logged = history(with_tokens)[2]
    assert _mean([r for r in rows if r["greedy"]], "reward") == pytest.approx(logged[f"val/{name}/greedy"])
    assert _mean([r for r in rows if not r["greedy"]], "reward") == pytest.approx(logged[f"val/{name}/avg@2"])
    assert not any(row["trained"] for row in rows)


def test_datasets_reads_the_parts(with_tokens: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    files = str(with_tokens / FOLDER / "train" / "*.parquet")
    data = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert data.num_rows == 3 * 128 and data[0]["prompt"] == read_rollouts(with_tokens, 1)[0]["prompt"]
    assert set(data["iteration"]) == {1, 2, 3}


def test_how_many_stay(base: list[str], tmp_path: Path) -> None:
    run_dir = run(base, tmp_path / "run", "iterations=5", "log.rollouts_keep=1")
    (name,) = validated_sets(run_dir)
    assert saved_rollouts(run_dir) == [5] and saved_rollouts(run_dir, name) == [4]  # the last that there is
    with pytest.raises(UsageError, match=f"no answers to {name} of iteration 2; it has those of 4"):
        read_rollouts(run_dir, 2, name)
    run_dir = run(base, tmp_path / "more", "iterations=4", "log.rollouts_keep=2")
    assert saved_rollouts(run_dir) == [3, 4] and saved_rollouts(run_dir, name) == [4]
    assert list(read_rollouts(run_dir, 4)[0]) == list(COLUMNS)
    with pytest.raises(
        UsageError, match=r"no rollouts of iteration 2; it has those of 3, 4; log.rollouts_keep"
    ):
        read_rollouts(run_dir, 2)


def test_a_run_that_goes_on_or_back_has_the_parts_of_one_without_a_break(
    base: list[str], tmp_path: Path
) -> None:
    whole = run(base, tmp_path / "whole", "iterations=3", TOKENS)
    other = run(base, tmp_path / "other", "iterations=2", "checkpoint={every: 1, keep: 2}", TOKENS)
    half = part_path(other, 2).with_suffix(".parquet.partial")  # as kill -9 leaves it
    half.write_bytes(b"PAR1")
    part_path(other, 9).write_bytes(b"of a later iteration")
    train(resumed_config([f"resume={other}", "checkpoint=1", "iterations=3"]), silent)
    assert not half.exists() and saved_rollouts(other) == [1, 2, 3]
    assert parts(whole) == parts(other)
    fork = forked_config([f"fork={other}", f"run_dir={tmp_path / 'fork'}", "iterations=1"])
    assert saved_rollouts(train(fork, silent).run_dir) == [1] and saved_rollouts(other) == [1, 2, 3]


def test_nothing_is_written_without_it(base: list[str], tmp_path: Path) -> None:
    run_dir = run(base, tmp_path / "run", "iterations=1", "log.rollouts=false")
    assert not (run_dir / FOLDER).exists()
    with pytest.raises(UsageError, match=r"has no rollouts. Runs with log.rollouts=true write them"):
        read_rollouts(run_dir, 1)
    with pytest.raises(UsageError, match=r"log.rollout_tokens=true needs log.rollouts=true"):
        build_config([TOKENS, "log.rollouts=false"])
    with pytest.raises(UsageError, match=r"log.rollouts_keep must be at least 1, got 0"):
        build_config(["log.rollouts_keep=0"])


def test_what_cannot_be_written_is_said_once_and_training_goes_on(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(base, tmp_path / "whole", "iterations=2")

    def full(self: Any, columns: Any) -> None:
        raise OSError(28, "No space left on device", str(self._aside))

    monkeypatch.setattr("ecrl.runs.rollouts.PartWriter.write", full)
    lines: list[str] = []
    outcome = train(build_config([*base, f"run_dir={tmp_path / 'run'}", "iterations=2"]), lines.append)
    (line,) = [line for line in lines if "log.rollouts" in line]
    assert "No space left on device" in line and line.endswith("training goes on.")
    assert history(outcome.run_dir) == history(whole)
    assert not list((outcome.run_dir / FOLDER).rglob("*.p*"))


def test_the_rollout_of_an_update_that_fails_is_written(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any, loss: float) -> float:
        raise NonFiniteError("the loss became nan")

    monkeypatch.setattr(PolicyModule, "_clip", fail)
    with pytest.raises(NonFiniteError):
        run(base, tmp_path / "run", "iterations=2", TOKENS)
    rows = [row for row in read_rollouts(tmp_path / "run", 1) if row["trained"]]
    # The first minibatch was scored, and the second was not reached.
    assert {row["logprobs"] is None for row in rows} == {True, False}


def test_rollouts_drawn_ahead_name_their_weights(tiny_model: Path, tmp_path: Path) -> None:
    words = [f"model.path={tiny_model}", "strategy=[importance_correction]", "rollout.staleness=1", TOKENS]
    run_dir = run([*TINY, *words], tmp_path / "run", "iterations=3")
    steps = [facts_of(read_table(run_dir, iteration))["step"] for iteration in (1, 2, 3)]
    versions = [{row["version"] for row in read_rollouts(run_dir, i)} for i in (1, 2, 3)]
    assert steps == [0, 2, 4] and versions == [{0}, {0}, {2}]
    row = next(row for row in read_rollouts(run_dir, 3) if row["trained"])
    assert row["old_logprobs"] != row["engine_logprobs"]


def test_parts_are_compared(base: list[str], tmp_path: Path) -> None:
    one, other = (run(base, tmp_path / str(seed), "iterations=1", f"seed={seed}") for seed in (1, 2))
    assert_same_rollouts(one, one)
    with pytest.raises(AssertionError):
        assert_same_rollouts(one, other)
