"""Intervals on a log axis, which has no place for zero."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class LogIntervals:
    """How far bars reach from values, and the part of the axis that holds them."""

    up: tuple[float, ...]
    down: tuple[float, ...]  # an interval that reaches zero runs out of the axis
    bottom: float
    top: float

    @property
    def axis(self) -> dict[str, object]:
        """Fields of that axis: powers of ten alone where it is long."""
        return {
            "type": "log",
            "range": [math.log10(self.bottom) - 0.1, math.log10(self.top) + 0.15],
            "dtick": 1 if self.top / self.bottom > 30 else None,
            "exponentformat": "power",
        }


def log_intervals(
    shown: Sequence[float], lows: Sequence[float], highs: Sequence[float]
) -> LogIntervals:
    """Fit a log axis to values and their intervals.

    Args:
        shown: Values; those not above zero have no place.
        lows: Ends of the intervals; infinite ones have no bar.
        highs: Likewise.
    """
    positive = [x for x in (*shown, *lows, *highs) if 0 < x < math.inf] or [1.0]
    bottom = min(min(positive), 0.5 * min([x for x in shown if x > 0] or [1.0]))
    known = [math.isfinite(high) for high in highs]  # not of a single sample
    up = [max(0.0, b - x) if k else 0.0 for x, b, k in zip(shown, highs, known, strict=True)]
    down = [
        max(0.0, x - max(a, 0.01 * bottom)) if k else 0.0
        for x, a, k in zip(shown, lows, known, strict=True)
    ]
    return LogIntervals(tuple(up), tuple(down), bottom, max(positive))
