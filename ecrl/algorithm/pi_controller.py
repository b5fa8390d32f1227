"""Control of a scalar: target trajectories, and PI control within limits.

Imports nothing but the standard library.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

SHAPES = ("constant", "linear", "cosine")


def trajectory(shape: str, first: float, end: float, part: float) -> float:
    """Return the target after ``part`` of the way, in [0, 1], from ``first`` to ``end``.

        constant   end
        linear     first + (end − first)·part
        cosine     end + (first − end)·(1 + cos π·part) / 2

    Args:
        shape: one of ``SHAPES``.
        first: where the way begins.
        end: where it ends, in the same unit.
        part: share of the way that is done.
    """
    if shape == "constant":
        return end
    done = part if shape == "linear" else (1 - math.cos(math.pi * part)) / 2
    return first + (end - first) * done


@dataclass
class PIController:
    """Proportional-integral control with limits and anti-windup by conditional integration.

        u_t = clamp(u_0 + (high − low)·(K_p·e_t + K_i·Σ_{s≤t} e_s), low, high)

    The gains are shares of the range per unit of error, whatever the unit of ``u``. An error that pushes
    ``u`` further beyond a limit is not summed, so that u leaves the limit as soon as the error turns.

    Attributes:
        low: lower limit of u.
        high: upper limit.
        proportional: K_p.
        integral: K_i, per step.
        total: Σ e.
    """

    low: float
    high: float
    proportional: float
    integral: float
    total: float = 0.0

    def step(self, start: float, error: float) -> float:
        """Take in ``e_t`` and return ``u_t``; ``start`` is u_0."""
        total = self.total + error
        free = start + (self.high - self.low) * (self.proportional * error + self.integral * total)
        held = min(max(free, self.low), self.high)
        if (free - held) * self.integral * error <= 0:
            self.total = total
        return held
