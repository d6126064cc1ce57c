"""The activations of an analysis, in words and tables."""

import pandas as pd

from engine.analysis import ActivationSensitivity, Analysis
from hawq_viz.figures.histogram import Rounded
from hawq_viz.figures.theme import number
from hawq_viz.viewmodels.analyses import usual_bits

READ_CONVERGENCE = (
    "The estimate as image after image came in. The band is of the spread between mini-batches; "
    "the error told above is of the spread between images."
)


def without(analysis: Analysis) -> str:
    """What to do where an analysis has no activations."""
    return (
        f"This analysis of {analysis.workload} is of weights only, so inputs of layers stay float. "
        "“New analysis” measures them too."
    )


def exactness(analysis: Analysis) -> str:
    """Which activations' traces are not the Hessian's own, and which stay float; or nothing.

    That all are is said here only where it is not so of the weights, see `analyses.exactness`.
    """
    inexact = [x.name for x in analysis.activations if not x.trace.exact]
    says = ""
    if inexact:
        which = f"{len(inexact)} of {len(analysis.activations)} inputs"
        says = f"Gauss-Newton traces for {which} (the first: that of `{inexact[0]}`). "
    elif not analysis.exact:
        says = "The traces of all inputs are those of the Hessian itself. "
    if skipped := analysis.skipped_activations:
        named = "; ".join(f"that of `{name}`: {why}" for name, why in skipped.items())
        count = f"{len(skipped)} input" + ("s stay" if len(skipped) > 1 else " stays")
        says += f"{count} float: {named}."
    return says.strip()


def trace_table(analysis: Analysis) -> pd.DataFrame:
    """One row an activation: what it is, its trace and 95 % interval."""
    return pd.DataFrame(
        {
            "input of": x.name,
            "read by": ", ".join(x.readers),
            "shape": "×".join(map(str, x.shape)),
            "values an image": x.elements,
            "signed": x.signed,
            "trace": x.trace.mean,
            "95 % from": x.trace.interval[0],
            "95 % to": x.trace.interval[1],
            "standard error": x.trace.relative_sem,
            "images": x.trace.samples,
            "exact": x.trace.exact,
            "below its error": x.trace.floored,
        }
        for x in analysis.activations
    )


def omega_table(analysis: Analysis) -> pd.DataFrame:
    """One row for each activation at each bit width: Ω, with the first-order term beside it."""
    return pd.DataFrame(
        {
            "input of": x.name,
            "bits": bits,
            "Ω": x.omega[bits],
            "½Ω": x.omega[bits] / 2,
            "first-order term": x.first_order[bits],
            "± (standard error)": x.first_order_sem[bits],
            "‖Q(a) − a‖²": x.perturbation[bits],
            "± (its standard error)": x.perturbation_sem[bits],
        }
        for x in analysis.activations
        for bits in analysis.bit_widths
    )


def traces_alt(analysis: Analysis) -> str:
    """The trace chart in words."""
    ranked = sorted(analysis.activations, key=lambda x: x.trace.mean)
    return (
        f"Average Hessian trace of {len(ranked)} activations, each at the first layer that reads "
        f"it, with 95 % intervals, log axis: from {ranked[0].trace.mean:.2g} ({ranked[0].name}) "
        f"to {ranked[-1].trace.mean:.2g} ({ranked[-1].name})."
    )


def omegas_alt(analysis: Analysis) -> str:
    """The heatmap in words."""
    low, high = analysis.bit_widths[0], analysis.bit_widths[-1]
    worst = max(analysis.activations, key=lambda x: x.omega[low])
    return (
        f"Heatmap of Ω, activations against bit widths {low} to {high}, log colours; the largest "
        f"is the input of {worst.name} at {low} bits with {worst.omega[low]:.2g}."
    )


def chosen(
    analysis: Analysis, name: str, bits: int | None, planned: dict[str, int]
) -> tuple[ActivationSensitivity, int]:
    """The activation and bit width to look at closely.

    Args:
        analysis: With at least one activation.
        name: What is wanted; the most sensitive one at those bits if it is none.
        bits: What is wanted; those of the plan, else about `AT`, if it was not analyzed.
        planned: Activation bits of the picked plan.
    """
    near = usual_bits(analysis, None)
    largest = max(analysis.activations, key=lambda x: x.omega[near])
    activation = next((x for x in analysis.activations if x.name == name), largest)
    usual = planned.get(activation.name, near)
    return activation, bits if bits in analysis.bit_widths else usual


def activation_name(activation: ActivationSensitivity) -> str:
    """One activation in a list."""
    others = len(activation.readers) - 1
    shared = f" and {others} more" if others else ""
    image = ", the image" if activation.image else ""
    return f"{activation.name}{shared}{image} ({'×'.join(map(str, activation.shape))})"


def about(activation: ActivationSensitivity, rounded: Rounded) -> dict[str, str]:
    """One activation at some bits: its numbers in words."""
    bits = rounded.bits
    scale, zero_point = activation.grids[bits]
    first, error = activation.first_order[bits], activation.first_order_sem[bits]
    return {
        "Read by": ", ".join(activation.readers),
        "Step, zero point": f"{number(scale)}, {zero_point:g}"
        + ("" if activation.signed else " (unsigned)"),
        "Clipped": f"{rounded.clipped:.2%} of the values",
        "½Ω": number(activation.omega[bits] / 2),
        "First-order term": f"{number(first)} ± {number(error)}, not in ½Ω",
    }


def histogram_alt(activation: ActivationSensitivity, rounded: Rounded) -> str:
    """The histogram in words."""
    found, bits = activation.histogram, rounded.bits
    return (
        f"Histogram of the input of {activation.name}, log axis, from {found.low:.3g} to "
        f"{found.high:.3g}, with the {2**bits} levels of {bits} bits; "
        f"{rounded.clipped:.2%} of the values are clipped."
    )


def histogram_table(rounded: Rounded) -> pd.DataFrame:
    """One row a bin of the histogram: its ends, its share, and what its middle becomes."""
    return pd.DataFrame(
        {
            "from": rounded.edges[:-1],
            "to": rounded.edges[1:],
            f"share of {rounded.what}": rounded.shares,
            "becomes": [rounded.levels[level] for level in rounded.becomes],
        }
    )
