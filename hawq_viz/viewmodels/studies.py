"""One analysis over one cost: its frontier, what other rules reach, and the plan that is picked."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any

from engine.analysis import COSTS, Analysis
from engine.choices import OF_ACTIVATIONS, OF_WEIGHTS, Choices, Limits
from engine.frontier import Frontier, Overlay, greedy_path, monotone_frontier
from engine.latency import LatencyTable
from engine.results import BitPlan
from hawq_viz.figures.costs import NAMES, cost_of, cost_text, tolerance_of, unit
from hawq_viz.viewmodels.limits import NOTHING, Held

BOTH = (4, 8)  # bits of weights and of inputs in the uniform plan where they differ
SEVERAL = "several"  # in place of a cost: budgets for several at once
COMPARED = "bops"  # the cost that plans for several costs are drawn over
PLANNED = "plan"  # bits of what the cost does not choose: those picked over their own cost


def chooses_both(cost: str) -> bool:
    """Whether a cost chooses the bits of weights and of activations."""
    return cost in OF_WEIGHTS and cost in OF_ACTIVATIONS


def other_side(cost: str) -> str:
    """What a cost does not choose: weights, inputs, or nothing."""
    if chooses_both(cost):
        return ""
    return "inputs" if cost in OF_WEIGHTS else "weights"


@dataclass(frozen=True, eq=False)
class Study:
    """One analysis over one cost and what follows, worked out once for all pages."""

    analysis: Analysis
    cost: str
    frontier: Frontier
    overlays: tuple[Overlay, ...]  # of other rules
    uniform: tuple[BitPlan, ...]  # by rising cost
    fixed: Mapping[str, int]  # bits of what the cost does not choose; none for float
    latency: LatencyTable | None = None
    held: Held = NOTHING  # what its plans keep to
    free: Frontier | None = None  # the frontier without that, where there is something to keep to
    refused: str = ""  # why what plans were to keep to cannot be kept, in a sentence

    @classmethod
    def of(
        cls,
        analysis: Analysis,
        cost: str = "size",
        *,
        fixed: Mapping[str, int] | None = None,
        latency: LatencyTable | None = None,
        held: Held = NOTHING,
    ) -> "Study":
        """Find the frontier over a cost, and what other rules would choose.

        Args:
            analysis: Its activations are only needed by costs other than size.
            cost: One of `engine.analysis.COSTS`.
            fixed: Bits of what the cost does not choose, by layer or activation; float if none.
            latency: Times of the layers, for the cost of that name and for budgets in it.
            held: What plans have to keep to.

        Raises:
            ValueError: If the analysis or the table lacks what the cost needs, or limits contradict
                each other.
        """
        fixed = {} if chooses_both(cost) else dict(fixed or {})
        times = latency if cost == "latency" else None
        held = held.on([cost])
        frontier = analysis.frontier(cost, latency=times, **_limits(cost, fixed, held))
        uniform = uniform_plans(analysis, cost, fixed, times)
        overlays = _overlays(analysis, fixed, held) if cost == "size" else ()
        return cls(analysis, cost, frontier, overlays, uniform, fixed, latency, held)

    def keeping(self, held: Held) -> "Study":
        """The same with plans that keep to limits; without, and why, where none can."""
        if not held.on([self.cost]):
            return self
        try:
            found = Study.of(
                self.analysis, self.cost, fixed=self.fixed, latency=self.latency, held=held
            )
        except ValueError as error:
            return replace(self, refused=str(error))
        return replace(found, free=self.frontier)

    @property
    def limits(self) -> Limits:
        """What the frontier's plans keep to, as the engine takes it."""
        return _limits(self.cost, self.fixed, self.held)

    @cached_property
    def _choices(self) -> Choices:
        return Choices.of(self.analysis, [self.cost], **self.limits)

    def bits(self, point: int) -> tuple[dict[str, int], dict[str, int]]:
        """Bits of weights and of inputs at a point of the frontier: quicker than its plan."""
        return self._choices.bits(self.frontier.choices(point))

    @cached_property
    def suggested(self) -> int:
        """Where to start looking: the best plan as cheap as uniform 4 bits, or near it."""
        if not self.uniform:
            return len(self.frontier) // 2
        near = min(self.uniform, key=lambda plan: sum(abs(b - 4) for b in _chosen(plan, self.cost)))
        return self.frontier.index_within(
            max(cost_of(near, self.cost), float(self.frontier.cost[0]))
        )

    def point(self, budget: float | None) -> int:
        """The frontier point of a budget: the best not dearer, or the suggested one."""
        if budget is None:
            return self.suggested
        return self.frontier.index_within(max(budget, float(self.frontier.cost[0])))

    def plan(self, budget: float | None) -> BitPlan:
        """The frontier's plan of a budget, or the suggested one."""
        return self.frontier.plan(self.point(budget))

    def best(self, plan: BitPlan) -> BitPlan:
        """The frontier's plan at the cost of another."""
        return self.frontier.plan(self.point(cost_of(plan, self.cost) * (1 + 1e-12)))

    def opened(self, bits: str, input_bits: str) -> BitPlan | None:
        """The plan with these bits, a digit a layer or activation; none if they fit no plan here.

        Raises:
            ValueError: If a latency table lacks them.
        """
        analysis = self.analysis
        weights = _digits(bits, analysis.names, analysis.bit_widths)
        inputs = _digits(input_bits, [x.name for x in analysis.activations], analysis.bit_widths)
        if weights is None or inputs is None or not (weights or inputs):
            return None
        times = self.latency if self.cost == "latency" else None
        return analysis.plan_of(weights, inputs, latency=times, made_by={"opened": True})

    def within(self, budgets: Mapping[str, float]) -> BitPlan:
        """The best plan within several budgets at once; without any, the suggested one.

        Raises:
            ValueError: If no plan meets them all.
        """
        if not budgets:
            return self.plan(None)
        found = _within(self, tuple(budgets.items()))
        if isinstance(found, ValueError):
            raise found
        return found

    @property
    def tolerance(self) -> float:
        """The share of the range of costs by which the frontier may have passed plans over."""
        return tolerance_of(self.frontier)

    def above_frontier(self, plan: BitPlan) -> float:
        """Ω of a plan over the least there is at its cost; 1 on the frontier."""
        best = self.least(plan)
        return plan.omega / best if best else 1.0

    def least(self, plan: BitPlan) -> float:
        """The least Ω at the cost of a plan: within the limits, if the plan keeps to them."""
        kept = self.free is None or self.held.kept_by(plan)
        return _least(self.frontier if kept else self.free, cost_of(plan, self.cost))

    def price(self, plan: BitPlan) -> float:
        """What limits cost at the cost of a plan: the least Ω over that without them."""
        cost = cost_of(plan, self.cost)
        free = _least(self.free or self.frontier, cost)
        return _least(self.frontier, cost) / free if free else 1.0

    def comparable(self, plan: BitPlan) -> bool:
        """Whether the frontier's plans keep the same things float as this one."""
        own = self.frontier.plan(0)
        return (bool(own.weight_bits), bool(own.activation_bits)) == (
            bool(plan.weight_bits),
            bool(plan.activation_bits),
        )

    def ends(self, cost: str) -> tuple[float, float] | None:
        """The least and the most of a cost with all bits to choose; unknown of a table of times."""
        if cost == "latency":
            return None
        widths = self.analysis.bit_widths
        low, high = (
            self.analysis.uniform(bits, bits).costs[cost] for bits in (widths[0], widths[-1])
        )
        return low, high


def _least(frontier: Frontier | None, cost: float) -> float:
    """The least Ω that a frontier has at a cost, or at its cheapest plan's."""
    assert frontier is not None
    at = frontier.index_within(max(cost * (1 + 1e-12), float(frontier.cost[0])))
    return float(frontier.omega[at])


def _limits(cost: str, fixed: Mapping[str, int], held: Held) -> Limits:
    """All that plans have to keep to, as the engine takes it."""
    given: Limits = held.limits([cost])
    if fixed and other_side(cost) == "inputs":
        given["activations"] = fixed
    elif fixed:
        given["weights"] = fixed
    return given


@lru_cache(maxsize=16)
def _within(study: Study, budgets: tuple[tuple[str, float], ...]) -> BitPlan | ValueError:
    """A plan, or why there is none: both take a while, and the page asks at every click."""
    times = study.latency if "latency" in dict(budgets) else None
    try:
        return study.analysis.within(
            dict(budgets), latency=times, **study.held.limits(dict(budgets))
        )
    except ValueError as error:
        return error


def _digits(digits: str, names: Sequence[str], widths: tuple[int, ...]) -> dict[str, int] | None:
    """Bits by name, of a digit a name, empty for float; none if they are of another network."""
    chosen = tuple(map(int, digits))
    if not chosen:
        return {}
    fits = len(chosen) == len(names) and set(chosen) <= set(widths)
    return dict(zip(names, chosen, strict=True)) if fits else None


def _chosen(plan: BitPlan, cost: str) -> list[int]:
    """Bits that a cost chooses in a uniform plan, the network's input left out."""
    weights = list(plan.weight_bits.values()) if cost in OF_WEIGHTS else []
    inputs = list(plan.activation_bits.values())[1:] if cost in OF_ACTIVATIONS else []
    return [*weights, *inputs]


def uniform_plans(
    analysis: Analysis,
    cost: str,
    fixed: Mapping[str, int],
    latency: LatencyTable | None = None,
) -> tuple[BitPlan, ...]:
    """Plans with the same bits everywhere; of those that a latency table has times for."""
    if latency is None:
        return _uniform(analysis, cost, tuple(fixed.items()))
    return _uniform_plans(analysis, cost, fixed, latency)


@lru_cache(maxsize=64)
def _uniform(
    analysis: Analysis, cost: str, fixed: tuple[tuple[str, int], ...]
) -> tuple[BitPlan, ...]:
    """Those of a cost that needs no table: they are asked for at every click."""
    return _uniform_plans(analysis, cost, dict(fixed), None)


def _uniform_plans(
    analysis: Analysis, cost: str, fixed: Mapping[str, int], latency: LatencyTable | None
) -> tuple[BitPlan, ...]:
    widths = analysis.bit_widths
    plans = []
    pairs = [(bits, bits) for bits in widths]
    if chooses_both(cost) and set(BOTH) <= set(widths):
        pairs.append(BOTH)
    for bits, input_bits in pairs:
        try:
            if chooses_both(cost):
                plan = analysis.uniform(bits, input_bits, latency=latency)
            elif cost in OF_WEIGHTS:
                weights = analysis.uniform(bits).weight_bits
                plan = analysis.plan_of(weights, fixed, made_by={"uniform": bits})
            else:
                inputs = analysis.uniform(None, bits).activation_bits
                plan = analysis.plan_of(fixed, inputs, made_by={"activation_bits": bits})
        except ValueError:  # a pair of bits that the latency table lacks
            continue
        plans.append(plan)
    return tuple(sorted(plans, key=lambda plan: cost_of(plan, cost)))


def _overlays(analysis: Analysis, fixed: Mapping[str, int], held: Held) -> tuple[Overlay, ...]:
    """The paper's rule and greedy over size, raised by Ω of activations that are the same in all.

    They do not lie under the frontier: activations that are fixed add the same to every plan. They
    keep to the same limits; there are none where a layer is locked to bits that no other may have.
    """
    widths, costs, omegas = analysis.options("size", held.widths or None)
    if not {bits for _, bits in held.locked} <= set(widths):
        return ()
    at = {name: place for place, name in enumerate(analysis.names)}
    limits: Any = {
        "locked": {at[name]: widths.index(bits) for name, bits in held.locked},
        "tied": [[at[name] for name in group] for group in held.tied],
    }
    traces = [layer.trace.for_omega for layer in analysis.layers]
    same = sum(x.omega[fixed[x.name]] for x in analysis.activations if x.name in fixed)
    found = (
        monotone_frontier(costs, omegas, traces, **limits),
        greedy_path(costs, omegas, **limits),
    )
    return tuple(replace(overlay, omega=overlay.omega + same) for overlay in found)


@dataclass(frozen=True)
class Field:
    """One budget among several, in its unit."""

    cost: str
    label: str
    per_unit: float  # worth of its unit in the cost's own
    value: float | None  # none: no budget
    help: str


def budget_fields(study: Study, budgets: Mapping[str, float]) -> list[Field]:
    """What can be asked of several costs at once, filled with what is."""
    fields = []
    for cost in COSTS:
        if cost == "latency" and study.latency is None:
            continue
        ends = study.ends(cost)
        chosen = unit(cost, ends[1] if ends else 1.0)
        span = f": {cost_text(cost, ends[0])} to {cost_text(cost, ends[1])}" if ends else ""
        asked = budgets.get(cost)
        fields.append(
            Field(
                cost,
                f"{SHORT[cost]} ({chosen.name})" if chosen.name else SHORT[cost],
                chosen.divisor,
                None if asked is None else asked / chosen.divisor,
                f"{NAMES[cost].capitalize()}{span}. Blank: no budget.",
            )
        )
    return fields


SHORT = {
    "size": "Size",
    "activation_memory": "Memory",
    "activation_peak": "Peak",
    "bops": "BOPS",
    "latency": "Latency",
}


def budgets_says(study: Study, plan: BitPlan, budgets: Mapping[str, float]) -> str:
    """What a plan within several budgets uses of each."""
    used = [
        f"{SHORT[cost]} {cost_text(cost, cost_of(plan, cost))} of {cost_text(cost, budget)}"
        for cost, budget in budgets.items()
    ]
    if not used:
        return "No budget yet: type some, and press the button."
    ratio = study.above_frontier(plan) if study.comparable(plan) else 1.0
    more = (
        f" {ratio:.2f}× the Ω that its {SHORT[study.cost]} alone would allow."
        if ratio > 1.0005
        else ""
    )
    return f"Best plan within all: {'; '.join(used)}.{more}"


def budgets_text(budgets: Mapping[str, float]) -> str:
    """Several budgets in their units."""
    return "; ".join(f"{SHORT[cost]} {cost_text(cost, most)}" for cost, most in budgets.items())


def nearest(error: ValueError) -> dict[str, float]:
    """The nearest budgets that can be met, of the engine's refusal; none if it names none."""
    return dict(getattr(error, "nearest", {}))
