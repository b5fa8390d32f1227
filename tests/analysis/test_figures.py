"""The figure of the law."""

from __future__ import annotations

import io

import numpy as np
import pytest

from ecrl.analysis.figures import Cloud, hr_figure
from ecrl.analysis.law import fit_law

# exp(H) = 1 … 5, mean 3, Σ(x − 3)² = 10; rewards of mean 0.54 with Σ(x − 3)(R − 0.54) = −1.4.
H = np.log([1.0, 2.0, 3.0, 4.0, 5.0])
R = np.array([0.8, 0.7, 0.5, 0.5, 0.2])


def test_the_figure_shows_points_curve_and_ceiling() -> None:
    entropy = np.log([2.0, 3.0, 4.0, 5.0, 6.0])
    law = fit_law(entropy, R)  # b = 1.1 and a = 0.14: 0.82, …, 0.26 at the points, 0.96 at H = 0
    (axis,) = hr_figure([Cloud("run", entropy, R, law)], reward="avg@16").axes
    curve, beyond, bar, ceiling = axis.lines
    assert curve.get_xydata()[[0, -1]] == pytest.approx(np.array([[entropy[0], 0.82], [entropy[-1], 0.26]]))
    assert beyond.get_xydata()[[0, -1]] == pytest.approx(np.array([[0, 0.96], [entropy[0], 0.82]]))
    assert beyond.get_linestyle() == ":"
    assert bar.get_ydata() == pytest.approx(law.ceiling_interval)
    assert ceiling.get_ydata() == pytest.approx([0.96, 0.96])
    np.testing.assert_allclose(axis.collections[0].get_offsets(), np.stack([entropy, R], 1))
    assert axis.get_ylabel() == "avg@16"
    (axis,) = hr_figure([Cloud("one", H, R), Cloud("two", H, R, law)]).axes
    assert len(axis.lines) == 3 and [t.get_text() for t in axis.get_legend().get_texts()] == ["one", "two"]


def test_a_name_is_drawn_as_it_is() -> None:
    """Neither a formula, nor left out of the legend."""
    figure = hr_figure([Cloud("_a$b_$", H, R), Cloud("$", H, R)], reward="$r_$")
    figure.savefig(io.BytesIO())
    (axis,) = figure.axes
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["_a$b_$", "$"]
