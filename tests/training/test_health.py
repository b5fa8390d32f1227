"""Health: each symptom by hand-made rows, said once, and from the whole history after a resume."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ecrl.training import health
from ecrl.training.health import PATIENCE, HealthMonitor, Row
from tests.support.lightning import fit

WELL = {
    "rollout/groups_trained": 3.0,
    "rollout/zero_variance": 0.25,
    "rollout/reward": 0.4,
    "rollout/truncated": 0.2,
    "policy/entropy": 0.6,
    "mismatch/kl": 0.001,
}


@pytest.mark.parametrize(
    ("symptom", "ill", "says"),
    [
        ("nothing_learnt", {"rollout/groups_trained": 0.0, "rollout/reward": 0.0}, "easier problems"),
        ("nothing_learnt", {"rollout/zero_variance": 1.0, "rollout/reward": 1.0}, "harder problems"),
        ("cut_off", {"rollout/truncated": 0.97}, "97% of the responses are cut off"),
        ("collapsed", {"policy/entropy": 0.04}, "0.040 nats"),
        ("risen", {"policy/entropy": 0.8}, "from 0.60 to 0.80 nats"),
        ("engine_differs", {"mismatch/kl": 0.06}, "0.060 nats a token"),
    ],
)
def test_a_symptom_must_last(symptom: str, ill: Row, says: str) -> None:
    look = getattr(health, symptom)
    sick = WELL | dict(ill)
    assert look([WELL] * 20) is None
    assert look([WELL, *[sick] * (PATIENCE - 1)]) is None
    assert says in look([WELL, *[sick] * PATIENCE])
    assert look([WELL, *[sick] * PATIENCE, WELL]) is None
    assert look([]) is None


def test_numbers_that_are_missing_are_no_symptom() -> None:
    rows: list[Row] = [{"policy/entropy": None}] * 10
    assert [symptom(rows) for symptom in health.SYMPTOMS] == [None] * len(health.SYMPTOMS)


def test_it_speaks_once_and_again_after_it_was_gone(tmp_path: Path) -> None:
    """The tiny module's entropy is 1/iteration: below 0.05 from iteration 21 on."""
    said: list[str] = []
    fit(tmp_path, 30, HealthMonitor(tmp_path, said.append))
    assert len([line for line in said if "collapsed" in line]) == 1


def test_a_resumed_run_judges_by_the_whole_history(tmp_path: Path) -> None:
    said: list[str] = []
    fit(tmp_path, 23, HealthMonitor(tmp_path, said.append))
    assert not said
    fit(tmp_path, 25, HealthMonitor(tmp_path, said.append), resume=23)
    assert len(said) == 1 and said[0].startswith("warning: policy entropy is 0.040 nats")
    assert len([json.loads(line) for line in (tmp_path / "metrics.jsonl").open()]) == 25
