"""How an analysis was made and what it found, in words and tables."""

from collections.abc import Iterable
from statistics import median
from typing import TYPE_CHECKING, Any

import pandas as pd

from engine.analysis import Analysis
from hawq_viz.viewmodels.runs import duration, when

if TYPE_CHECKING:
    from engine.jobs import RunView

ESTIMATORS = {
    "gauss_newton": "output-space probes (one backward pass a mini-batch for all layers)",
    "hutchinson": "Hutchinson's estimator, layer by layer",
    "hutchinson_shared": "Hutchinson's estimator, one product for all layers",
}
NAMED = 3  # traces that are listed
AT = 4  # bits at which layers and activations are first looked at
SORTS = {"": "Layers in forward order", "trace": "by trace", "omega": "by Ω"}  # of the weights
STOPPED = {
    "target": "every layer had reached the error asked for",
    "images": "every image had been used once",
    "time": "the time allowed was up",
}
WHAT = (
    "Rounding moves every weight a little. A layer's **Hessian trace** says how fast the loss "
    "rises when its weights move: the higher it is, the more bits the layer should keep."
)
READ_TRACES = (  # how to read their chart
    "Higher means that a small change of one weight raises the loss more. Bars are 95 % "
    "intervals; layers whose bars overlap may change places."
)


def exactness(analysis: Analysis) -> str:
    """Whether the traces are the Hessian's own, in a sentence; of inputs only where all are."""
    inexact = [layer.name for layer in analysis.layers if not layer.trace.exact]
    inputs = [x.trace.exact for x in analysis.activations]
    if not inexact:
        both = " and in each layer's input" if inputs and all(inputs) else ""
        return (
            f"Exact for this network: it is piecewise linear in each layer's weights{both}, so "
            "what is estimated is the trace of the Hessian itself."
        )
    which = "every layer" if len(inexact) == len(analysis.layers) else f"{len(inexact)} layers"
    return (
        f"Not exact for {which} of this network (the first: `{inexact[0]}`): there the number is "
        "the trace of the Gauss-Newton matrix, not of the Hessian."
    )


def below_error(analysis: Analysis) -> str:
    """Which traces lie below their errors, in a sentence; empty if none do."""
    names = analysis.below_error
    if not names:
        return ""
    traces = "trace lies below its error" if len(names) == 1 else "traces lie below their errors"
    shown = ", ".join(f"`{name}`" for name in names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return (
        f"{len(names)} {traces} (triangles; {shown}{more}): Ω uses the error instead, so that "
        "noise makes nothing look free. More images would tell."
    )


def usual_bits(analysis: Analysis, bits: int | None) -> int:
    """Bits to look at where nothing else says which: those asked for, if analyzed, else about 4."""
    widths = analysis.bit_widths
    return bits if bits in widths else min(widths, key=lambda width: abs(width - AT))


def sort_name(analysis: Analysis, sort: str, bits: int | None) -> str:
    """What layers are sorted by, in words."""
    at = f" at {usual_bits(analysis, bits)} bits" if sort == "omega" else ""
    return SORTS[sort] + at


def ordered(analysis: Analysis, sort: str, bits: int | None) -> tuple[int, ...]:
    """The layers' places in forward order, sorted: the largest trace or Ω first.

    Args:
        analysis: With at least one layer.
        sort: One of `SORTS`.
        bits: At which Ω is compared; about 4 if they were not analyzed.
    """
    at = usual_bits(analysis, bits)
    keys = {
        "": lambda _: 0.0,
        "trace": lambda layer: -layer.trace.for_omega,
        "omega": lambda layer: -layer.omega[at],
    }
    return tuple(sorted(range(len(analysis.layers)), key=lambda i: keys[sort](analysis.layers[i])))


def settings(analysis: Analysis) -> dict[str, str]:
    """How the analysis was made: what, in words."""
    made = analysis.provenance
    return {
        "Estimator": ESTIMATORS.get(analysis.estimator, analysis.estimator),
        "Images seen": f"{analysis.images:,}, each once",
        "Mini-batches": f"{len(analysis.batch_sizes):,}",
        "Inputs of layers": _activations(analysis),
        "Error reached": (
            f"{analysis.median_relative_sem:.0%} in the median layer, "
            f"{analysis.worst_relative_sem:.0%} in the worst; asked for {analysis.relative_sem:.0%}"
        ),
        "Stopped because": STOPPED.get(analysis.stopped_because, analysis.stopped_because),
        "Data": made.data,
        "Seed": str(made.seed),
        "Quantizer": ", ".join(f"{key} {value}" for key, value in analysis.quantizer.items()),
        "Ω counted": f"per {analysis.granularity}",
        "Time taken": duration(analysis.seconds),
        "Made": made.created.replace("T", " "),
        "Command": made.command,
    }


def _activations(analysis: Analysis) -> str:
    found = analysis.activations
    if not found:
        return "not measured"
    rounded = ", ".join(sorted({f"{x.images:,}" for x in found}))
    errors = sorted(x.trace.relative_sem for x in found)
    return (
        f"{len(found)} tensors, each rounded on {rounded} images; error of the trace "
        f"{median(errors):.0%} in the median, {errors[-1]:.0%} in the worst"
    )


def trace_table(analysis: Analysis) -> pd.DataFrame:
    """One row a layer: what it is, its trace and 95 % interval."""
    return pd.DataFrame(
        {
            "layer": layer.name,
            "kind": layer.kind,
            "shape": "×".join(map(str, layer.shape)),
            "weights": layer.parameters,
            "trace": layer.trace.mean,
            "95 % from": layer.trace.interval[0],
            "95 % to": layer.trace.interval[1],
            "standard error": layer.trace.relative_sem,
            "mini-batches": layer.trace.samples,
            "exact": layer.trace.exact,
            "below its error": layer.trace.floored,
        }
        for layer in analysis.layers
    )


def omega_table(analysis: Analysis) -> pd.DataFrame:
    """One row a layer: Ω at each bit width."""
    return pd.DataFrame(
        {
            "layer": layer.name,
            **{f"{bits} bits": layer.omega[bits] for bits in analysis.bit_widths},
        }
        for layer in analysis.layers
    )


def traces_alt(analysis: Analysis, sort: str = "", bits: int | None = None) -> str:
    """The trace chart in words.

    Args:
        analysis: With at least one layer.
        sort: What the layers are sorted by, one of `SORTS`.
        bits: As for `ordered`.
    """
    order = f"sorted {sort_name(analysis, sort, bits)}" if sort else "in forward order"
    ranked = sorted(analysis.layers, key=lambda layer: layer.trace.mean)
    return (
        f"Average Hessian trace of {len(ranked)} layers {order} with 95 % intervals, log "
        f"axis: from {ranked[0].trace.mean:.2g} ({ranked[0].name}) "
        f"to {ranked[-1].trace.mean:.2g} ({ranked[-1].name})."
    )


def omegas_alt(analysis: Analysis) -> str:
    """The heatmap in words."""
    low, high = analysis.bit_widths[0], analysis.bit_widths[-1]
    worst = max(analysis.layers, key=lambda layer: layer.omega[low])
    return (
        f"Heatmap of Ω, layers against bit widths {low} to {high}, log colours. Ω falls with every "
        f"bit; the largest is {worst.name} at {low} bits with {worst.omega[low]:.2g}."
    )


def analyze_options(
    data: str,
    bit_widths: Iterable[int],
    error_percent: float,
    seed: int,
    activations: bool = True,
) -> dict[str, Any]:
    """What an analyze run is told.

    Raises:
        ValueError: If no bit width is chosen.
    """
    if not (widths := sorted(bit_widths)):
        raise ValueError("bit_widths must name at least one bit width, got none: choose some.")
    return {
        "data": data,
        "bit_widths": widths,
        "relative_sem": error_percent / 100,
        "seed": int(seed),
        "activations": activations,
    }


def is_analysis(run: "RunView", workload: str) -> bool:
    """Whether a run has finished an analysis of this workload."""
    return run.kind == "analyze" and run.workload == workload and run.state == "finished"


def analysis_name(run: "RunView") -> str:
    """An analyze run in a list: when, on what, to what error."""
    options = run.options
    data = "own" if run.workload_file else options.get("data", "sample")
    if "further" in options:
        return (
            f"{when(run)}, {data} data, further, to {100 * options.get('relative_sem', 0.05):.3g}%"
        )
    return (
        f"{when(run)}, {data} data, "
        f"{options.get('relative_sem', 0.1):.0%}, seed {options.get('seed', 0)}"
    )
