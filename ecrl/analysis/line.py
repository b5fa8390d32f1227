"""A straight line by least squares, with its standard errors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from ecrl.analysis import Floats


@dataclass(frozen=True)
class Line:
    """Least squares fit y = slope·x + intercept, for independent errors of equal variance.

    Attributes:
        slope: in units of y per unit of x.
        intercept: in units of y.
        center: mean of x.
        scatter: Σ (x − center)².
        sigma: standard deviation of the errors, with n − 2 degrees of freedom.
        r2: share of the variance of y that the line explains; NaN if y is constant.
        points: number n of points.
    """

    slope: float
    intercept: float
    center: float
    scatter: float
    sigma: float
    r2: float
    points: int

    def at(self, x: ArrayLike) -> Any:
        """Return y on the line at x."""
        return self.slope * np.asarray(x) + self.intercept

    def unit_error(self, x: ArrayLike) -> Any:
        """Standard error of ``at(x)`` for errors of unit variance: √(1/n + (x − center)²/scatter)."""
        return np.sqrt(1 / self.points + (np.asarray(x) - self.center) ** 2 / self.scatter)

    def half_width(self, x: ArrayLike, confidence: float, *, new: bool = False) -> Any:
        """Half the width of the t interval of the line at x, or of one ``new`` observation there."""
        unit_error = np.sqrt(self.unit_error(x) ** 2 + new)
        return stats.t.ppf(0.5 + confidence / 2, self.points - 2) * self.sigma * unit_error


def fit_line(x: Floats, y: Floats) -> Line:
    """Fit y = slope·x + intercept to three or more points whose x are not all equal."""
    center, scatter = x.mean(), ((x - x.mean()) ** 2).sum()
    slope = ((x - center) * (y - y.mean())).sum() / scatter
    intercept = y.mean() - slope * center
    left, total = ((y - slope * x - intercept) ** 2).sum(), ((y - y.mean()) ** 2).sum()
    return Line(
        float(slope),
        float(intercept),
        float(center),
        float(scatter),
        float(np.sqrt(left / (len(x) - 2))),
        float(1 - left / total) if total else math.nan,
        len(x),
    )
