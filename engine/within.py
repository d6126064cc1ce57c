"""The least Ω within one budget, for many tables of Ω at once: exact, and fast where they differ.

Costs are the same in every table. Relaxed by a price on cost (Lagrange), every part chooses for
itself, which bounds Ω from below; the plan that follows, mended with what room it leaves, bounds it
from above. An option whose reduced value alone exceeds the gap between the two is in no better
plan, and what is left, the core, is small: its sums are crossed in full, the most contested parts
first (Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", 1995).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.joint import Pairs, pair_table

MAX_COMBINATIONS = 2**15  # of the options of layers that share bits
ROUNDING = 1e-12  # by which sums in another order may differ, as a share
PRICE_RANGE = 100  # powers of two in which the price is looked for
PRICE_STEPS = 34  # of bisection: to a part in 10^8
MENDS = 16  # options exchanged for better ones that fit, at most


class TooMany(ValueError):  # noqa: N818 — what the combinations are, not what went wrong
    """Layers that share bits can be combined in too many ways to go through them all."""

    def __init__(self) -> None:
        super().__init__(
            "weight_groups and activation_groups must leave few ways to combine layers that share "
            f"bits, got more than {MAX_COMBINATIONS:,}: untie some, or allow fewer bits."
        )


def least_omegas(
    costs: ArrayLike,
    omegas: ArrayLike,
    budget: float,
    *,
    weight_groups: ArrayLike | None = None,
    activation_groups: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
) -> NDArray[np.intp]:
    """Find the pairs of least Ω that keep to a budget, for each of several tables of Ω.

    Args:
        costs: [L, W, A], as for `joint.joint_frontier`.
        omegas: [D, L, W, A], at least 0.
        budget: The most that a plan may cost.
        weight_groups: [L]; layers with one number have the same option of the weight.
        activation_groups: [L]; layers with one number have the same option of the activation.
        allowed: [L, W, A], the pairs that may be chosen; all if not given.

    Returns:
        The option of each layer, w · A + a, for each table, [D, L].

    Raises:
        TooMany: If layers that share bits can be combined in more than `MAX_COMBINATIONS` ways.
        ValueError: If an argument is not as above, or no plan keeps to the budget.
    """
    cost = pair_table(costs, "costs")
    omega = np.asarray(omegas, np.float64)
    if omega.shape[1:] != cost.shape or not len(omega):
        raise ValueError(
            f"omegas must be tables of the shape of costs {cost.shape}, got shape {omega.shape}."
        )
    pairs = Pairs.of(cost.shape, weight_groups, activation_groups, allowed)
    cost, omega = cost.reshape(len(cost), -1), omega.reshape(len(omega), len(cost), -1)
    pieces = pairs.pieces(range(len(cost)), frozenset())
    parts = [_part(piece, _combinations(pairs, piece), cost, omega) for piece in pieces]
    cheapest = sum(float(part.cost[0]) for part in parts)
    room = budget * (1 + ROUNDING) - cheapest
    if math.isnan(room) or room < 0:
        raise ValueError(
            f"budget must be at least {cheapest:g}, the cost of the smallest plan, got {budget:g}."
        )
    places = _solve(parts, min(room, sum(float(np.ptp(part.cost)) for part in parts)))
    found = np.empty((len(omega), len(cost)), np.intp)
    for part, place in zip(parts, places.T, strict=True):
        found[:, part.layers] = part.options[place]
    return found


@dataclass(frozen=True, eq=False)
class _Part:
    """Layers that share bits, and what they may have together."""

    layers: list[int]
    options: NDArray[np.intp]  # [K, layers], by rising cost
    cost: NDArray[np.float64]  # [K]
    omega: NDArray[np.float64]  # [D, K]; infinite where one that costs no more is as good


def _combinations(pairs: Pairs, piece: Sequence[int]) -> NDArray[np.intp]:
    """All ways to choose for layers that share bits, [K, layers]."""
    rows = np.zeros((1, 0), np.intp)
    width = pairs.shape[2]
    for place, layer in enumerate(piece):
        own = np.flatnonzero(pairs.allowed[layer])
        if len(rows) * len(own) > MAX_COMBINATIONS * pairs.allowed.shape[1]:
            raise TooMany
        rows = np.column_stack([np.repeat(rows, len(own), axis=0), np.tile(own, len(rows))])
        for earlier, other in enumerate(piece[:place]):
            one, two = rows[:, earlier], rows[:, place]
            same = pairs.points[other] == pairs.points[layer]
            fits = np.ones(len(rows), bool)
            if same[0]:
                fits &= one // width == two // width
            if same[1]:
                fits &= one % width == two % width
            rows = rows[fits]
    if len(rows) > MAX_COMBINATIONS:
        raise TooMany
    if not len(rows):
        raise ValueError(
            "allowed must leave every layer an option that its groups share, got none for all "
            "layers at once: allow more, or untie some."
        )
    return rows


def _part(
    piece: Sequence[int],
    options: NDArray[np.intp],
    costs: NDArray[np.float64],
    omegas: NDArray[np.float64],
) -> _Part:
    """What some layers may have together, by rising cost; without what is never of use."""
    cost, omega = np.zeros(len(options)), np.zeros((len(omegas), len(options)))
    for layer, own in zip(piece, options.T, strict=True):
        cost += costs[layer, own]
        omega += omegas[:, layer, own]
    order = np.argsort(cost, kind="stable")
    cost, omega = cost[order], omega[:, order]
    least = np.minimum.accumulate(omega, axis=1)
    beaten = np.zeros(omega.shape, bool)
    beaten[:, 1:] = omega[:, 1:] >= least[:, :-1]
    of_use = ~beaten.all(axis=0)
    omega = np.where(beaten, np.inf, omega)[:, of_use]
    return _Part(list(piece), options[order][of_use], cost[of_use], omega)


def _solve(parts: Sequence[_Part], room: float) -> NDArray[np.intp]:
    """The place of each part's option in every table, [D, parts].

    Args:
        parts: Which share nothing.
        room: What may be spent above the cheapest of all.
    """
    draws, most = len(parts[0].omega), max(len(part.cost) for part in parts)
    cost = np.zeros((len(parts), most))  # above the part's cheapest
    omega = np.full((draws, len(parts), most), np.inf)
    for i, part in enumerate(parts):
        cost[i, : len(part.cost)] = part.cost - part.cost[0]
        omega[:, i, : len(part.cost)] = part.omega
    price, relaxed = _priced(cost, omega, room)
    known = _mended(cost, omega, room, relaxed)
    return np.array(
        [
            _exact(cost, omega[draw], room, price[draw], relaxed[draw], known[draw])
            for draw in range(draws)
        ]
    )


def _priced(
    cost: NDArray[np.float64], omega: NDArray[np.float64], room: float
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The least price at which the parts keep to the room, and what they take then; of every table.

    Args:
        cost: [P, K].
        omega: [D, P, K].
        room: At least 0.
    """

    def taken(price: NDArray[np.float64]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        places = (omega + price[:, None, None] * cost).argmin(axis=2)
        return places, _picked(cost, places).sum(axis=1) <= room

    low = np.zeros(len(omega))
    best, fits = taken(low)
    if fits.all():
        return low, best
    dearest = np.where(np.isfinite(omega), omega, 0).max(axis=(1, 2)) * len(cost)
    step = np.where(cost > 0, cost, np.inf).min()
    high = np.where(fits, 0.0, dearest / step)  # at which nothing is worth its cost
    best = np.where(fits[:, None], best, 0)
    low = high * 2.0**-PRICE_RANGE
    for _ in range(PRICE_STEPS):
        middle = np.sqrt(low * high)
        places, fits = taken(middle)
        high, low = np.where(fits, middle, high), np.where(fits, low, middle)
        best = np.where(fits[:, None], places, best)
    return high, best


def _mended(
    cost: NDArray[np.float64], omega: NDArray[np.float64], room: float, places: NDArray[np.intp]
) -> NDArray[np.intp]:
    """Spend the room that is left: one part at a time takes the best option that still fits."""
    places, tables = places.copy(), np.arange(len(omega))
    for _ in range(MENDS):
        spent = _picked(cost, places)
        left = room - spent.sum(axis=1)
        now = np.take_along_axis(omega, places[..., None], 2)
        gain = np.where(cost - spent[..., None] <= left[:, None, None], now - omega, 0)
        flat = gain.reshape(len(omega), -1)
        at = flat.argmax(axis=1)
        better = flat[tables, at] > 0
        if not better.any():
            break
        part, option = np.divmod(at, cost.shape[1])
        places[tables[better], part[better]] = option[better]
    return places


def _picked(values: NDArray[np.float64], places: NDArray[np.intp]) -> NDArray[np.float64]:
    """Of values [P, K] those at places [D, P]."""
    return values[np.arange(len(values)), places]


def _exact(
    cost: NDArray[np.float64],
    omega: NDArray[np.float64],
    room: float,
    price: float,
    relaxed: NDArray[np.intp],
    known: NDArray[np.intp],
) -> NDArray[np.intp]:
    """The best plan of one table: what is known, or what the core holds that is better.

    Args:
        cost: [P, K].
        omega: [P, K], infinite for options of no use.
        room: What may be spent.
        price: At which `relaxed` is best for each part.
        relaxed: [P], which keeps to the room.
        known: [P], a plan that does.
    """
    at = np.arange(len(cost))
    value = omega + price * cost
    reduced = value - value[at, relaxed][:, None]  # at least 0
    base = float(omega[at, relaxed].sum())
    left = room - float(cost[at, relaxed].sum())
    # Ω − base = Σ reduced − price · (what is spent above relaxed): no better plan exceeds this
    floor = -price * left
    gap = float(omega[at, known].sum()) - base - floor
    contested = reduced <= gap
    contested[at, relaxed] = False
    core = np.flatnonzero(contested.any(axis=1))
    if not len(core):
        return known
    core = core[np.argsort(np.where(contested, reduced, np.inf)[core].min(axis=1))]
    spent, rise, excess = np.zeros(1), np.zeros(1), np.zeros(1)
    origins: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []  # option, parent
    best: tuple[int, int] | None = None  # after which part, which sum
    for step, part in enumerate(core):
        own = np.flatnonzero(reduced[part] <= gap)
        sums = [
            (values[:, None] + more[own]).ravel()
            for values, more in (
                (spent, cost[part] - cost[part, relaxed[part]]),
                (rise, omega[part] - omega[part, relaxed[part]]),
                (excess, reduced[part]),
            )
        ]
        kept = np.flatnonzero(sums[2] <= gap)
        kept = kept[_undominated(sums[0][kept], sums[1][kept])]
        spent, rise, excess = (values[kept] for values in sums)
        origins.append((own[kept % len(own)], kept // len(own)))
        fits = np.flatnonzero(spent <= left)
        if len(fits):
            i = int(fits[rise[fits].argmin()])
            if rise[i] - floor < gap:
                gap, best = float(rise[i]) - floor, (step, i)
    if best is None:
        return known
    places = relaxed.copy()
    step, i = best
    for part, (option, parent) in zip(core[step::-1], origins[step::-1], strict=True):
        places[part], i = option[i], parent[i]
    return places


def _undominated(cost: NDArray[np.float64], omega: NDArray[np.float64]) -> NDArray[np.intp]:
    """Sums that no other beats, where they may be negative."""
    order = np.lexsort((omega, cost))
    lower = np.ones(len(order), bool)
    lower[1:] = omega[order][1:] < np.minimum.accumulate(omega[order])[:-1]
    return order[lower]
