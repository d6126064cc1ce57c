"""Plans that are pinned, to be compared with the shown one."""

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase

import pandas as pd

from engine.analysis import COSTS, Analysis
from engine.latency import FLOAT_BITS
from engine.results import BitPlan
from hawq_viz.figures.costs import cost_of, cost_text
from hawq_viz.viewmodels.limits import digits
from hawq_viz.viewmodels.studies import SHORT, Study

SHOWN = "this plan"


@dataclass(frozen=True)
class Pin:
    """A pinned plan."""

    place: int  # among the pins of the view
    plan: BitPlan

    @property
    def letter(self) -> str:
        """What it is called."""
        return ascii_uppercase[self.place]


def pins_of(study: Study, pins: str) -> list[Pin]:
    """The plans that a view has pinned; what fits no plan of this network is passed over."""
    found = []
    for place, text in enumerate(pins.split(",")):
        bits, _, input_bits = text.partition(".")
        if (plan := _plan(study, bits, input_bits)) is not None:
            found.append(Pin(place, plan))
    return found


def _plan(study: Study, bits: str, input_bits: str) -> BitPlan | None:
    try:
        return study.opened(bits, input_bits)
    except ValueError:  # a latency table lacks its bits
        return None


def pinned(pins: str, plan: BitPlan) -> str:
    """The same pins and one more."""
    return ",".join(filter(None, [pins, _text(plan)]))


def unpinned(pins: str, place: int) -> str:
    """The same pins but one."""
    return ",".join(text for i, text in enumerate(pins.split(",")) if i != place)


def why_not(pins: str, plan: BitPlan, most: int) -> str:
    """Why a plan cannot be pinned; nothing where it can be."""
    listed = [text for text in pins.split(",") if text]
    if _text(plan) in listed:
        return f"This plan is pinned as {ascii_uppercase[listed.index(_text(plan))]}"
    if len(listed) >= most:
        return f"{most} plans are pinned, which is all there is room for: unpin one below"
    return ""


def _text(plan: BitPlan) -> str:
    inputs = digits(plan.activation_bits)
    return digits(plan.weight_bits) + (f".{inputs}" if inputs else "")


def rows(plan: BitPlan, pins: Sequence[Pin]) -> dict[str, BitPlan]:
    """The shown plan and the pinned ones by what they are called."""
    return {SHOWN: plan} | {pin.letter: pin.plan for pin in pins}


def sums_table(plan: BitPlan, pins: Sequence[Pin]) -> pd.DataFrame:
    """One row a plan: what it costs, Ω, and how it differs from the shown one."""
    plans, found = rows(plan, pins), []
    known = [cost for cost in COSTS if any(cost in own.costs for own in plans.values())]
    for name, own in plans.items():
        costs = {
            SHORT[cost]: cost_text(cost, cost_of(own, cost)) if cost in own.costs else "–"
            for cost in known
        }
        found.append(
            {
                "plan": name,
                **costs,
                "Ω": own.omega,
                "½Ω": own.omega / 2,
                "× Ω of this plan": own.omega / plan.omega if plan.omega else 1.0,
                "bits that differ": differing(plan, own),
            }
        )
    return pd.DataFrame(found)


def differing(plan: BitPlan, other: BitPlan) -> int:
    """How many weights and inputs of layers have other bits; float ones have none."""
    pairs = [
        (plan.weight_bits, other.weight_bits),
        (plan.activation_bits, other.activation_bits),
    ]
    return sum(a.get(name) != b.get(name) for a, b in pairs for name in {**a, **b})


def bits_table(analysis: Analysis, plan: BitPlan, pins: Sequence[Pin]) -> pd.DataFrame:
    """One row for the weights of a layer, and for what enters it: its bits in each plan."""
    plans = rows(plan, pins)
    found = [
        {"layer": name} | {who: own.weight_bits.get(name, FLOAT_BITS) for who, own in plans.items()}
        for name in analysis.names
    ]
    if any(own.activation_bits for own in plans.values()):
        found += [
            {"layer": f"input of {x.name}"}
            | {who: own.activation_bits.get(x.name, FLOAT_BITS) for who, own in plans.items()}
            for x in analysis.activations
        ]
    return pd.DataFrame(found)


def comparison_alt(plan: BitPlan, pins: Sequence[Pin]) -> str:
    """The comparison in words."""
    told = [f"{pin.letter} differs in {differing(plan, pin.plan)} places" for pin in pins]
    return f"Bits of each layer in this plan and in those pinned: {'; '.join(told)}."


READ = (
    "A column a layer, from the input to the output; a row a plan. **Pale: the same bits as in "
    "this plan.**"
)
EMPTY = (
    "Nothing is pinned yet. :material/keep: beside “Quantize this plan” keeps the shown plan here, "
    "to compare others with it."
)
