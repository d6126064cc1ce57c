"""What is known of each weight and each activation: the records that an analysis is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, Self

from engine.results import TraceEstimate


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
            }
        )


@dataclass(frozen=True)
class Histogram:
    """How often the values of an activation fall into bins of equal width."""

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
