"""One plan and the frontier it lies on, in words and tables."""

import math
from dataclasses import dataclass
from functools import cached_property

import pandas as pd

from engine.analysis import Analysis
from engine.frontier import (
    Frontier,
    Overlay,
    greedy_path,
    monotone_frontier,
    uniform_points,
)
from engine.results import BitPlan

FLOAT_BITS = 32
KIB, MIB = 2**10, 2**20
TABLE_ROWS = 41  # of a frontier that may hold ten thousands of plans
SLIDER_STEPS = 400  # about, from the smallest plan to the largest


@dataclass(frozen=True, eq=False)
class Study:
    """One analysis and what follows from it, worked out once for all pages."""

    analysis: Analysis
    frontier: Frontier
    overlays: tuple[Overlay, ...]

    @classmethod
    def of(cls, analysis: Analysis) -> "Study":
        """Find the frontier over size, and what other rules would choose."""
        _, costs, omegas = analysis.options("size")
        traces = [layer.trace.for_omega for layer in analysis.layers]
        overlays = (
            uniform_points(costs, omegas),
            monotone_frontier(costs, omegas, traces),
            greedy_path(costs, omegas),
        )
        return cls(analysis, analysis.frontier("size"), overlays)

    @cached_property
    def suggested(self) -> int:
        """Where to start looking: the best plan as small as uniform 4 bits, or near it."""
        bits = min(self.analysis.bit_widths, key=lambda width: abs(width - 4))
        return self.frontier.index_within(self.analysis.uniform(bits).size_bytes)

    def point(self, size: float | None) -> int:
        """The frontier point of a size in bytes: the best not larger, or the suggested one."""
        if size is None:
            return self.suggested
        return self.frontier.index_within(max(size, float(self.frontier.cost[0])))

    def plan(self, size: float | None, bits: str = "") -> BitPlan:
        """The plan with these bits, a digit a layer; without any, that of the size's point."""
        layers, widths = self.analysis.names, self.analysis.bit_widths
        chosen = tuple(map(int, bits))
        if len(chosen) == len(layers) and set(chosen) <= set(widths):
            weight_bits = dict(zip(layers, chosen, strict=True))
            return self.analysis.plan_of(weight_bits, made_by={"opened": True})
        return self.frontier.plan(self.point(size))

    def above_frontier(self, plan: BitPlan) -> float:
        """Ω of a plan over the least there is at its size; 1 on the frontier."""
        best = self.frontier.omega[self.point(plan.size_bytes)]
        return float(plan.omega / best) if best else 1.0


@dataclass(frozen=True)
class Slider:
    """Ends, step and value of the size slider, in its unit."""

    low: float
    high: float
    step: float
    value: float
    unit: str
    bytes_per_unit: int
    format: str  # of its value, as printf takes it


def size_slider(study: Study, size: float | None) -> Slider:
    """A slider of sizes in bytes with round steps, from the smallest plan to the largest.

    Its value is the size asked for, not the plan's, so that no step is lost between two plans.
    """
    cost = study.frontier.cost
    size = float(cost[study.suggested]) if size is None else min(max(size, cost[0]), cost[-1])
    unit, divisor = ("MiB", MIB) if cost[-1] >= 4 * MIB else ("KiB", KIB)
    span = (cost[-1] - cost[0]) / divisor
    step = 10.0 ** math.floor(math.log10(span / SLIDER_STEPS)) if span else 0.1
    step *= next(m for m in (1, 2, 5, 10) if step * m * SLIDER_STEPS >= span) if span else 1
    low, high = (math.ceil(end / divisor / step - 1e-9) * step for end in (cost[0], cost[-1]))
    value = math.ceil(size / divisor / step - 1e-9) * step
    digits = max(0, -math.floor(math.log10(step)))
    low, high, value = (round(x, digits) for x in (low, max(high, low + step), value))
    return Slider(low, high, round(step, digits), value, unit, divisor, f"%.{digits}f")


@dataclass(frozen=True)
class Summary:
    """One plan in the words and numbers of its page."""

    plan: BitPlan
    rival: BitPlan  # uniform, the smallest that is not smaller
    rival_bits: int
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
    def rival_name(self) -> str:
        """The uniform plan, named by its bits."""
        return f"Uniform {self.rival_bits} bits"

    @property
    def rival_size(self) -> str:
        """The uniform plan's size."""
        same = abs(self.rival.size_bytes - self.plan.size_bytes) < 1
        return "same size" if same else size_text(self.rival.size_bytes)


def summarize(analysis: Analysis, plan: BitPlan) -> Summary:
    """Compare a plan with float32 and with the uniform plan of the nearest not smaller size."""
    widths = analysis.bit_widths
    uniform = [(bits, analysis.uniform(bits)) for bits in widths]
    bits, rival = next(
        (pair for pair in uniform if pair[1].size_bytes >= plan.size_bytes - 0.5), uniform[-1]
    )
    return Summary(plan, rival, bits, analysis.parameters * FLOAT_BITS / 8)


def short(value: float, digits: int) -> str:
    """A value with so many digits; a power of ten only where it is tiny or huge."""
    whole = 10**digits <= abs(value) < 1e6
    return f"{value:,.0f}" if whole else f"{value:.{digits}g}"


def size_text(size_bytes: float) -> str:
    """Bytes in KiB, or in MiB from one on."""
    return f"{size_bytes / MIB:,.2f} MiB" if size_bytes >= MIB else f"{size_bytes / KIB:,.1f} KiB"


def frontier_table(study: Study) -> pd.DataFrame:
    """One row for each of some plans, evenly along the frontier, with both ends."""
    last = len(study.frontier) - 1
    rows = min(last + 1, TABLE_ROWS)
    points = sorted({round(i * last / max(1, rows - 1)) for i in range(rows)})
    plans = [study.frontier.plan(point) for point in points]
    return pd.DataFrame(
        {
            "size (KiB)": plan.size_bytes / KIB,
            "Ω": plan.omega,
            "predicted loss increase": plan.omega / 2,
            "bits in forward order": plan.summary,
        }
        for plan in plans
    )


def plan_table(analysis: Analysis, plan: BitPlan) -> pd.DataFrame:
    """One row a layer: its bits, and its share of the plan's size and Ω."""
    return pd.DataFrame(
        {
            "layer": layer.name,
            "bits": plan.weight_bits[layer.name],
            "weights": layer.parameters,
            "size (KiB)": layer.parameters * plan.weight_bits[layer.name] / 8 / KIB,
            "Ω": layer.omega[plan.weight_bits[layer.name]],
        }
        for layer in analysis.layers
    )


def opened_plan(name: str, content: bytes, analysis: Analysis) -> BitPlan:
    """Read a plan that was saved elsewhere, and see that it is for this network.

    Raises:
        ValueError: If the file is none, or the plan is of another network or other bit widths.
    """
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Path(name).name
        path.write_bytes(content)
        try:
            plan = BitPlan.load(path)
        except ValueError as error:
            raise ValueError(str(error).replace(f"{folder}/", "")) from error
    if plan.workload != analysis.workload:
        raise ValueError(
            f"{name} must be a plan for {analysis.workload}, got one for {plan.workload}: "
            "choose that network in the sidebar first."
        )
    return analysis.plan_of(plan.weight_bits)


def opened_says(study: Study, plan: BitPlan) -> str:
    """What an opened plan gives away against the frontier."""
    ratio = study.above_frontier(plan)
    if ratio < 1.0005:
        return "Opened plan: it lies on this analysis' frontier."
    return f"Opened plan: {ratio:.2f}× the Ω of the best plan that is not larger."


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
    return (
        f"Size against Ω, log axis: {len(study.frontier):,} plans from {size_text(cost[0])} with "
        f"Ω {omega[0]:.2g} to {size_text(cost[-1])} with Ω {omega[-1]:.2g}; picked: "
        f"{size_text(plan.size_bytes)} with Ω {plan.omega:.2g}. Uniform bits, the paper's rule and "
        "greedy lie on or above it. The slider below picks plans from the keyboard."
    )


def plan_alt(plan: BitPlan) -> str:
    """The bits of a plan in words."""
    return f"Bits of each layer from input to output: {plan.summary}."
