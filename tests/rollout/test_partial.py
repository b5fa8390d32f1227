"""Partial rollouts: what is unfinished at a weight sync goes on with the new weights."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from ecrl.config.compose import build_config
from ecrl.config.resume import resumed_config
from ecrl.engines.base import Completion, Request, Sampling
from ecrl.errors import EcrlError, UsageError
from ecrl.rollout.rollout_queue import Rollout, RolloutQueue
from ecrl.rollout.shared_engine import AbandonedError, EngineLine, SharedEngine
from ecrl.rollout.trajectory import Trajectory, Turn
from ecrl.training.datamodule import RolloutDataModule
from ecrl.training.preflight import preflight
from ecrl.training.run import train
from tests.support.engines import PausableEngine
from tests.support.runs import history, run, silent
from tests.support.tiny import TINY

PARTIAL = [
    "rollout.partial=true", "rollout.staleness=1", "strategy=[importance_correction]",
    "engine._target_=tests.support.engines.PausableEngine", "rollout.max_new_tokens=24", "update.lr=1e-2",
    "rollout.prompts=4",
]  # fmt: skip


@pytest.fixture
def base(tiny_model: Path) -> list[str]:
    return [*TINY, f"model.path={tiny_model}", "iterations=4", *PARTIAL]


def test_completions_go_on_with_new_weights(
    base: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Rollout] = []
    prepare = RolloutDataModule._prepare

    def noting(self: RolloutDataModule, rollout: Rollout) -> Any:
        drawn.append(rollout)
        return prepare(self, rollout)

    monkeypatch.setattr(RolloutDataModule, "_prepare", noting)
    PausableEngine.syncs.clear()
    rows = history(run(base, tmp_path / "run"))
    assert any(PausableEngine.syncs[1:4])  # requests were open while weights changed
    completions = [turn.completion for rollout in drawn for t in rollout.drawn for turn in t.turns]
    mixed = [c for c in completions if c.earlier]
    assert mixed
    for completion in mixed:
        versions = [version for version, _ in completion.earlier]
        assert versions == sorted(set(versions)) and versions[-1] < completion.weights_version
        assert 0 < sum(tokens for _, tokens in completion.earlier) < len(completion.token_ids)
    assert len(completions) == 4 * 16  # no rollout lacks one
    assert [sorted({t.problem_id for t in rollout.drawn}) for rollout in drawn] == [
        [4 * i, 4 * i + 1, 4 * i + 2, 4 * i + 3] for i in range(4)
    ]
    assert max(row["rollout/partial"] for row in rows) > 0
    assert rows[-1]["mismatch/max"] > 0


def test_a_run_with_partial_rollouts_resumes(base: list[str], tmp_path: Path) -> None:
    parts = run(base, tmp_path / "parts", "iterations=2")
    train(resumed_config([f"resume={parts}", "iterations=4"]), silent)
    assert [row["iteration"] for row in history(parts)] == [1, 2, 3, 4]
    assert [row["rollout/completions"] for row in history(parts)] == [16] * 4


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("engine._target_=ecrl.engines.hf.HFEngine", "needs an engine that can pause: engine=vllm_server"),
        ("strategy=[]", r"add importance_correction to strategy=\[…\]"),
        ("rollout.staleness=0", "set rollout.staleness to 1 or more"),
        ("objective.filters.max_resample=2", "max_resample=2 .* set it to 0"),
        ("rollout.partial=maybe", "rollout.partial"),
    ],
)
def test_what_cannot_be_partial_is_refused(override: str, said: str, base: list[str]) -> None:
    with pytest.raises(UsageError, match=said):
        preflight(build_config([*base, override]))


def test_staleness_above_1_without_it_is_warned_of(base: list[str]) -> None:
    said = "rollout.staleness=2 draws no faster than 1"
    exact = preflight(build_config([*base, "rollout.staleness=2", "rollout.partial=false"]))
    assert any(said in warning for warning in exact)
    for other in (["rollout.staleness=2"], ["rollout.staleness=1", "rollout.partial=false"]):
        assert not any(said in warning for warning in preflight(build_config([*base, *other])))


def test_rollouts_begin_in_order_and_are_drawn_at_the_same_time() -> None:
    begun: list[int] = []
    released: list[int] = []

    def draw(iteration: int, version: int, temperature: float, recorder: Any) -> Rollout:
        released.append(iteration)
        return Rollout(iteration, version, temperature, [], [])

    queue = RolloutQueue(
        draw, 2, True, partial=True, begin=lambda iteration, temperature: begun.append(iteration)
    )
    assert [queue.next(i, i, 1.0).version for i in range(3)] == [0, 0, 0]
    queue.settle()
    queue.close()
    assert begun == [0, 1, 2, 3, 4] and sorted(released) == begun


def test_the_rollout_that_failed_says_why() -> None:
    failed = threading.Event()

    def draw(iteration: int, version: int, temperature: float, recorder: Any) -> Rollout:
        if iteration == 1:
            failed.set()
            raise EcrlError("the verifier is gone")
        failed.wait()
        raise AbandonedError("Another rollout has failed.")

    queue = RolloutQueue(draw, 2, True, partial=True)
    with pytest.raises(EcrlError, match="the verifier is gone"):
        queue.next(0, 0, 1.0)
    queue.close()


class Scripted:
    """Answers what it is told to; notes what it was asked."""

    def __init__(self) -> None:
        self.open: list[Request] = []
        self.finish: list[int] = []
        self.notes: list[str] = []

    def submit(self, requests: Sequence[Request]) -> None:
        self.open += requests

    def poll(self) -> list[tuple[int, Completion]]:
        done = [r for r in self.open if r.prompt[0] in self.finish]
        self.open = [r for r in self.open if r not in done]
        return [(r.id, Completion([r.prompt[0]], [0.0], None, "stop", 0)) for r in done]

    def cancel(self) -> None:
        self.notes.append("cancel")

    def pause(self) -> None:
        self.notes.append("pause")

    def resume(self) -> None:
        self.notes.append("resume")


def test_every_line_gets_its_own() -> None:
    engine: Any = Scripted()
    shared = SharedEngine(engine)
    one, other = EngineLine(shared), EngineLine(shared)
    one.submit([Request(0, [10], 0, Sampling()), Request(1, [11], 0, Sampling())])
    other.submit([Request(0, [20], 0, Sampling())])
    engine.finish = [11, 20]
    assert [(number, c.token_ids) for number, c in one.poll()] == [(1, [11])]
    engine.finish = [10]
    assert [(number, c.token_ids) for number, c in other.poll()] == [(0, [20])]  # was there already
    with shared.paused():
        assert engine.notes == ["pause"]
    assert [(number, c.token_ids) for number, c in one.poll()] == [(0, [10])]
    one.cancel()
    assert engine.notes == ["pause", "resume", "cancel"]
    with pytest.raises(EcrlError, match="Another rollout has failed"):
        other.poll()


def test_an_episode_knows_all_versions_that_drew_it() -> None:
    def of(*versions: int, earlier: tuple[tuple[int, int], ...] = ()) -> set[int]:
        turns = [Turn([], Completion([5], [0.0], None, "stop", v, earlier)) for v in versions]
        return Trajectory([], turns, 0, 0, 0.0, True, False, {}, None, "", "").versions

    assert of(3, 3) == {3} and of(3, 4) == {3, 4} and of(3, earlier=((1, 1), (2, 1))) == {1, 2, 3}
