"""Costs of plans in words and units that people read."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import groupby

from engine.frontier import Frontier
from engine.results import BitPlan

KIB, MIB = 2**10, 2**20
NAMES = {
    "size": "size of the weights",
    "activation_memory": "memory of all activations",
    "activation_peak": "activation memory at once",
    "bops": "bit operations",
    "latency": "latency",
}


@dataclass(frozen=True)
class Unit:
    """What an axis or a slider counts in."""

    name: str
    divisor: float  # its worth in the cost's own unit


def unit(cost: str, largest: float) -> Unit:
    """The unit in which values up to the largest are read best."""
    if cost == "latency":
        return Unit("ms", 1.0)
    if cost == "bops":
        named = (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3))
        return next((Unit(*pair) for pair in named if largest >= pair[1]), Unit("", 1.0))
    return Unit("MiB", MIB) if largest >= 4 * MIB else Unit("KiB", KIB)


def cost_text(cost: str, value: float) -> str:
    """A cost with its unit: 132.3 KiB, 1.21 G, 3.20 ms."""
    if cost in ("latency", "bops"):
        chosen = unit(cost, value)
        return f"{value / chosen.divisor:,.2f} {chosen.name}".rstrip()
    return f"{value / MIB:,.2f} MiB" if value >= MIB else f"{value / KIB:,.1f} KiB"


def cost_of(plan: BitPlan, cost: str) -> float:
    """One cost of a plan; those of older files know only their size."""
    return plan.size_bytes if cost == "size" else plan.costs[cost]


def tolerance_of(frontier: Frontier) -> float:
    """The share of the range of costs by which a frontier may have passed plans over."""
    return float(frontier.plan(0).made_by.get("tolerance") or 0.0) if frontier.plan_of else 0.0


def in_a_row(bits: Mapping[str, int]) -> str:
    """Bits in forward order, run-length coded: `8 4×3 2`."""
    runs = ((width, len(list(run))) for width, run in groupby(bits.values()))
    return " ".join(f"{width}×{count}" if count > 1 else str(width) for width, count in runs)


def plan_text(plan: BitPlan) -> str:
    """All bits of a plan."""
    return bits_text(plan.weight_bits, plan.activation_bits)


def bits_text(weights: Mapping[str, int], inputs: Mapping[str, int]) -> str:
    """Bits of weights and of inputs, none for float."""
    if not inputs:
        return f"bits {in_a_row(weights) or 'float'}"
    return f"weights {in_a_row(weights) or 'float'}; inputs {in_a_row(inputs)}"


def uniform_text(plan: BitPlan) -> str:
    """A uniform plan by its bits: 4 bits, or W4A8; what is not uniform is left out.

    The first activation is the network's input, which may keep its own bits.
    """
    weights = set(plan.weight_bits.values())
    inputs = set(list(plan.activation_bits.values())[1:] or plan.activation_bits.values())
    if not inputs and len(weights) == 1:
        return f"{weights.pop()} bits"
    sides = (("W", weights), ("A", inputs))
    return "".join(f"{side}{bits.pop()}" for side, bits in sides if len(bits) == 1)
