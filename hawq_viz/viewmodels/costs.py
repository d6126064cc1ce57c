"""The choice of a cost, and of what it leaves as it is, in words."""

import csv
import io

from engine.analysis import Analysis
from engine.latency import COLUMNS, FLOAT_BITS
from engine.results import BitPlan
from hawq_viz.figures.costs import NAMES, cost_of
from hawq_viz.viewmodels.studies import PLANNED, SEVERAL, Study, other_side

CHOICES = {
    "size": "Cost: size of the weights",
    "bops": "Cost: BOPS",
    "activation_memory": "Cost: activation memory",
    "activation_peak": "Cost: activation peak",
    "latency": "Cost: latency (your table)",
    SEVERAL: "Several costs at once",
}
HEADINGS = {
    "size": "by size",
    "bops": "by BOPS",
    "activation_memory": "by memory",
    "activation_peak": "by peak",
    "latency": "by latency",
    SEVERAL: "within budgets",
}
TABLE_HELP = (
    f"A CSV with the columns {', '.join(COLUMNS)}: how long each layer takes at each pair of "
    "bits. It is kept while this server runs."
)


def heading(cost: str) -> str:
    """The page's title over a cost."""
    return f"Frontier: best plans {HEADINGS[cost]}"


def fixed_choices(analysis: Analysis, cost: str) -> dict[str, str]:
    """What may be said of the bits that a cost does not choose; nothing where it chooses all."""
    side = other_side(cost) if cost != SEVERAL else ""
    if not side:
        return {}
    name, own = side.capitalize(), "activation memory" if side == "inputs" else "size"
    uniform = {str(bits): f"{name}: {bits} bits" for bits in reversed(analysis.bit_widths)}
    return {"": f"{name}: float", PLANNED: f"{name}: as picked over {own}", **uniform}


def empty_table(analysis: Analysis) -> str:
    """A latency table of this network with every row it needs, and no times."""
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    read = {name for x in analysis.activations for name in x.readers}
    for layer in analysis.layers:
        for bits in analysis.bit_widths:
            for input_bits in analysis.bit_widths if layer.name in read else (FLOAT_BITS,):
                rows.writerow((layer.name, bits, input_bits, ""))
    return text.getvalue()


def slider_label(cost: str, unit: str) -> str:
    """What the budget slider sets."""
    name = "size" if cost == "size" else NAMES[cost]
    return f"{name.capitalize()} at most ({unit})" if unit else f"{name.capitalize()} at most"


def how_to_read(study: Study) -> str:
    """The line under the frontier."""
    than = "is no larger" if study.cost == "size" else "costs no more"
    says = (
        f"Each point is one choice of bits for all layers; none that {than} has a smaller Ω. "
        "**Click a point** to pick it. The gap up to the squares is what mixing bits gains. "
    )
    if study.overlays:
        says += (
            "The paper's rule never gives fewer bits where the trace is larger; greedy buys the "
            "most Ω per byte, step by step. "
        )
    if study.free is not None:
        says += "The thin line is the frontier without locks and ties. "
    if tolerance := study.tolerance:
        says += f"Costs are told apart to {tolerance:.1%} of their range."
    return says.strip()


def beyond(study: Study, plan: BitPlan, part: tuple[float, float] | None) -> str:
    """Where the shown plan is, if it is not in the part that is drawn."""
    if part is None or part[0] <= cost_of(plan, study.cost) <= part[1]:
        return ""
    return " This plan lies outside the part that is drawn."


def how_to_read_bits(plan: BitPlan) -> str:
    """The line under the bits of a plan."""
    if not plan.activation_bits:
        return "Bits of each layer, from the input (top) to the output."
    return (
        "Bits of each layer's weights, and of what it reads, from the input (top) to the output. "
        "Pale: an earlier layer reads the same."
    )
