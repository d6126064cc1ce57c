"""What is known of each weight and each activation: the records that an analysis is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from engine.results import TraceEstimate

BINS_WITHIN, BINS_BEYOND = 64, 32  # of a layer's weights: over its grid, and past each end of it
BINS = BINS_WITHIN + 2 * BINS_BEYOND


@dataclass(frozen=True)
class LayerSensitivity:
    """One quantizable layer: what it is, how sensitive, and what each bit width does to it."""

    name: str
    kind: str  # the operator that reads the weight: conv2d, linear …
    shape: tuple[int, ...]
    parameters: int  # n, weights only
    macs: int  # multiply-accumulates an image
    trace: TraceEstimate
    perturbation: dict[int, float]  # bits → ‖Q(W) − W‖²
    omega: dict[int, float]  # bits → Ω
    channel_traces: tuple[float, ...]  # Tr(H_c) / n_c for each output channel
    channel_sems: tuple[float, ...] = ()  # their standard errors; none in files of before

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Take back what `dataclasses.asdict` gave."""
        return cls(
            **{
                **fields,
                "shape": tuple(fields["shape"]),
                "trace": TraceEstimate(**fields["trace"]),
                "perturbation": {int(b): float(x) for b, x in fields["perturbation"].items()},
                "omega": {int(b): float(x) for b, x in fields["omega"].items()},
                "channel_traces": tuple(fields["channel_traces"]),
                "channel_sems": tuple(fields.get("channel_sems", ())),
            }
        )


@dataclass(frozen=True)
class Histogram:
    """How often values fall into bins of equal width."""

    low: float  # where the first bin begins
    high: float  # where the last one ends
    counts: tuple[int, ...]


@dataclass(frozen=True)
class ActivationSensitivity:
    """One tensor that layers read: how sensitive the loss is to it, and what rounding does to it.

    Everything is of one image, averaged over images, with its standard error beside it.
    """

    name: str  # of the first layer that reads it
    readers: tuple[str, ...]  # layers that read it, forward order
    shape: tuple[int, ...]  # of one image; of the first tensor where layers read several in turn
    elements: int  # n, over all tensors that share its grid
    image: bool  # whether it is the network's input, which no layer has changed
    signed: bool  # whether it has negative values
    trace: TraceEstimate  # per squared activation; its samples are images
    images: int  # on which it was rounded
    perturbation: dict[int, float]  # bits → mean ‖Q(a) − a‖²
    perturbation_sem: dict[int, float]
    first_order: dict[int, float]  # bits → mean ⟨g, Q(a) − a⟩, g the loss's gradient; not in Ω
    first_order_sem: dict[int, float]
    omega: dict[int, float]  # bits → Ω
    grids: dict[int, tuple[float, float]]  # bits → scale, zero point; codes are 0 … 2^bits − 1
    histogram: Histogram

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Take back what `dataclasses.asdict` gave."""
        by_bits = ("perturbation", "perturbation_sem", "first_order", "first_order_sem", "omega")
        histogram = fields["histogram"]
        return cls(
            **{
                **fields,
                "readers": tuple(fields["readers"]),
                "shape": tuple(fields["shape"]),
                "trace": TraceEstimate(**fields["trace"]),
                **{key: {int(b): float(x) for b, x in fields[key].items()} for key in by_bits},
                "grids": {int(b): (float(s), float(z)) for b, (s, z) in fields["grids"].items()},
                "histogram": Histogram(
                    **{**histogram, "counts": tuple(map(int, histogram["counts"]))}
                ),
            }
        )


def omega_interval(one: LayerSensitivity | ActivationSensitivity, bits: int) -> tuple[float, float]:
    """The 95 % interval of Ω that follows from the trace's: in relation to Ω it is as wide.

    So it is where Ω is the trace times ‖ΔW‖², which is known. Where it is a sum over channels, or
    ‖Δa‖² is a mean over images, that has an error of its own, which is left out.
    """
    used = one.trace.for_omega
    factor = one.omega[bits] / used if used > 0 else one.perturbation[bits]
    low, high = one.trace.interval
    return low * factor, high * factor


@dataclass(frozen=True)
class Finding:
    """One thing to know of a network."""

    severity: str  # "problem": results are wrong or cannot be had; "note": what follows
    subject: str  # which layers or functions
    sentence: str  # what it is, what follows, what to do

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def levels_in_steps(scheme: str, bits: int) -> NDArray[np.float64]:
    """Where the levels of a grid stand, in its own steps, rising, [2^bits].

    Symmetric ones are told from zero: −2^(b−1) … 2^(b−1) − 1, and ±½ for one bit. Asymmetric ones
    are told from the lowest, as each channel has its zero elsewhere.
    """
    codes = np.arange(2.0**bits)
    if scheme != "symmetric":
        return codes
    return codes - (0.5 if bits == 1 else 2.0 ** (bits - 1))


def histogram_in_steps(counts: NDArray[np.integer[Any]], scheme: str, bits: int) -> Histogram:
    """The weights of a layer in steps of their channel's own grid.

    In these units all channels have one grid, the levels of `levels_in_steps`, and a weight more
    than half a step past its ends is clipped: no bin lies on both sides of that border.

    Args:
        counts: [BINS]; the first bin and the last also hold what lies farther out.
        scheme: Of the quantizer.
        bits: 1…8.
    """
    levels = levels_in_steps(scheme, bits)
    beyond = BINS_BEYOND * len(levels) / BINS_WITHIN
    low, high = float(levels[0] - 0.5 - beyond), float(levels[-1] + 0.5 + beyond)
    return Histogram(low, high, tuple(map(int, counts)))


def mean_from_sums(
    batches: ArrayLike, sums: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over images and its standard error, from sums over mini-batches.

    T̄ = Σ B_b T_b / N and sem² = m / (m − 1) · Σ (B_b / N)² (T_b − T̄)² over m mini-batches of B_b
    images, N in all, as `traces.weighted_mean` has them, with the square written out.

    Args:
        batches: m.
        sums: Σ B, Σ B², Σ B T, Σ B² T and Σ B² T², of shapes that go together.

    Returns:
        Both in that shape; the error is infinite for one mini-batch.
    """
    images, squared_images, first, second, squares = sums
    m = np.asarray(batches, float)
    mean = first / images
    spread = np.maximum(squares - 2 * mean * second + mean**2 * squared_images, 0)
    correction = m / np.maximum(m - 1, 1)
    return mean, np.where(m > 1, np.sqrt(correction * spread) / images, np.inf)


def running_mean(
    values: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What the mean and its standard error were after each mini-batch, [m] each.

    Args:
        values: [m], means over mini-batches in the order they were seen.
        sizes: [m], images in each.
    """
    b = sizes.astype(float)
    products = b, b**2, b * values, b**2 * values, (b * values) ** 2
    return mean_from_sums(np.arange(1, len(b) + 1), [np.cumsum(x) for x in products])


class Sensitivities(Protocol):
    """What plans are made from: the part of an analysis that says what bits do."""

    @property
    def layers(self) -> tuple[LayerSensitivity, ...]:
        """Quantizable layers in forward order."""

    @property
    def activations(self) -> tuple[ActivationSensitivity, ...]:
        """Tensors that they read, in forward order."""

    @property
    def alive(self) -> tuple[tuple[int, ...], ...]:
        """Activations held at once, by index."""

    @property
    def bit_widths(self) -> tuple[int, ...]:
        """Those analyzed, ascending."""
