"""The law: by hand, at its nominal rate, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from ecrl.analysis import Floats
from ecrl.analysis.law import Law, fit_law, forecast, scaling
from ecrl.analysis.points import smooth

# exp(H) = 1 … 5, mean 3, Σ(x − 3)² = 10; rewards of mean 0.54 with Σ(x − 3)(R − 0.54) = −1.4.
H = np.log([1.0, 2.0, 3.0, 4.0, 5.0])
R = np.array([0.8, 0.7, 0.5, 0.5, 0.2])
Errors = Callable[[np.random.Generator, Floats], Floats]


def test_coefficients_by_hand() -> None:
    law = fit_law(H, R)
    # Residuals −.02 .02 −.04 .10 −.06: Σ² = .016, σ² = .016/3; Σ(R − mean)² = .212.
    assert (law.a, law.b, law.ceiling) == pytest.approx((0.14, 0.96, 0.82))
    assert law.a_se == pytest.approx((0.016 / 3 / 10) ** 0.5)
    assert law.b_se == pytest.approx((0.016 / 3 * (1 / 5 + 9 / 10)) ** 0.5)
    assert law.ceiling_se == pytest.approx((0.016 / 3 * (1 / 5 + 4 / 10)) ** 0.5)
    assert law.r2 == pytest.approx(1 - 0.016 / 0.212)
    assert law.rmse == pytest.approx((0.016 / 5) ** 0.5)
    assert law.autocorrelation == pytest.approx(-0.7)
    assert law.points == 5
    assert law.predict([0.0, np.log(6.0)]) == pytest.approx([0.82, 0.12])
    low, high = law.band([0.0])
    assert (high - low) / 2 == pytest.approx([stats.t.ppf(0.975, 3) * law.ceiling_se])


def test_intervals_repeat_and_widen_with_confidence() -> None:
    law, same, wide = fit_law(H, R), fit_law(H, R), fit_law(H, R, confidence=0.99)
    assert law == same
    for name in ("a", "b", "ceiling"):
        low, high = getattr(law, f"{name}_interval")
        assert low < getattr(law, name) < high
        lower, higher = getattr(wide, f"{name}_interval")
        assert lower < low and high < higher


def test_without_errors_the_law_is_exact() -> None:
    law = fit_law(H, 0.9 - 0.1 * np.exp(H))
    assert law.a_interval == pytest.approx((0.1, 0.1)) and law.ceiling_interval == pytest.approx((0.8, 0.8))
    assert law.r2 == pytest.approx(1) and law.rmse == pytest.approx(0)


def gaussian(rng: np.random.Generator, truth: Floats) -> Floats:
    return truth + 0.02 * rng.standard_normal(len(truth))


def shares(rng: np.random.Generator, truth: Floats) -> Floats:
    """Rewards as they are: shares of 100 answers that are right."""
    return np.asarray(rng.binomial(100, truth) / 100)


@pytest.mark.parametrize("errors", [gaussian, shares])
@pytest.mark.parametrize(("points", "confidence"), [(5, 0.95), (15, 0.8), (36, 0.95)])
def test_known_coefficients_lie_in_their_intervals_at_the_nominal_rate(
    errors: Errors, points: int, confidence: float
) -> None:
    rng = np.random.default_rng(points)
    entropy = 0.8 * 0.85 ** np.arange(points)  # falls as it does in training
    truth = 0.9 - 0.3 * np.exp(entropy)
    laws = [fit_law(entropy, errors(rng, truth), confidence=confidence, seed=i) for i in range(400)]
    low, high = stats.binom.interval(0.9999, 400, confidence)
    for name, value in (("a", 0.3), ("b", 0.9), ("ceiling", 0.6)):
        assert low <= covered(laws, name, value) <= high, name


def covered(laws: list[Law], name: str, value: float) -> int:
    return sum(lo <= value <= hi for lo, hi in (getattr(law, f"{name}_interval") for law in laws))


def test_standard_errors_are_those_of_repeated_draws() -> None:
    rng = np.random.default_rng(0)
    entropy = np.linspace(0.8, 0.1, 12)
    laws = [fit_law(entropy, gaussian(rng, 0.9 - 0.3 * np.exp(entropy)), resamples=2) for _ in range(2000)]
    for name in ("a", "b", "ceiling"):
        spread = np.std([getattr(law, name) for law in laws])
        assert np.mean([getattr(law, f"{name}_se") ** 2 for law in laws]) ** 0.5 == pytest.approx(
            spread, rel=0.05
        )


def test_errors_that_follow_each_other_are_seen() -> None:
    rng = np.random.default_rng(0)
    entropy = np.linspace(0.8, 0.1, 60)
    walk = smooth(0.05 * rng.standard_normal(60), 8)
    assert fit_law(entropy, 0.9 - 0.3 * np.exp(entropy) + walk).correlated
    assert not fit_law(entropy, gaussian(rng, 0.9 - 0.3 * np.exp(entropy))).correlated


@pytest.mark.parametrize(
    ("entropy", "reward", "says"),
    [
        (H[:4], R[:4], "at least 5 points, got 4"),
        (H, R[:4], "as many entropies as rewards"),
        (np.full(9, 0.3), np.arange(9.0), "moves by 0 nats"),
        (0.3 + 0.001 * np.arange(9), np.arange(9.0), "moves by 0.008 nats"),
        (H, np.full(5, 0.25), "0.25 at every point"),
        ([*H[:4], np.nan], R, "entropy of point 5 is nan"),
        (H, [np.inf, *R[1:]], "reward of point 1 is inf"),
        (H, 1e300 * np.asarray(R), "no reward"),
        (-H, R, "negated loss"),
        (100 * H, R, "sum over a response"),
    ],
)
def test_what_cannot_carry_a_fit_is_refused(entropy: Floats, reward: Floats, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        fit_law(entropy, reward)


def test_a_forecast_by_hand() -> None:
    entropy = np.log([6.0, 5.0, 4.0, 3.0, 2.0, 1.5, 1.0])
    reward = np.array([0.4, 0.5, 0.6, 0.7, 0.8, 0.88, 0.87])  # 1 − exp(H)/10, then +.03 and −.03
    early = forecast(entropy, reward, 5 / 7)
    assert early.fitted == 5 and early.law.a == pytest.approx(0.1)
    assert early.rmse == pytest.approx(0.03) and early.final_error == pytest.approx(0.03)


@pytest.mark.parametrize(
    ("share", "says"), [(0.3, "at least 5"), (1.0, "leaves none"), (0.999, "leaves none")]
)
def test_a_forecast_needs_points_on_both_sides(share: float, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        forecast(np.linspace(1, 0, 12), np.arange(12.0), share)


def test_scaling_extrapolates_in_the_logarithm_of_size() -> None:
    sizes = [0.5, 1.5, 3, 7]
    laws = [fit_law(H, (0.8 + 0.1 * np.log(s)) - (0.1 + 0.02 * np.log(s)) * np.exp(H)) for s in sizes]
    line = scaling(sizes, laws)
    assert line.predict(32) == pytest.approx((0.1 + 0.02 * np.log(32), 0.8 + 0.1 * np.log(32)))
    assert line.a.slope == pytest.approx(0.02) and line.b.slope == pytest.approx(0.1)


def test_scaling_intervals_hold_one_more_model_at_the_nominal_rate() -> None:
    rng = np.random.default_rng(3)
    sizes, hits = [0.5, 1.5, 3, 7], 0
    for _ in range(400):
        a = 0.1 + 0.02 * np.log([*sizes, 32]) + 0.01 * rng.standard_normal(5)
        laws = [fit_law(H, 0.8 - value * np.exp(H), resamples=2) for value in a[:4]]
        (low, high), _ = scaling(sizes, laws).intervals(32)
        hits += low <= a[4] <= high
    assert stats.binom.ppf(0.0001, 400, 0.95) <= hits <= stats.binom.ppf(0.9999, 400, 0.95)


@pytest.mark.parametrize(
    ("sizes", "says"),
    [
        ([1, 2], "take as many sizes"),
        ([1, 2, 2], "three sizes"),
        ([1, 2, -3], "above 0"),
        ([1, 2, np.nan], "above 0"),
    ],
)
def test_scaling_refuses(sizes: list[float], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        scaling(sizes, [fit_law(H, R)] * 3)
