"""Target trajectories and the controller, by hand."""

from __future__ import annotations

import pytest

from ecrl.algorithm.pi_controller import PIController, trajectory


@pytest.mark.parametrize(
    ("shape", "part", "wanted"),
    [
        ("constant", 0.0, 0.2),
        ("linear", 0.0, 1.0),
        ("linear", 0.25, 0.8),
        ("linear", 1.0, 0.2),
        ("cosine", 0.0, 1.0),
        ("cosine", 0.5, 0.6),
        ("cosine", 1 / 3, 0.8),
        ("cosine", 1.0, 0.2),
    ],
)
def test_trajectories(shape: str, part: float, wanted: float) -> None:
    assert trajectory(shape, 1.0, 0.2, part) == pytest.approx(wanted, abs=1e-12)


class TestPI:
    def test_by_hand(self) -> None:
        control = PIController(low=0.0, high=10.0, proportional=0.5, integral=0.1)
        assert control.step(1.0, 0.2) == pytest.approx(1 + 10 * (0.5 * 0.2 + 0.1 * 0.2))
        assert control.step(1.0, -0.1) == pytest.approx(1 + 10 * (-0.5 * 0.1 + 0.1 * 0.1))

    def test_an_error_that_pushes_beyond_a_limit_is_not_summed(self) -> None:
        control = PIController(low=0.0, high=1.0, proportional=1.0, integral=0.5)
        assert [control.step(0.5, 1.0) for _ in range(100)] == [1.0] * 100 and control.total == 0.0
        # So the knob leaves its limit in the very step in which the error turns.
        assert control.step(0.5, -0.2) == pytest.approx(0.5 - 0.2 - 0.1)

    def test_an_error_that_pulls_back_is_summed_at_the_limit(self) -> None:
        control = PIController(low=0.0, high=1.0, proportional=0.0, integral=1.0, total=3.0)
        assert control.step(0.0, -0.5) == 1.0 and control.total == 2.5

    def test_negative_gains_move_the_other_way(self) -> None:
        control = PIController(low=0.0, high=1.0, proportional=-0.5, integral=-0.1)
        assert control.step(0.5, 0.2) == pytest.approx(0.5 - 0.1 - 0.02)
        assert [control.step(0.5, 2.0) for _ in range(9)] == [0.0] * 9 and control.total == pytest.approx(0.2)
