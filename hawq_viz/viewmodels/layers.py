"""The layers of a network beside a plan: what is shown of each, and what was edited there."""

from collections.abc import Mapping, Sequence
from typing import Any

from engine.analysis import Analysis
from engine.choices import OF_ACTIVATIONS, OF_WEIGHTS, inputs
from engine.results import BitPlan
from hawq_viz.figures.theme import bits_colour, number
from hawq_viz.viewmodels import limits
from hawq_viz.viewmodels.limits import GROUPS, letter
from hawq_viz.viewmodels.studies import Study


def layer_table(
    study: Study, plan: BitPlan, locked: str, alocked: str, tied: str
) -> dict[str, Any]:
    """What the table of layers shows, as plain JSON.

    Args:
        study: Over the cost of the frontier.
        plan: The shown one.
        locked: Bits of layers that a view holds, by position.
        alocked: The same of activations.
        tied: Groups of positions of layers.
    """
    analysis, best = study.analysis, study.best(plan)
    held, inputs_held = limits.locks(locked), limits.locks(alocked)
    groups = limits.group_of(tied)
    reads, at = inputs(analysis), {x.name: i for i, x in enumerate(analysis.activations)}
    rows = []
    for place, layer in enumerate(analysis.layers):
        row: dict[str, Any] = {
            "name": layer.name,
            "weights": _short(layer.parameters),
            "trace": f"{layer.trace.mean:.2g}",
            "about": f"{layer.kind} {'×'.join(map(str, layer.shape))}, {layer.parameters:,} "
            f"weights, average trace {number(layer.trace.mean)} ± {number(layer.trace.sem)}",
            "bits": plan.weight_bits.get(layer.name),
            "best": best.weight_bits.get(layer.name),
            "lock": held.get(place),
            "tie": groups.get(place),
            "input": None,
        }
        read = reads.get(layer.name)
        if read is not None and read.name == layer.name:
            own = at[read.name]
            row["input"] = {
                "place": own,
                "bits": plan.activation_bits.get(read.name),
                "best": best.activation_bits.get(read.name),
                "lock": inputs_held.get(own),
            }
        elif read is not None:
            row["shared"] = {"bits": plan.activation_bits.get(read.name), "with": read.name}
        rows.append(row)
    used = max(groups.values(), default=-1) + 1
    return {
        "rows": rows,
        "widths": list(analysis.bit_widths),
        "groups": [letter(number) for number in range(min(used + 1, GROUPS))],
        "colours": {str(bits): bits_colour(bits) for bits in range(1, 9)},
        "weights": study.cost in OF_WEIGHTS,
        "inputs": study.cost in OF_ACTIVATIONS,
    }


def edited(
    analysis: Analysis, plan: BitPlan, edit: Sequence[Any], locked: str, alocked: str, tied: str
) -> dict[str, str]:
    """What an edit of the table changes in the view; nothing if it cannot be one.

    Args:
        analysis: Of the network.
        plan: The shown one, from which a plan by hand starts.
        edit: The field, the position, and what was chosen: bits, the number of a group, or none.
        locked: Bits of layers.
        alocked: Bits of activations.
        tied: Groups of layers.
    """
    match edit:
        case ["lock", int(place), (int() | None) as bits] if _fits(analysis, place, bits):
            return {"locked": limits.lock(locked, place, bits)}
        case ["input_lock", int(place), (int() | None) as bits] if _reads(analysis, place, bits):
            return {"alocked": limits.lock(alocked, place, bits)}
        case ["tie", int(place), (int() | None) as number] if _fits(analysis, place, None):
            if number is None or 0 <= number < GROUPS:
                return {"tied": limits.tie(tied, place, number)}
        case ["bits", int(place), int(bits)] if _fits(analysis, place, bits):
            weights = {**plan.weight_bits, analysis.names[place]: bits}
            return by_hand(weights, plan.activation_bits)
        case ["input_bits", int(place), int(bits)] if _reads(analysis, place, bits):
            chosen = {**plan.activation_bits, analysis.activations[place].name: bits}
            return by_hand(plan.weight_bits, chosen)
    return {}


def by_hand(weights: Mapping[str, int], activations: Mapping[str, int]) -> dict[str, str]:
    """A plan of these bits as the view holds one."""
    return {"bits": limits.digits(weights), "abits": limits.digits(activations)}


def _fits(analysis: Analysis, place: int, bits: int | None) -> bool:
    return 0 <= place < len(analysis.layers) and (bits is None or bits in analysis.bit_widths)


def _reads(analysis: Analysis, place: int, bits: int | None) -> bool:
    known = bits is None or bits in analysis.bit_widths
    return 0 <= place < len(analysis.activations) and known


def _short(count: int) -> str:
    """A count of weights in a few letters."""
    for divisor, name in ((1e6, "M"), (1e3, "k")):
        if count >= divisor:
            return f"{count / divisor:.3g} {name}"
    return str(count)
