"""Several budgets at once: a mixed-integer linear programme, solved by HiGHS through SciPy.

One 0/1 variable for each pair of options of each layer; one of each layer's is 1, layers that share
bits have equal sums over the pairs with those bits, and every budget is one row, or one for each
set of layers where the largest of such sums counts. Plans are checked in full afterwards, since
the solver allows a row to be missed by a millionth: one that does is excluded, and it goes on.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.crossing import undominated
from engine.frontier import Frontier, check_tolerance
from engine.joint import Pairs, pair_table

SCALE = 1e3  # of rows and Ω, so that the solver's millionths are parts in 10^9
LEAST_SHARE = 1e-6  # of the dearest choice of all layers, as a budget
ROUNDING = 1e-12  # by which sums in another order may differ, as a share
EPSILON = 1e-9  # share by which sums that are different differ
ROUGH = 1e-2  # gap of the first solution, which shows what Ω is large

Sets = Mapping[str, Sequence[Sequence[int]]]


class NotMet(ValueError):  # noqa: N818 — what a budget is, not what went wrong
    """No plan meets all of the budgets; the nearest that some plan meets are beside it."""

    def __init__(self, budgets: Mapping[str, float], nearest: Mapping[str, float]) -> None:
        self.nearest = dict(nearest)
        asked, near = (_listed(x) for x in (budgets, nearest))
        super().__init__(
            f"budgets must be such that some plan meets all of them, got {asked}: the nearest "
            f"that can be met are {near}."
        )


def within_budgets(
    costs: Mapping[str, ArrayLike],
    omegas: ArrayLike,
    budgets: Mapping[str, float],
    *,
    weight_groups: ArrayLike | None = None,
    activation_groups: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
    sets: Sets | None = None,
) -> NDArray[np.intp]:
    """Find the pairs of least Ω that keep to all budgets; options as for `joint_frontier`.

    Args:
        costs: [L, W, A] for each name of a budget.
        omegas: [L, W, A].
        budgets: The most that each cost may be, above 0.
        weight_groups: [L]; layers with one number have the same option of the weight.
        activation_groups: [L]; layers with one number have the same option of the activation.
        allowed: [L, W, A], the pairs that may be chosen; all if not given.
        sets: Name of a cost to sets of layers; the largest of their sums counts. The sum over all
            layers does for the others.

    Returns:
        The option of each layer, [L].

    Raises:
        NotMet: If no plan keeps to all budgets.
        ValueError: If an argument is not as above.
    """
    for name, budget in budgets.items():
        if not (math.isfinite(budget) and budget > 0):
            raise ValueError(f"budgets[{name!r}] must be a number above 0, got {budget}.")
    problem = _Problem.of(costs, omegas, budgets, weight_groups, activation_groups, allowed, sets)
    found = problem.best(budgets)
    if found is None:
        raise NotMet(budgets, problem.nearest(budgets))
    return found


def peak_frontier(
    costs: ArrayLike,
    omegas: ArrayLike,
    sets: Sequence[Sequence[int]],
    *,
    weight_groups: ArrayLike | None = None,
    activation_groups: ArrayLike | None = None,
    allowed: ArrayLike | None = None,
    tolerance: float = 0.0,
) -> Frontier:
    """Find the plans that none beats in Ω and the largest of several sums, from the dearest down.

    Each plan is the best whose cost lies below that of the one before, by a share of the cost range
    at least: for any plan cheaper than C - tolerance · range, a returned one has a cost of at most
    C and no larger Ω, as on every frontier with a tolerance.

    Args:
        costs: [L, W, A], what each option adds to the sets its layer is in.
        omegas: [L, W, A].
        sets: Sets of layers.
        weight_groups: As for `within_budgets`.
        activation_groups: As for `within_budgets`.
        allowed: As for `within_budgets`.
        tolerance: Share of the cost range by which plans may be passed over; 0 is exact.

    Raises:
        ValueError: If an argument is not as above.
    """
    check_tolerance(tolerance)
    problem = _Problem.of(
        {"": costs}, omegas, {"": 0}, weight_groups, activation_groups, allowed, {"": sets}
    )
    lowest, spread = problem.least(""), 0.0
    budgets: dict[str, float] = {}
    plans: list[NDArray[np.intp]] = []
    while (plan := problem.best(budgets)) is not None:
        plans.append(plan)
        peak = problem.total("", plan)
        spread = spread or peak - lowest
        if peak <= lowest * (1 + EPSILON):
            break
        budgets = {"": max(peak - max(tolerance * spread, EPSILON * peak), lowest)}
    choices = np.array(plans[::-1], np.uint8)
    cost = np.array([problem.total("", plan) for plan in choices])
    omega = problem.omegas[np.arange(choices.shape[1]), choices].sum(axis=1)
    kept = undominated(cost, omega)
    arrays = cost[kept], omega[kept], choices[kept]
    for array in arrays:
        array.flags.writeable = False
    return Frontier(*arrays)


@dataclass(frozen=True, eq=False)
class _Problem:
    """What there is to choose, and the sums that budgets bound."""

    pairs: Pairs
    costs: dict[str, NDArray[np.float64]]  # [L, W · A]
    omegas: NDArray[np.float64]  # [L, W · A]
    sets: dict[str, list[NDArray[np.intp]]]  # of layers; the largest of their sums counts

    @classmethod
    def of(
        cls,
        costs: Mapping[str, ArrayLike],
        omegas: ArrayLike,
        names: Iterable[str],
        weight_groups: ArrayLike | None,
        activation_groups: ArrayLike | None,
        allowed: ArrayLike | None,
        sets: Sets | None,
    ) -> "_Problem":
        """Check the arguments."""
        omega = pair_table(omegas, "omegas")
        layers = len(omega)
        tables = {}
        for name in names:
            if name not in costs:
                raise ValueError(
                    f"budgets must be of known costs ({', '.join(costs)}), got {name!r}."
                )
            table = pair_table(costs[name], f"costs[{name!r}]")
            if table.shape != omega.shape:
                raise ValueError(
                    f"costs[{name!r}] must have the shape of omegas {omega.shape}, "
                    f"got {table.shape}."
                )
            tables[name] = table.reshape(layers, -1)
        pairs = Pairs.of(omega.shape, weight_groups, activation_groups, allowed)
        members = {
            name: [np.unique(np.array(x, np.intp)) for x in (sets or {}).get(name, [range(layers)])]
            for name in names
        }
        return cls(pairs, tables, omega.reshape(layers, -1), members)

    def total(self, name: str, plan: NDArray[Any]) -> float:
        """A cost of a plan."""
        own = self.costs[name][np.arange(len(plan)), plan]
        return float(max(own[members].sum() for members in self.sets[name]))

    def best(self, budgets: Mapping[str, float]) -> NDArray[np.intp] | None:
        """The plan of least Ω within budgets, if there is one."""
        allowed = self._useful(budgets)
        if allowed is None:
            return None
        plan = self._least_omega(budgets, allowed, math.inf, ROUGH)
        before = math.inf
        while plan is not None and 0 < self._omega(plan) < before / SCALE:  # on a finer scale
            before = self._omega(plan)
            plan = self._least_omega(budgets, allowed, before, 0)
        return plan

    def least(self, name: str) -> float:
        """The least that a cost can be."""
        low = np.where(self.pairs.allowed, self.costs[name], np.inf).min(axis=1)
        bound = max(float(low[members].sum()) for members in self.sets[name])
        return self.total(name, self._nearest({name: bound})) if bound else 0.0

    def nearest(self, budgets: Mapping[str, float]) -> dict[str, float]:
        """Budgets that some plan meets, each at least as large as asked for.

        The largest share by which one is exceeded is the least possible, but for a hundredth of
        the sum of these shares, so that no budget is exceeded without need. A budget counts as
        `LEAST_SHARE` of the most that can be spent at least: what the solver sees must not lie too
        far apart.
        """
        dearest = {name: float(costs.max(axis=1).sum()) for name, costs in self.costs.items()}
        plan = self._nearest(
            {name: max(budget, LEAST_SHARE * dearest[name]) for name, budget in budgets.items()}
        )
        return {name: max(budget, self.total(name, plan)) for name, budget in budgets.items()}

    def _omega(self, plan: NDArray[np.intp]) -> float:
        """Ω of a plan above the sum of what each layer has at least."""
        least = np.where(self.pairs.allowed, self.omegas, np.inf).min(axis=1)
        return float((self.omegas[np.arange(len(plan)), plan] - least).sum())

    def _useful(self, budgets: Mapping[str, float]) -> NDArray[np.bool_] | None:
        """Allowed options [L, W · A] that fit budgets, beaten by none where nothing is shared."""
        allowed = self.pairs.allowed.copy()
        for name, budget in budgets.items():
            costs = self.costs[name]
            low = np.where(allowed, costs, np.inf).min(axis=1)
            for members in self.sets[name]:
                room = budget * (1 + ROUNDING) - low[members].sum()
                above = costs[members] - low[members, None]
                allowed[members] &= above <= max(room, ROUNDING * budget)
                if room < -ROUNDING * budget:
                    return None
        shared = np.bincount(self.pairs.points.ravel()) > 1
        for layer in np.flatnonzero(~shared[self.pairs.points].any(axis=1)):
            own = np.flatnonzero(allowed[layer])
            values = np.stack([x[layer, own] for x in (*self.costs.values(), self.omegas)])
            no_more = (values[:, :, None] <= values[:, None, :]).all(axis=0)  # [i, j]: i than j
            earlier = np.arange(len(own))[:, None] < np.arange(len(own))
            beaten = (no_more & (~no_more.T | earlier)).any(axis=0)
            allowed[layer, own[beaten]] = False
        return allowed

    def _least_omega(
        self,
        budgets: Mapping[str, float],
        allowed: NDArray[np.bool_],
        known: float,
        gap: float,
    ) -> NDArray[np.intp] | None:
        """The plan of least Ω, where one with `known` above the least of each layer is known."""
        least = np.where(self.pairs.allowed, self.omegas, np.inf).min(axis=1, keepdims=True)
        above = self.omegas - least
        if math.isfinite(known):
            allowed = allowed & (above <= known * (1 + EPSILON))
        programme = _Programme(self.pairs, allowed)
        largest = above[allowed].max()
        for name, budget in budgets.items():
            for members in self.sets[name]:
                programme.bound(self.costs[name], members, budget)
        objective = above * (SCALE / (known if 0 < known < math.inf else largest or 1))
        while True:
            plan = programme.solve(objective, gap)
            if plan is None or all(
                self.total(name, plan) <= budget * (1 + ROUNDING)
                for name, budget in budgets.items()
            ):
                return plan
            programme.exclude(plan)

    def _nearest(self, budgets: Mapping[str, float]) -> NDArray[np.intp]:
        """The plan that exceeds budgets by the least share."""
        programme = _Programme(self.pairs, self.pairs.allowed, len(budgets))
        for excess, (name, budget) in enumerate(budgets.items()):
            for members in self.sets[name]:
                programme.bound(self.costs[name], members, budget, excess)
        plan = programme.solve(np.zeros_like(self.omegas), 0)
        assert plan is not None
        return plan


class _Programme:
    """The rows that HiGHS takes: a variable for each allowed option, then the excess of budgets."""

    def __init__(self, pairs: Pairs, allowed: NDArray[np.bool_], budgets: int = 0) -> None:
        self.layer, self.option = np.nonzero(allowed)
        self.layers, self.budgets = len(allowed), budgets
        self.rows: list[NDArray[np.float64]] = []
        self.low: list[float] = []
        self.high: list[float] = []
        for layer in range(self.layers):
            self._add(self.layer == layer, 1, 1)
        for side, halves in enumerate(np.divmod(self.option, pairs.shape[2])):
            for point in np.unique(pairs.points[:, side]):
                members = np.flatnonzero(pairs.points[:, side] == point)
                for one, other in pairwise(members):
                    for half in np.unique(halves):
                        same = (halves == half).astype(np.float64)
                        here = (self.layer == one) * same - (self.layer == other) * same
                        self._add(here, 0, 0)

    def bound(
        self,
        costs: NDArray[np.float64],
        members: NDArray[np.intp],
        budget: float,
        excess: int | None = None,
    ) -> None:
        """Let these layers' costs [L, W · A] sum to the budget at most, or exceed it by a share."""
        own = costs[self.layer, self.option]
        low = np.full(self.layers, np.inf)
        np.minimum.at(low, self.layer, own)  # the less there is to add up, the finer the check
        row = np.where(np.isin(self.layer, members), own - low[self.layer], 0)
        room = budget * (1 + ROUNDING) - low[members].sum()
        unit = _unit(row)
        if unit and excess is None:  # half way between what sums can be, no rounding matters
            room = (math.floor(room / unit) + 0.5) * unit
        scale = SCALE / (budget if excess is not None or room <= 0 else room)
        shares = np.zeros(self.budgets + 1 if self.budgets else 0)
        if excess is not None:
            shares[excess] = -budget
        self._add(np.append(row, shares) * scale, -np.inf, room * scale)

    def exclude(self, plan: NDArray[np.intp]) -> None:
        """Let one plan not be chosen again."""
        self._add(plan[self.layer] == self.option, -np.inf, self.layers - 1)

    def solve(self, objective: NDArray[np.float64], gap: float) -> NDArray[np.intp] | None:
        """The plan of the least sum of the objective [L, W · A] and of excesses, if there is one.

        With excesses, a last variable is the largest of them.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp  # half a second, so only now
        from scipy.sparse import csr_array

        costs = objective[self.layer, self.option]
        if self.budgets:
            costs = np.append(costs, [SCALE / 100] * self.budgets + [SCALE])
            for budget in range(self.budgets):
                row = np.zeros(len(costs))
                row[len(self.layer) + budget], row[-1] = 1, -1
                self._add(row, -np.inf, 0)
        continuous = np.arange(len(costs)) >= len(self.layer)
        matrix = csr_array(np.array([np.pad(x, (0, len(costs) - len(x))) for x in self.rows]))
        found = milp(
            costs,
            integrality=~continuous,
            bounds=Bounds(0, np.where(continuous, np.inf, 1)),
            constraints=LinearConstraint(matrix, self.low, self.high),
            options={"mip_rel_gap": gap},
        )
        assert found.status in (0, 2), found.message  # solved, or infeasible
        if found.x is None:
            return None
        plan = np.zeros(self.layers, np.intp)
        taken = found.x[: len(self.layer)] > 0.5
        plan[self.layer[taken]] = self.option[taken]
        return plan

    def _add(self, row: NDArray[Any], low: float, high: float) -> None:
        self.rows.append(np.asarray(row, np.float64))
        self.low.append(low)
        self.high.append(high)


def _unit(values: NDArray[np.float64]) -> float:
    """The largest number that values are whole multiples of; 0 if they are not of 1/8."""
    eighths = values * 8
    if (eighths != np.rint(eighths)).any() or eighths.max(initial=0) >= 2**53:
        return 0.0
    return float(np.gcd.reduce(eighths.astype(np.int64))) / 8


def _listed(budgets: Mapping[str, float]) -> str:
    """Budgets with all their digits, so that what is printed can be given back."""
    texts = [f"{name}={_digits(budget)}" for name, budget in budgets.items()]
    return " and ".join(texts)


def _digits(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
