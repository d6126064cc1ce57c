"""One layer or activation from close by, in words, formulas and tables."""

import math
from collections.abc import Mapping

import pandas as pd

from engine.analysis import ActivationSensitivity, Analysis, LayerSensitivity
from engine.results import BELOW_ERROR
from engine.sensitivities import omega_interval
from hawq_viz.figures.histogram import Rounded
from hawq_viz.figures.layer import Course
from hawq_viz.figures.theme import number
from hawq_viz.viewmodels.analyses import ESTIMATORS, usual_bits

WITHOUT_HISTOGRAMS = (
    "This analysis was made before histograms of weights were kept: a new analysis has them."
)
READ_CHANNELS = (
    "One point an output channel: where few stand far above the dashed mean, the layer's trace is "
    "theirs."
)
WITHOUT_ERRORS = (
    " This analysis was made before errors of channels were kept, so these have none: a new "
    "analysis has them."
)
READ_CONVERGENCE = (
    "The estimate as image after image came in; each was used once. Once the band lies between the "
    "dashed lines, the error asked for is reached."
)
READ_OMEGAS = (
    "Each bit less about quadruples Ω. The bars are the trace's error; **click a point** for its "
    "bits."
)
READ_WEIGHTS = (
    "Every weight goes to the nearest line; the step differs from channel to channel. More bits, "
    "finer steps; weights beyond the last line are clipped to it."
)
RANGES = {"mse": "least squared error", "min_max": "lowest and highest weight"}
PER_CHANNEL = "Σ over output channels of average trace × ‖Q(W) − W‖²"

Sensitivity = LayerSensitivity | ActivationSensitivity


def chosen(
    analysis: Analysis, name: str, bits: int | None, planned: Mapping[str, int]
) -> tuple[LayerSensitivity, int]:
    """The layer and bit width to look at closely.

    Args:
        analysis: With at least one layer.
        name: What is wanted; the most sensitive one at the usual bits if it is none.
        bits: What is wanted; those of the plan, else the usual ones, if it was not analyzed.
        planned: Weight bits of the picked plan.
    """
    near = usual_bits(analysis, None)
    largest = max(analysis.layers, key=lambda layer: layer.omega[near])
    layer = next((x for x in analysis.layers if x.name == name), largest)
    usual = planned.get(layer.name, near)
    return layer, bits if bits in analysis.bit_widths else usual


def formula(analysis: Analysis, one: Sensitivity, bits: int) -> str:
    r"""Ω with this one's numbers in it, as TeX.

    Of "channel" granularity the product stands for a sum, and its first factor for a mean that is
    weighted by the channels' ‖ΔW‖².
    """
    weights = isinstance(one, LayerSensitivity)
    moved, low_high = one.perturbation[bits], omega_interval(one, bits)
    what = r"\lVert Q(W)-W\rVert^2" if weights else r"\lVert Q(a)-a\rVert^2"
    error = "" if weights else rf" \pm {tex(one.perturbation_sem[bits])}"
    trace = rf"{tex(one.trace.mean)} \pm {tex(one.trace.sem)}"
    named = r"\text{average trace } \mathrm{Tr}(H)/n"
    if weights and analysis.granularity == "channel":
        trace = tex(one.omega[bits] / moved) if moved else "0"
        named = r"\text{average trace, weighted over channels}"
    elif one.trace.floored:
        trace, named = tex(one.trace.sem), r"\text{error of the trace, which lies below it}"
    known = rf"{tex(moved)}{error}"
    low, high = map(tex, low_high)
    return (
        rf"\Omega = \underbrace{{({trace})}}_{{{named}}} \cdot "
        rf"\underbrace{{({known})}}_{{{what}\text{{ at {bits} bit{'s' * (bits > 1)}}}}} = "
        rf"\underbrace{{{tex(one.omega[bits])}}}_{{95\,\%:\ {low}\ \dots\ {high}}}"
        rf"\qquad \tfrac12\Omega = \underbrace{{{tex(one.omega[bits] / 2)}}}"
        r"_{\text{predicted rise of the loss}}"
    )


def tex(value: float) -> str:
    """A value for people, as TeX: three digits, with a power of ten where it is far from one."""
    if not math.isfinite(value):
        return r"\text{unknown}" if math.isnan(value) else (r"\infty" if value > 0 else r"-\infty")
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return number(value).replace(",", r"{,}")
    mantissa, exponent = f"{value:.2e}".split("e")
    return rf"{mantissa}\times10^{{{int(exponent)}}}"


def sources(analysis: Analysis, one: Sensitivity, bits: int) -> dict[str, str]:
    """Where each number of the formula comes from."""
    weights, trace, made = isinstance(one, LayerSensitivity), one.trace, analysis.provenance
    samples = f"{trace.samples:,} mini-batches of " * weights
    low, high = trace.interval
    found = (
        f"{number(trace.mean)}, standard error {number(trace.sem)} "
        f"({_percent(trace.relative_sem)} of it), 95 % interval {number(low)} … {number(high)}; "
        + (f"{BELOW_ERROR}; " if trace.floored else "")
        + ("the Hessian's own" if trace.exact else "of the Gauss-Newton matrix, not the Hessian")
    )
    how = (
        f"{ESTIMATORS.get(analysis.estimator, analysis.estimator)}; {samples}"
        f"{analysis.images:,} images, each used once; {made.data}; seed {made.seed}"
    )
    per = analysis.quantizer
    if weights:
        moved = (
            f"{number(one.perturbation[bits])}, from all {one.parameters:,} weights "
            f"({one.kind} {_shape(one.shape)}, batch norms folded), so without an error; "
            f"{per.get('scheme', 'symmetric')} grid, one per "
            f"{per.get('weight_granularity', 'channel')}, range by "
            f"{RANGES.get(per.get('weight_range', 'mse'), per.get('weight_range'))}"
        )
    else:
        moved = (
            f"{number(one.perturbation[bits])} ± {number(one.perturbation_sem[bits])}, an image's "
            f"own, averaged over {one.images:,} images; {one.elements:,} values an image"
        )
    by_channel = weights and analysis.granularity == "channel"
    return {
        "Average trace Tr(H) / n": found,
        "Found by": how,
        "‖Q(W) − W‖²" if weights else "‖Q(a) − a‖²": moved,
        "Ω": (PER_CHANNEL if by_channel else "the product")
        + "; its interval is that of the trace, in relation as wide",
        "½Ω": "second-order term of the loss, as if rounding moved in a random direction",
        "Command": made.command,
    }


def _shape(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def _percent(share: float) -> str:
    return f"{share:.0%}" if math.isfinite(share) else "∞"


def weights_alt(layer: LayerSensitivity, rounded: Rounded) -> str:
    """The histogram of a layer's weights in words."""
    return (
        f"Histogram of the {layer.parameters:,} weights of {layer.name} in steps of their grids, "
        f"log axis, with the {2**rounded.bits} levels of {rounded.bits} bits; "
        f"{rounded.clipped:.2%} of the weights are clipped."
    )


def omegas_alt(one: Sensitivity, planned: int | None) -> str:
    """Ω against bits in words."""
    low, high = min(one.omega), max(one.omega)
    plan = f" The picked plan has {planned} bits." if planned else ""
    return (
        f"Ω of {one.name} against bits, log axis: {one.omega[low]:.2g} at {low} bits, "
        f"{one.omega[high]:.2g} at {high}.{plan}"
    )


def omegas_table(one: Sensitivity) -> pd.DataFrame:
    """One row a bit width: Ω with its interval."""
    return pd.DataFrame(
        {
            "bits": bits,
            "Ω": one.omega[bits],
            "95 % from": omega_interval(one, bits)[0],
            "95 % to": omega_interval(one, bits)[1],
            "½Ω": one.omega[bits] / 2,
            "‖ΔW‖²" if isinstance(one, LayerSensitivity) else "‖Δa‖²": one.perturbation[bits],
        }
        for bits in one.omega
    )


def channels_alt(layer: LayerSensitivity) -> str:
    """The channels' traces in words."""
    ranked = sorted(layer.channel_traces)
    without = sum(x <= 0 for x in ranked)
    says = f" {without} of them are not above zero and not drawn." if without else ""
    return (
        f"Average trace of the {len(ranked)} output channels of {layer.name}, the largest first, "
        f"log axis: from {ranked[-1]:.2g} down to {ranked[0]:.2g}.{says}"
    )


def channels_read(layer: LayerSensitivity) -> str:
    """How to read the channels' traces."""
    without = sum(x <= 0 for x in layer.channel_traces)
    drawn = f" {without} of {len(layer.channel_traces)} are not above zero." if without else ""
    return READ_CHANNELS + drawn + ("" if layer.channel_sems else WITHOUT_ERRORS)


def channels_table(layer: LayerSensitivity) -> pd.DataFrame:
    """One row a channel, in its own order: its trace and standard error, if known."""
    table = pd.DataFrame(
        {"channel": range(len(layer.channel_traces)), "trace": layer.channel_traces}
    )
    return table.assign(**{"standard error": layer.channel_sems}) if layer.channel_sems else table


def convergence_alt(name: str, found: Course) -> str:
    """The running mean in words."""
    if not len(found.mean):
        return f"No mini-batches of {name} were kept."
    return (
        f"Running mean of the trace of {name} against images used: {found.mean[-1]:.3g} after "
        f"{found.images[-1]:,} images, 95 % interval {found.low[-1]:.3g} to {found.high[-1]:.3g}; "
        f"at the error asked for it would be {found.target[0]:.3g} to {found.target[1]:.3g}."
    )


def convergence_table(found: Course) -> pd.DataFrame:
    """One row a mini-batch that is drawn: images so far, mean and interval."""
    return pd.DataFrame(
        {
            "images": found.images,
            "trace": found.mean,
            "95 % from": found.low,
            "95 % to": found.high,
        }
    )
