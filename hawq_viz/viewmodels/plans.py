"""One plan and the frontier it lies on, in words and tables."""

import math
from dataclasses import dataclass
from functools import lru_cache

import pandas as pd

from engine.analysis import COSTS, Analysis
from engine.choices import OF_ACTIVATIONS, OF_WEIGHTS
from engine.latency import FLOAT_BITS, LatencyTable
from engine.results import BitPlan
from hawq_viz.figures.costs import KIB, NAMES, cost_of, cost_text, in_a_row, plan_text, uniform_text
from hawq_viz.viewmodels.studies import SHORT, Study, uniform_plans
from hawq_viz.viewmodels.uploads import load_upload

TABLE_ROWS = 41  # of a frontier that may hold ten thousands of plans


@dataclass(frozen=True)
class Summary:
    """One plan in the words and numbers of its page."""

    plan: BitPlan
    rival: BitPlan  # uniform, the cheapest that is not cheaper
    cost: str  # by which it is the rival
    float_bytes: float

    @property
    def size(self) -> str:
        """Weight size for people."""
        return size_text(self.plan.size_bytes)

    @property
    def compression(self) -> str:
        """How many times smaller than float32."""
        return f"{self.float_bytes / self.plan.size_bytes:.2f}×"

    @property
    def average_bits(self) -> str:
        """Bits a weight."""
        return f"{FLOAT_BITS * self.plan.size_bytes / self.float_bytes:.2f} bits a weight"

    @property
    def further(self) -> dict[str, tuple[str, str]]:
        """The plan's other costs, where it rounds activations: short name → text, explanation."""
        if not self.plan.activation_bits:
            return {}
        return {
            SHORT[cost]: (cost_text(cost, self.plan.costs[cost]), EXPLAINED[cost])
            for cost in COSTS
            if cost != "size" and cost in self.plan.costs
        }

    @property
    def omega(self) -> str:
        """Ω for people."""
        return short(self.plan.omega, 3)

    @property
    def loss_increase(self) -> str:
        """What ½Ω predicts."""
        return short(self.plan.omega / 2, 2)

    @property
    def omega_ratio(self) -> float:
        """Ω of uniform bits over this plan's; above 1 the plan is better."""
        return self.rival.omega / self.plan.omega if self.plan.omega else math.inf

    @property
    def ratio(self) -> str:
        """The same for people."""
        return f"{self.omega_ratio:.2f}×" if self.omega_ratio < 100 else f"{self.omega_ratio:,.0f}×"

    @property
    def rival_text(self) -> str:
        """The bits of the uniform plan."""
        return uniform_text(self.rival)

    @property
    def rival_name(self) -> str:
        """The uniform plan, named by its bits."""
        return f"Uniform {self.rival_text}"

    @property
    def rival_size(self) -> str:
        """What the uniform plan costs."""
        rival, own = cost_of(self.rival, self.cost), cost_of(self.plan, self.cost)
        if abs(rival - own) < max(1e-6 * own, self.cost == "size"):
            return "same size" if self.cost == "size" else "same cost"
        return cost_text(self.cost, rival)


EXPLAINED = {
    "activation_memory": "All inputs of layers for one image, at their bits.",
    "activation_peak": "The inputs of layers that are held at once for one image, at most.",
    "bops": "Bit operations of one image: Σ multiply-accumulates · bits of the weight · bits of "
    "the input.",
    "latency": "Σ over the layers of the times in the table.",
}


def summarize(
    analysis: Analysis,
    plan: BitPlan,
    cost: str | None = None,
    latency: LatencyTable | None = None,
) -> Summary:
    """Compare a plan with float32 and with the cheapest uniform plan that is not cheaper.

    Args:
        analysis: It was made from.
        plan: Any of this network.
        cost: By which to compare; by default size, or bit operations where both sides are rounded.
        latency: Times of the layers, for the cost of that name.
    """
    known = [cost] if cost is not None and _knows(plan, cost) else []
    for cost in (*known, _usual_cost(plan)):  # a latency table may lack times of uniform plans
        fixed = plan.activation_bits if cost in OF_WEIGHTS else plan.weight_bits
        times = latency if cost == "latency" else None
        if rivals := uniform_plans(analysis, cost, fixed, times):
            break
    enough = (x for x in rivals if cost_of(x, cost) >= cost_of(plan, cost) * (1 - 1e-9) - 1e-9)
    rival = next(enough, rivals[-1])
    return Summary(plan, rival, cost, analysis.parameters * FLOAT_BITS / 8)


def _knows(plan: BitPlan, cost: str) -> bool:
    """Whether a plan has bits for everything that a cost chooses, and the cost itself."""
    weights = bool(plan.weight_bits) or cost not in OF_WEIGHTS
    inputs = bool(plan.activation_bits) or cost not in OF_ACTIVATIONS
    return weights and inputs and (cost == "size" or cost in plan.costs)


def _usual_cost(plan: BitPlan) -> str:
    if not plan.activation_bits:
        return "size"
    return "bops" if plan.weight_bits else "activation_memory"


def short(value: float, digits: int) -> str:
    """A value with so many digits; a power of ten only where it is tiny or huge."""
    whole = 10**digits <= abs(value) < 1e6
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def size_text(size_bytes: float) -> str:
    """Bytes in KiB, or in MiB from one on."""
    return cost_text("size", size_bytes)


@lru_cache(maxsize=8)
def frontier_table(study: Study) -> pd.DataFrame:
    """One row for each of some plans, evenly along the frontier, with both ends."""
    last = len(study.frontier) - 1
    rows = min(last + 1, TABLE_ROWS)
    points = sorted({round(i * last / max(1, rows - 1)) for i in range(rows)})
    plans = [study.frontier.plan(point) for point in points]
    return pd.DataFrame(
        {
            **_further_cost(plan, study.cost),
            "size (KiB)": plan.size_bytes / KIB,
            "Ω": plan.omega,
            "predicted loss increase": plan.omega / 2,
            "bits in forward order": plan_text(plan).removeprefix("bits "),
        }
        for plan in plans
    )


def _further_cost(plan: BitPlan, cost: str) -> dict[str, float]:
    if cost == "size":
        return {}
    unit, divisor = {"bytes": (" (KiB)", KIB), "ms": (" (ms)", 1)}.get(COSTS[cost], ("", 1))
    return {NAMES[cost] + unit: cost_of(plan, cost) / divisor}


def plan_table(analysis: Analysis, plan: BitPlan) -> pd.DataFrame:
    """One row a layer: the bits of its weights and of its input, and their shares of the costs.

    What stays float has 32 bits and no Ω. An activation that several layers read is counted once.
    """
    read = {name: x for x in analysis.activations for name in x.readers}
    rows = []
    for layer in analysis.layers:
        bits = plan.weight_bits.get(layer.name, FLOAT_BITS)
        row = {
            "layer": layer.name,
            "bits": bits,
            "weights": layer.parameters,
            "size (KiB)": layer.parameters * bits / 8 / KIB,
            "Ω": layer.omega.get(bits, 0.0),
        }
        if plan.activation_bits:
            x = read.get(layer.name)
            input_bits = plan.activation_bits.get(x.name, FLOAT_BITS) if x else FLOAT_BITS
            own = x is not None and x.name == layer.name
            row |= {
                "bits of its input": input_bits,
                "values of its input": x.elements if x and own else 0,
                "input (KiB)": x.elements * input_bits / 8 / KIB if x and own else 0.0,
                "Ω of its input": x.omega.get(input_bits, 0.0) if x and own else 0.0,
                "bit operations": layer.macs * bits * input_bits,
            }
        rows.append(row)
    return pd.DataFrame(rows)


def opened_plan(name: str, content: bytes, analysis: Analysis) -> BitPlan:
    """Read a plan that was saved elsewhere, and see that it is for this network.

    Raises:
        ValueError: If the file is none, or the plan is of another network or other bit widths.
    """
    plan = load_upload(name, content, BitPlan.load)
    if plan.workload != analysis.workload:
        raise ValueError(
            f"{name} must be a plan for {analysis.workload}, got one for {plan.workload}: "
            "choose that network in the sidebar first."
        )
    if not (plan.weight_bits or plan.activation_bits):
        raise ValueError(f"{name} must be a plan that rounds something, got one without bits.")
    return analysis.plan_of(plan.weight_bits, plan.activation_bits)


def is_own(plan: BitPlan) -> bool:
    """Whether a plan was opened or made by hand, not picked from the frontier."""
    return bool(plan.made_by.get("opened"))


def opened_says(study: Study, plan: BitPlan) -> str:
    """What a plan that was opened, or made by hand, gives away against the frontier."""
    if not study.comparable(plan):
        return "Your own plan: it rounds other things than the plans of this frontier."
    at = "at this size" if study.cost == "size" else "at this cost"
    loose = "" if study.held.kept_by(plan) else " It does not keep to what is held."
    ratio = study.above_frontier(plan)
    if ratio < 1.0005:
        return f"Your own plan: it lies on this analysis' frontier.{loose}"
    return f"Your own plan: you pay **{ratio:.2f}× Ω** {at}.{loose}"


def limits_says(study: Study, plan: BitPlan) -> str:
    """What limits cost at the cost of a plan; nothing where there are none."""
    if study.free is None:
        return ""
    ratio = study.price(plan)
    at = "at this size" if study.cost == "size" else "at this cost"
    costs = f"costs **{ratio:.2f}× Ω**" if ratio >= 1.005 else "costs next to nothing"
    return f"Held: {study.held.summary}. That {costs} {at}."


def plan_file(plan: BitPlan) -> bytes:
    """The bytes `BitPlan.save` would write, for a download."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plan.json"
        plan.save(path)
        return path.read_bytes()


def frontier_alt(study: Study, plan: BitPlan) -> str:
    """The frontier chart in words."""
    cost, omega = study.frontier.cost, study.frontier.omega
    name, by = NAMES[study.cost].capitalize(), study.cost
    others = "Uniform bits, the paper's rule and greedy" if study.overlays else "Uniform bits"
    lie = "lie on or above it" if study.free is None else "are drawn too"
    held = f" It keeps to {study.held.summary}." if study.free else ""
    return (
        f"{'Size' if by == 'size' else name} against Ω, log axis: {len(study.frontier):,} plans "
        f"from {cost_text(by, cost[0])} with Ω {omega[0]:.2g} to {cost_text(by, cost[-1])} with "
        f"Ω {omega[-1]:.2g}; picked: {cost_text(by, cost_of(plan, by))} with Ω {plan.omega:.2g}. "
        f"{others} {lie}.{held} The slider above picks plans from the keyboard."
    )


def plan_alt(plan: BitPlan) -> str:
    """The bits of a plan in words."""
    if not plan.activation_bits:
        return f"Bits of each layer from input to output: {plan.summary}."
    return (
        "Bits of each layer's weights, from input to output: "
        f"{in_a_row(plan.weight_bits) or 'float'}; of what layers read: "
        f"{in_a_row(plan.activation_bits)}."
    )
