"""What a run can be taken away as, and how to make it again, in words."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pandas as pd

from engine.results import BitPlan, OnnxCheck, OnnxExport, PackedFile
from hawq_viz.figures.costs import NAMES, cost_of, cost_text
from hawq_viz.viewmodels.plans import size_text
from hawq_viz.viewmodels.studies import budgets_text

if TYPE_CHECKING:
    from engine.jobs import RunView

KINDS = {  # of bytes in a packed file: what they are for
    "packed weights": "Σ ⌈n · b / 8⌉ over the layers: each ends with a whole byte",
    "scales": "4 bytes for each output channel and each rounded activation: the steps of grids",
    "zero points": "where the grids of asymmetric weights and of activations have their zero",
    "biases": "4 bytes for each output channel; what batch norms did is folded into them",
    "other tensors": "what the plan leaves as it is, and batch norms that cannot be folded",
    "plan": "the bits and how they were chosen, to make the network again",
    "layout": "names, shapes and places of tensors, and a checksum of each",
    "container": "the length of the header, and spaces that round it up",
}
READ_SIZES = (
    "The upper bar is what the plan promises, the lower one the file, part by part: what is beside "
    "the weights hardly depends on their bits."
)
PADDED = (
    "Weights of 1 to 3 bits are stored in 4-bit containers, for ONNX Runtime refuses 2-bit weights "
    "beside 8-bit activations; 5 to 7 bits in 8. The packed file has them at their size."
)
SATURATION = (
    "On an x86 processor without VNNI, set session.x64quantprecision to 1 in the session's "
    "configuration, as was done here: ONNX Runtime's sums of 8-bit products saturate otherwise, "
    "and accuracy is lost."
)
SATURATED = (
    "This network's weights are read in several places, and ONNX Runtime cannot keep its sums of "
    "8-bit products from saturating there: on an x86 processor without VNNI accuracy is lost."
)

# What a plan remembers that is no argument of the call that made it.
NO_ARGUMENTS = ("cost", "budget", "budgets", "latency", "analysis", "command")


def plan_again(plan: BitPlan) -> str:
    """Lines of Python that make a plan again, from the analysis that it was made from.

    They follow from what the plan remembers of its making; where it remembers nothing, the bits
    themselves are the lines.
    """
    if "separate" in plan.made_by:  # its second step names the weights that the first one chose
        plan = replace(plan, made_by=plan.made_by["separate"][1])
    made = plan.made_by
    if "budgets" in made:
        call = f"analysis.within({made['budgets']!r}{_arguments(made)})"
    elif _is_within(plan):
        cost = made["cost"]
        most = cost_of(plan, cost) * (1 + 1e-12)  # a sum may differ in its last digit
        budget = made.get("budget", most)
        call = f"analysis.frontier({cost!r}{_arguments(made)}).within({budget!r})"
    elif "uniform" in made and ("activation_bits" in made) == bool(plan.activation_bits):
        inputs = f", {made['activation_bits']}" if "activation_bits" in made else ""
        call = f"analysis.uniform({made['uniform']}{inputs})"
    else:
        call = f"analysis.plan_of({plan.weight_bits!r}, {plan.activation_bits!r})"
    lines = ["from engine import Analysis"]
    if "latency=" in call:
        lines.append("from engine.latency import LatencyTable")
    return "\n".join([*lines, "", 'analysis = Analysis.load("analysis.json")', f"plan = {call}"])


def _arguments(made: Mapping[str, Any]) -> str:
    """The limits of a plan as arguments; those that say nothing are left out."""
    given = {name: x for name, x in made.items() if name not in NO_ARGUMENTS and x not in ({}, [])}
    said = "".join(f", {name}={value!r}" for name, value in given.items())
    if "latency" in made:
        said += f", latency=LatencyTable.load({made['latency']!r})"
    return said


def chosen_because(plan: BitPlan) -> str:
    """By what rule the bits were chosen, in a sentence."""
    made = plan.made_by
    if "budgets" in made:
        return f"Its bits have the least Ω within all of {budgets_text(made['budgets'])}."
    if "separate" in made:
        return "Its bits were chosen for the weights by size first, then for their inputs."
    if _is_within(plan):
        cost = made["cost"]
        most = cost_text(cost, made.get("budget", cost_of(plan, cost)))
        return f"It has the least Ω of all plans of at most {most} ({NAMES[cost]})."
    if "uniform" in made:
        return "Its bits are the same everywhere."
    return "Its bits were given."


def _is_within(plan: BitPlan) -> bool:
    """Whether a plan is the best within a budget for one cost."""
    cost = plan.made_by.get("cost")
    return cost == "size" or cost in plan.costs


def exports_of(seen: Iterable["RunView"], run: "RunView") -> list["RunView"]:
    """Runs that have written, or will, what a run made, in their order."""
    return [one for one in seen if one.kind == "export" and one.options.get("of") == run.id]


def packed_of(run: "RunView") -> PackedFile | None:
    """What the packed file of an export holds, once it is written."""
    told = run.results.get("packed")
    return PackedFile.from_json(told["file"]) if told else None


def onnx_of(run: "RunView") -> tuple[OnnxExport | None, OnnxCheck | None]:
    """What the ONNX file of an export holds and how it runs, as far as that is known."""
    told, checked = run.results.get("onnx", {}), run.results.get("onnx_check")
    export = OnnxExport.from_json(told) if "layers" in told else None
    return export, OnnxCheck.from_json(checked) if checked else None


def packed_table(file: PackedFile) -> pd.DataFrame:
    """Where the bytes of a packed file go, from what was promised to the whole."""
    planned = {
        "what": "promised",
        "bytes": round(file.promised_bytes),
        "why": "the plan: Σ n · b / 8",
    }
    parts = [
        {"what": kind, "bytes": count, "why": KINDS[kind]}
        for kind, count in file.by_kind.items()
        if count
    ]
    whole = {"what": "the file", "bytes": file.file_bytes, "why": _more(file)}
    return pd.DataFrame([planned, *parts, whole])


def _more(file: PackedFile) -> str:
    more = file.file_bytes - file.promised_bytes
    return f"{more:,.0f} bytes, {more / file.promised_bytes:.1%}, more than promised"


def packed_says(file: PackedFile) -> str:
    """How a packed file compares with its plan, in a sentence."""
    promised, packed = round(file.promised_bytes), file.weight_bytes
    kept = "as promised" if packed == promised else f"{size_text(promised)} were promised"
    return (
        f"The packed weights take {size_text(packed)}, {kept}; the whole file "
        f"{size_text(file.file_bytes)}."
    )


def loaded_again(images: int, same: bool) -> str:
    """What trying a packed file has shown."""
    outcome = "are the same bit for bit" if same else "DIFFER"
    return f"loaded again, its outputs on {images} test images {outcome}"


def sizes_alt(file: PackedFile) -> str:
    """The sizes in words."""
    parts = (f"{kind} {count:,}" for kind, count in file.by_kind.items() if count)
    return f"Promised {file.promised_bytes:,.0f} bytes; in the file {', '.join(parts)}."


def onnx_table(export: OnnxExport, check: OnnxCheck | None) -> pd.DataFrame:
    """One row a layer: its bits, its container, and how ONNX Runtime runs it."""
    return pd.DataFrame(
        [
            {
                "layer": layer.name,
                "bits": layer.bits,
                "container": layer.container,
                "runs as": check.runs_as[layer.name] if check else "not known yet",
            }
            for layer in export.layers
        ]
    )


def onnx_says(check: OnnxCheck) -> str:
    """What ONNX Runtime makes of a file, in a sentence or two."""
    if check.onnx is None:
        return f"ONNX Runtime {check.runtime} does not run it: {check.refused}."
    ours, theirs = check.pytorch, check.onnx
    apart = 100 * (theirs.value - ours.value)
    return (
        f"In ONNX Runtime {check.runtime} it reaches {theirs.metric_name} {theirs.value:.2%} on "
        f"{theirs.samples:,} test images, {apart:+.2f} points against {ours.value:.2%} in PyTorch; "
        f"no output is more than {check.largest_difference:.2g} apart. "
        f"{check.integer_layers} of {len(check.runs_as)} layers run as integer kernels."
    )


def onnx_notes(export: OnnxExport, check: OnnxCheck | None) -> list[str]:
    """What to know of a file before it is used elsewhere."""
    notes = [PADDED] if any(layer.padded for layer in export.layers) else []
    if check is not None and check.integer_layers:
        notes.append(SATURATION if check.exact_sums else SATURATED)
    return notes


def verdict(run: "RunView") -> str:
    """What a finished export has brought, in a few sentences."""
    told, (_, check) = run.results["packed"], onnx_of(run)
    file = packed_of(run)
    assert file is not None
    tried = loaded_again(told["images"], told["same"])
    says = f"{packed_says(file)} {tried[0].upper()}{tried[1:]}."
    refused = run.results.get("onnx", {}).get("refused")
    return says + (f" {onnx_says(check)}" if check else f" No ONNX file: {refused}")
