"""Choices among parts, one option each: those whose sums no other beats in both cost and Ω.

Either partial sums are kept as a sorted list that grows with every part, or, where costs are few
whole steps of a grid, as an array with the least Ω at every step: then each option of each part
is one shifted addition over the array, whatever the number of points.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

SAME = 1e-13  # relative; sums of the same numbers in another order differ by less
MAX_CANDIDATES = 2**23  # partial plans crossed at a time: about 1 GiB at worst
MAX_CELLS = 2**27  # of the grid, times parts: two bytes each


def cross(
    costs: Sequence[NDArray[np.float64]], omegas: Sequence[NDArray[np.float64]], tolerance: float
) -> list[NDArray[np.intp]]:
    """One option of each part, so that no other choice beats the sums: the place of each, [G][P].

    Args:
        costs: Of each part, [its options].
        omegas: As costs.
        tolerance: By which costs were rounded, for the message.

    Raises:
        ValueError: If the frontier grows beyond memory.
    """
    if tolerance and (cells := _cells(costs)):
        return _cross_cells([np.rint(own).astype(np.intp) for own in costs], omegas, cells)
    # parts of the widest range first keep early frontiers small
    order = sorted(range(len(costs)), key=lambda part: -float(np.ptp(costs[part])))
    cost, omega = np.zeros(1), np.zeros(1)
    origins: list[NDArray[np.int32]] = []  # of each part's points: place of option · P + parent
    widths: list[int] = []  # P
    for part in order:
        candidates = len(cost) * len(costs[part])
        if candidates > MAX_CANDIDATES:
            raise ValueError(
                f"tolerance must be larger for these costs, got {tolerance:g}: the frontier grows "
                f"beyond {MAX_CANDIDATES:,} partial plans; try {max(1e-4, 10 * tolerance):g}."
            )
        crossed_cost = (costs[part][:, None] + cost).ravel()
        crossed_omega = (omegas[part][:, None] + omega).ravel()
        kept = undominated(crossed_cost, crossed_omega)
        widths.append(len(cost))
        origins.append(kept.astype(np.int32))
        cost, omega = crossed_cost[kept], crossed_omega[kept]

    places: list[NDArray[np.intp]] = [np.empty(0, np.intp)] * len(costs)
    point: NDArray[Any] = np.arange(len(cost))
    for part, origin, width in reversed(list(zip(order, origins, widths, strict=True))):
        places[part], point = np.divmod(origin[point], width)
    return places


def _cells(costs: Sequence[NDArray[np.float64]]) -> int:
    """Steps that sums of these costs can have, if an array of them is the shorter way; else 0."""
    cells = 1 + sum(float(own.max()) for own in costs)
    choices = math.prod(len(own) for own in costs)
    most = max(len(own) for own in costs)
    if cells > choices or cells * len(costs) > MAX_CELLS or most > 2**16:
        return 0
    return int(cells) if all((own == np.rint(own)).all() for own in costs) else 0


def _cross_cells(
    costs: Sequence[NDArray[np.intp]], omegas: Sequence[NDArray[np.float64]], cells: int
) -> list[NDArray[np.intp]]:
    """What `cross` finds, by the least Ω of each sum of whole costs, 0 … cells - 1."""
    order = sorted(range(len(costs)), key=lambda part: int(costs[part].max()))
    least = np.zeros(1)  # [steps so far]
    origins: list[NDArray[np.uint16]] = []  # of each part and step: the option that got there
    for part in order:
        reach = len(least)
        crossed = np.full(reach + int(costs[part].max()), np.inf)
        origin = np.zeros(len(crossed), np.uint16)
        for option, (cost, omega) in enumerate(zip(costs[part], omegas[part], strict=True)):
            candidate = least + omega
            better = candidate < crossed[cost : cost + reach]
            np.copyto(crossed[cost : cost + reach], candidate, where=better)
            np.copyto(origin[cost : cost + reach], option, where=better, casting="unsafe")
        least = crossed
        origins.append(origin)
    assert len(least) == cells
    reached = np.flatnonzero(np.isfinite(least))
    cell = reached[undominated(reached.astype(np.float64), least[reached])]
    places: list[NDArray[np.intp]] = [np.empty(0, np.intp)] * len(costs)
    for part, origin in reversed(list(zip(order, origins, strict=True))):
        places[part] = origin[cell].astype(np.intp)
        cell = cell - costs[part][places[part]]
    return places


def undominated(cost: NDArray[np.float64], omega: NDArray[np.float64]) -> NDArray[np.intp]:
    """Points that no other beats in both, by rising cost; of equal ones the first."""
    order = np.argsort(cost, kind="stable")  # the input is a few sorted runs, which this merges
    omega = omega[order]
    lower = np.ones(len(order), bool)
    lower[1:] = omega[1:] < np.minimum.accumulate(omega)[:-1] * (1 - SAME)
    order = order[lower]
    cost = cost[order]
    last = np.ones(len(order), bool)  # of equal cost, the one with the least Ω
    last[:-1] = cost[1:] > cost[:-1] * (1 + SAME)
    return order[last]
