"""The exact frontier: every assignment of options to layers that none beats in both cost and Ω.

Cost and Ω are sums over layers, so the frontier over B^L assignments is a dynamic programme: cross
the frontier of the layers so far with the next layer's options, and keep what is not dominated. A
prefix that another beats in both cannot be part of an undominated whole, so nothing is lost.
Beside it stand the plans others would choose: uniform bits, the paper's monotone rule, greedy.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.crossing import cross, undominated
from engine.results import BitPlan

MAX_OPTIONS = 256  # a layer; choices are stored as bytes

PlanOf = Callable[[NDArray[np.intp]], BitPlan]


@dataclass(frozen=True, eq=False)
class Frontier:
    """Plans that no other beats in both cost and Ω, the cheapest first."""

    cost: NDArray[np.float64]  # [P], strictly ascending
    omega: NDArray[np.float64]  # [P], strictly descending
    options: NDArray[np.uint8]  # [P, L], the option of each layer
    plan_of: PlanOf | None = None  # choices [L] -> BitPlan

    def __len__(self) -> int:
        return len(self.cost)

    def choices(self, i: int) -> NDArray[np.intp]:
        """Option index of each layer at point i, [L]."""
        return self.options[i].astype(np.intp)

    def all_choices(self) -> NDArray[np.uint8]:
        """Option index of each layer at each point, [P, L]."""
        return self.options

    def index_within(self, budget: float) -> int:
        """The point of least Ω whose cost is not above the budget.

        Raises:
            ValueError: If the budget lies below the cheapest plan, or is no number.
        """
        if math.isnan(budget):
            raise ValueError("budget must be a number, got nan.")
        i = int(np.searchsorted(self.cost, budget, side="right")) - 1
        if i < 0:
            raise ValueError(
                f"budget must be at least {_readable(self.cost[0])}, the cost of the smallest "
                f"plan, got {_readable(budget)}: raise it or allow fewer bits."
            )
        return i

    def nearest(self, cost: float) -> int:
        """The point whose cost is nearest; the cheaper of two that are equally near.

        Raises:
            ValueError: If the cost is no number.
        """
        if math.isnan(cost):
            raise ValueError("cost must be a number, got nan.")
        if math.isinf(cost):
            return len(self) - 1 if cost > 0 else 0
        return int(np.abs(self.cost - cost).argmin())

    def named(self, plan_of: PlanOf) -> Self:
        """A copy that makes plans: plan_of takes the option of each layer, [L]."""
        return replace(self, plan_of=plan_of)

    def plan(self, i: int) -> BitPlan:
        """The plan at point i.

        Raises:
            ValueError: If the frontier was not `named`.
        """
        if self.plan_of is None:
            raise ValueError(
                "frontier must know its layers to make a plan, got bare arrays: "
                "call named(plan_of) first, or take choices(i)."
            )
        return self.plan_of(self.choices(i))

    def within(self, budget: float) -> BitPlan:
        """The plan of least Ω whose cost is not above the budget, which it remembers.

        An infinite budget is remembered as the dearest plan's cost, so that the plan can be saved.

        Raises:
            ValueError: If the budget lies below the cheapest plan, or the frontier was not `named`.
        """
        plan = self.plan(self.index_within(budget))
        finite = float(self.cost[-1] if math.isinf(budget) else budget)
        return replace(plan, made_by={**plan.made_by, "budget": finite})


@dataclass(frozen=True, eq=False)
class Overlay:
    """Plans that another rule would choose, to draw over the frontier."""

    name: str  # uniform, monotone or greedy
    cost: NDArray[np.float64]  # [P]
    omega: NDArray[np.float64]  # [P]
    choices: NDArray[np.uint8]  # [P, L], the option of each layer

    def __len__(self) -> int:
        return len(self.cost)


def pareto_frontier(
    costs: ArrayLike,
    omegas: ArrayLike,
    *,
    locked: Mapping[int, int] | None = None,
    tied: Iterable[Iterable[int]] = (),
    tolerance: float = 0.0,
) -> Frontier:
    """Find every plan that no other beats in both cost and Ω.

    With a tolerance, costs are rounded up on a grid of step tolerance · range / L before plans are
    compared, range being the dearest plan's cost less the cheapest's. A plan's rounded cost is then
    less than tolerance · range too high, so for any plan cheaper than C - tolerance · range a
    returned one has a cost of at most C and no larger Ω. Returned costs and Ω are true sums.
    Costs or Ω that differ by a part in 10^13 count as equal.

    Args:
        costs: [L, B], cost of each option of each layer; at least 0.
        omegas: [L, B], Ω of each option of each layer; at least 0.
        locked: Layer index to the option it must have.
        tied: Groups of layer indices that must share their option; overlapping groups are one.
        tolerance: Share of the cost range by which plans may be passed over; 0 is exact.

    Raises:
        ValueError: If an argument is not as above, locks and ties contradict, or the frontier
            grows beyond memory (costs on no common grid) and needs a tolerance.

    Example:
        >>> frontier = pareto_frontier([[1, 2], [10, 20]], [[8, 1], [5, 2]])
        >>> frontier.cost, frontier.omega
        (array([11., 12., 22.]), array([13.,  6.,  3.]))
        >>> frontier.choices(frontier.index_within(15))
        array([1, 0])
    """
    problem = _Problem.of(costs, omegas, locked, tied)
    grid = problem.on_grid(tolerance)
    options = [problem.useful(group, grid) for group in range(len(grid))]
    places = cross(
        [grid[group, own] for group, own in enumerate(options)],
        [problem.omegas[group, own] for group, own in enumerate(options)],
        tolerance,
    )
    chosen = np.array([own[at] for own, at in zip(options, places, strict=True)], np.uint8)
    return Frontier(*problem.plans(chosen, thinned=True))


def uniform_points(
    costs: ArrayLike,
    omegas: ArrayLike,
    *,
    locked: Mapping[int, int] | None = None,
    tied: Iterable[Iterable[int]] = (),
) -> Overlay:
    """The plans that give every layer the same option; point j is option j.

    Args:
        costs: [L, B], as for `pareto_frontier`.
        omegas: [L, B].
        locked: These layers, and those tied to them, keep their option.
        tied: Only carries locks over: uniform plans never part what is tied.

    Raises:
        ValueError: If an argument is not as above.
    """
    problem = _Problem.of(costs, omegas, locked, tied)
    chosen = np.tile(np.arange(problem.costs.shape[1], dtype=np.uint8), (len(problem.costs), 1))
    for group, option in problem.locked.items():
        chosen[group] = option
    return Overlay("uniform", *problem.plans(chosen))


def monotone_frontier(
    costs: ArrayLike,
    omegas: ArrayLike,
    traces: ArrayLike,
    *,
    locked: Mapping[int, int] | None = None,
    tied: Iterable[Iterable[int]] = (),
) -> Overlay:
    """The frontier of the paper's rule: bits never fewer where the trace is larger.

    In order of falling trace the options never rise (HAWQ-V2, section 3), which leaves
    C(L + B - 1, B - 1) of the B^L plans. Solved exactly: the state of the dynamic programme is the
    option of the last layer, with a frontier for each.

    Layers of equal trace share their option, so that bits are a function of the trace. Tied layers
    are one block with the mean of their traces, as the paper gives each block of Inception-V3 one
    (figure 2). Locked layers keep their option and the rule does not bind the others to them: one
    small trace locked at 8 bits would leave every larger one 8 bits.

    Args:
        costs: [L, B], as for `pareto_frontier`; options in order of rising bits.
        omegas: [L, B].
        traces: [L], average trace of each layer.
        locked: Layer index to the option it must have.
        tied: Groups of layer indices that must share their option.

    Raises:
        ValueError: If an argument is not as above.
    """
    problem = _Problem.of(costs, omegas, locked, tied)
    ranks = problem.ranks(traces)
    width = problem.costs.shape[1]
    start = _Counted(np.zeros(1), np.zeros(1), np.zeros((1, width), np.uint16))
    allowed = [start] * width  # [option]: the frontier of plans whose options are all at least it
    for groups in ranks:
        rank_costs = problem.costs[groups].sum(axis=0)
        rank_omegas = problem.omegas[groups].sum(axis=0)
        ended: _Counted | None = None
        for option in reversed(range(width)):
            lowest = allowed[option].add(option, rank_costs[option], rank_omegas[option])
            ended = lowest if ended is None else ended.merge(lowest)
            allowed[option] = ended

    chosen = np.empty((len(problem.costs), len(allowed[0].cost)), np.uint8)
    for group, option in problem.locked.items():
        chosen[group] = option
    ends = allowed[0].counts[:, ::-1].cumsum(axis=1)  # [P, B]: ranks with this option or more
    for k, groups in enumerate(ranks):
        chosen[groups] = width - 1 - (ends <= k).sum(axis=1)
    return Overlay("monotone", *problem.plans(chosen, thinned=True))


def greedy_path(
    costs: ArrayLike,
    omegas: ArrayLike,
    *,
    locked: Mapping[int, int] | None = None,
    tied: Iterable[Iterable[int]] = (),
) -> Overlay:
    """Start with the cheapest options; take the step that lowers Ω most per cost, again and again.

    A step gives one layer (or tied group) any dearer option. Of equal steps the first layer's is
    taken, and of one layer's the smallest. The path ends when no step lowers Ω.

    Args:
        costs: [L, B], as for `pareto_frontier`.
        omegas: [L, B].
        locked: Layer index to the option it must have.
        tied: Groups of layer indices that must share their option.

    Raises:
        ValueError: If an argument is not as above.
    """
    problem = _Problem.of(costs, omegas, locked, tied)
    own = [problem.useful(group) for group in range(len(problem.costs))]
    at = [0] * len(own)  # place of each group among its useful options
    best = [problem.best_step(group, options) for group, options in enumerate(own)]
    path = [[options[0] for options in own]]
    while True:
        rates = [rate for rate, _ in best]
        group = rates.index(max(rates))
        if rates[group] == 0:
            break
        at[group] += best[group][1]
        best[group] = problem.best_step(group, own[group][at[group] :])
        path.append([options[i] for options, i in zip(own, at, strict=True)])
    return Overlay("greedy", *problem.plans(np.array(path, np.uint8).T))


@dataclass(frozen=True, eq=False)
class _Problem:
    """What there is to choose: groups of layers that share their option, some of it locked."""

    costs: NDArray[np.float64]  # [G, B], summed over the layers of each group
    omegas: NDArray[np.float64]  # [G, B]
    group_of: NDArray[np.intp]  # [L]; groups are numbered by their first layer
    locked: dict[int, int]  # group to option

    @classmethod
    def of(
        cls,
        costs: ArrayLike,
        omegas: ArrayLike,
        locked: Mapping[int, int] | None,
        tied: Iterable[Iterable[int]],
    ) -> Self:
        """Check the arguments and gather layers into groups."""
        costs, omegas = table(costs, "costs"), table(omegas, "omegas")
        if omegas.shape != costs.shape:
            raise ValueError(
                f"omegas must have the shape of costs {costs.shape}, got {omegas.shape}."
            )
        layers, options = costs.shape
        first = np.arange(layers)  # [L], the first layer of each layer's group
        for together in tied:
            if not isinstance(together, Iterable):
                raise ValueError(f"tied must be groups of layer indices, got {together!r}.")
            members = [_index(layer, layers, "tied") for layer in together]
            if members:
                same = np.isin(first, first[members])
                first[same] = first[same].min()
        group_of = np.unique(first, return_inverse=True)[1]
        groups = group_of.max() + 1
        cost, omega = np.zeros((groups, options)), np.zeros((groups, options))
        np.add.at(cost, group_of, costs)
        np.add.at(omega, group_of, omegas)

        fixed: dict[int, int] = {}
        by_layer: dict[int, int] = {}  # group to the locked layer that fixed it
        for key, value in (locked or {}).items():
            layer = _index(key, layers, "locked")
            option = _index(value, options, f"locked[{layer}]")
            group = int(group_of[layer])
            if fixed.setdefault(group, option) != option:
                raise ValueError(
                    f"locked must give tied layers one option, got {fixed[group]} for layer "
                    f"{by_layer[group]} and {option} for layer {layer}: untie them or lock alike."
                )
            by_layer.setdefault(group, layer)
        return cls(cost, omega, group_of, fixed)

    def allowed(self, group: int) -> NDArray[np.intp]:
        """Options that a group may have: one where it is locked."""
        if group in self.locked:
            return np.array([self.locked[group]])
        return np.arange(self.costs.shape[1])

    def useful(self, group: int, costs: NDArray[np.float64] | None = None) -> NDArray[np.intp]:
        """Allowed options that no other of the group beats, by rising cost and falling Ω."""
        allowed = self.allowed(group)
        costs = self.costs if costs is None else costs
        return allowed[undominated(costs[group, allowed], self.omegas[group, allowed])]

    def on_grid(self, tolerance: float) -> NDArray[np.float64]:
        """Costs above each group's cheapest, in steps of tolerance · range / L, rounded up."""
        check_tolerance(tolerance)
        allowed = [self.costs[group, self.allowed(group)] for group in range(len(self.costs))]
        spread = sum(float(np.ptp(own)) for own in allowed)
        step = tolerance * spread / len(self.group_of)
        if step * 2**50 <= spread:  # too fine to round by, or nothing to choose
            return self.costs
        cheapest = np.array([own.min() for own in allowed])
        return np.ceil((self.costs - cheapest[:, None]) / step)

    def best_step(self, group: int, options: NDArray[np.intp]) -> tuple[float, int]:
        """From the first of these options: the largest fall of Ω per cost, and how far to it."""
        if len(options) == 1:
            return 0.0, 0
        cost, omega = self.costs[group, options], self.omegas[group, options]
        rates = (omega[0] - omega[1:]) / (cost[1:] - cost[0])
        return float(rates.max()), int(rates.argmax()) + 1

    def ranks(self, traces: ArrayLike) -> list[list[int]]:
        """Groups free to choose by falling mean trace; those of equal trace are one rank."""
        values, count = np.asarray(traces, np.float64), len(self.group_of)
        if values.shape != (count,):
            raise ValueError(
                f"traces must be one number for each of {count} layers, got shape {values.shape}."
            )
        if len(bad := np.flatnonzero(~np.isfinite(values))):
            raise ValueError(f"traces must be finite, got {values[bad[0]]:g} for layer {bad[0]}.")
        ranks: dict[float, list[int]] = {}
        for group in range(len(self.costs)):
            if group not in self.locked:
                trace = float(values[self.group_of == group].mean())
                ranks.setdefault(trace, []).append(group)
        return [ranks[trace] for trace in sorted(ranks, reverse=True)]

    def plans(
        self, chosen: NDArray[np.uint8], *, thinned: bool = False
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
        """True cost [P], true Ω [P] and options [P, L] of choices [G, P], read-only."""
        cost, omega = np.zeros(chosen.shape[1]), np.zeros(chosen.shape[1])
        for group, own in enumerate(chosen):
            cost += self.costs[group][own]
            omega += self.omegas[group][own]
        options = np.ascontiguousarray(chosen[self.group_of].T)
        if thinned:
            kept = undominated(cost, omega)
            cost, omega, options = cost[kept], omega[kept], options[kept]
        for array in (cost, omega, options):
            array.flags.writeable = False
        return cost, omega, options


@dataclass(frozen=True, eq=False)
class _Counted:
    """A frontier of monotone plans, which are told by how many ranks have each option."""

    cost: NDArray[np.float64]  # [P]
    omega: NDArray[np.float64]  # [P]
    counts: NDArray[np.uint16]  # [P, B]

    def add(self, option: int, cost: float, omega: float) -> "_Counted":
        """One more rank with this option."""
        counts = self.counts.copy()
        counts[:, option] += 1
        return _Counted(self.cost + cost, self.omega + omega, counts)

    def merge(self, other: "_Counted") -> "_Counted":
        """The frontier of both."""
        cost = np.concatenate([self.cost, other.cost])
        omega = np.concatenate([self.omega, other.omega])
        kept = undominated(cost, omega)
        counts = np.concatenate([self.counts, other.counts])
        return _Counted(cost[kept], omega[kept], counts[kept])


def table(values: ArrayLike, argument: str) -> NDArray[np.float64]:
    """Numbers [layers, options], finite and at least 0.

    Raises:
        ValueError: If they are not.
    """
    try:
        found = np.array(values, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{argument} must be numbers [layers, options]: {error}.") from error
    if found.ndim != 2 or 0 in found.shape or found.shape[1] > MAX_OPTIONS:
        raise ValueError(
            f"{argument} must be numbers [layers, options] with at least one layer and 1 to "
            f"{MAX_OPTIONS} options, got shape {found.shape}."
        )
    bad = np.argwhere(~(np.isfinite(found) & (found >= 0)))
    if len(bad):
        layer, option = bad[0]
        raise ValueError(
            f"{argument} must be finite and at least 0, got {found[layer, option]:g} "
            f"for option {option} of layer {layer}."
        )
    return found


def check_tolerance(tolerance: float) -> None:
    """See that a tolerance is a share.

    Raises:
        ValueError: If it is none.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(
            f"tolerance must be a share of the cost range, at least 0 and below 1, got {tolerance}."
        )


def _index(value: Any, count: int, argument: str) -> int:
    if not isinstance(value, int | np.integer) or not 0 <= value < count:
        raise ValueError(f"{argument} must be an index in 0…{count - 1}, got {value!r}.")
    return int(value)


def _readable(value: float) -> str:
    """All its digits, so that what is printed can be given back: 66,970.5."""
    value = float(value)
    return f"{int(value):,}" if value.is_integer() else f"{value:,}"
