"""What an analysis found: the sensitivities of one network, from which every plan is made."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from engine.frontier import Frontier, pareto_frontier
from engine.results import (
    BitPlan,
    FormatError,
    Provenance,
    TraceEstimate,
    check_bits,
    read_json,
    reading,
    write_json,
)

if TYPE_CHECKING:
    import pandas as pd

COSTS = {"size": "bytes"}  # what a frontier may be drawn against, and its unit


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


@dataclass(frozen=True, eq=False)
class Analysis:
    """Everything `analyze` learned about one network on one set of images."""

    workload: str
    layers: tuple[LayerSensitivity, ...]  # forward order
    bit_widths: tuple[int, ...]  # ascending
    loss: str
    estimator: str  # gauss_newton, hutchinson or hutchinson_shared
    granularity: str  # of Ω: layer, or channel (Σ over output channels)
    quantizer: dict[str, str]  # as arguments of `quantize`, which every plan hands on
    relative_sem: float  # the target asked for
    images: int  # each used once
    stopped_because: str  # target, images or time
    seconds: float
    batch_traces: NDArray[np.float64]  # [batches, layers], average traces a mini-batch
    batch_sizes: NDArray[np.int64]  # [batches]
    provenance: Provenance
    skipped: dict[str, str] = field(default_factory=dict)  # weight → why it keeps its precision
    activations: tuple[ActivationSensitivity, ...] = ()  # forward order; none if not asked for
    activation_batch_traces: NDArray[np.float64] = field(
        default_factory=lambda: np.zeros((0, 0))
    )  # [batches, activations]
    alive: tuple[tuple[int, ...], ...] = ()  # activations held at once, by index; largest sets only
    skipped_activations: dict[str, str] = field(default_factory=dict)  # layer → why its input
    # stays float

    @property
    def exact(self) -> bool:
        """Whether every layer's trace estimates the Hessian's own trace."""
        return all(layer.trace.exact for layer in self.layers)

    @property
    def names(self) -> tuple[str, ...]:
        """Layer names in forward order."""
        return tuple(layer.name for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Number of weights that may be quantized."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def median_relative_sem(self) -> float:
        """Relative standard error of the median layer."""
        return float(np.median([layer.trace.relative_sem for layer in self.layers]))

    @property
    def worst_relative_sem(self) -> float:
        """Relative standard error of the least certain layer."""
        return max(layer.trace.relative_sem for layer in self.layers)

    def frontier(
        self,
        cost: str = "size",
        *,
        locked: Mapping[str, int] | None = None,
        tied: Iterable[Iterable[str]] = (),
        bit_widths: Iterable[int] | None = None,
        tolerance: float = 0.0,
    ) -> Frontier:
        """Every plan that no other beats in both cost and Ω.

        Args:
            cost: "size": weight bytes, Σ n · b / 8.
            locked: Bits of layers that may not be chosen.
            tied: Groups of layers that share their bits.
            bit_widths: Those allowed; all analyzed ones if not given. Locks may use any of these.
            tolerance: Share of the cost range by which plans may be passed over; 0 is exact.

        Raises:
            ValueError: If a layer, bit width or cost is unknown, or locks and ties contradict.
        """
        allowed, costs, omegas = self.options(cost, bit_widths)
        made_by: dict[str, Any] = {
            "cost": cost,
            "locked": dict(locked or {}),
            "tied": [list(group) for group in tied],
            "bit_widths": list(allowed),
            "tolerance": tolerance,
            "analysis": self.provenance.command,
        }
        index = {bits: i for i, bits in enumerate(allowed)}
        for name, bits in made_by["locked"].items():
            if bits not in index:
                raise ValueError(
                    f"locked[{name!r}] must be one of the analyzed bit widths "
                    f"{', '.join(map(str, allowed))}, got {bits!r}."
                )
        return pareto_frontier(
            costs,
            omegas,
            locked={self.index(n): index[b] for n, b in made_by["locked"].items()},
            tied=[tuple(self.index(name) for name in group) for group in made_by["tied"]],
            tolerance=tolerance,
        ).named(partial(self.plan, bit_widths=allowed, made_by=made_by))

    def options(
        self, cost: str = "size", bit_widths: Iterable[int] | None = None
    ) -> tuple[tuple[int, ...], NDArray[np.float64], NDArray[np.float64]]:
        """The choices of every layer: allowed bit widths [B], their costs and Ω [layers, B].

        Raises:
            ValueError: If the cost is unknown or a bit width was not analyzed.
        """
        if cost not in COSTS:
            raise ValueError(f"cost must be one of {', '.join(COSTS)}, got {cost!r}.")
        allowed = tuple(sorted(set(bit_widths))) if bit_widths is not None else self.bit_widths
        for bits in allowed:
            if check_bits(bits, "bit_widths") not in self.bit_widths:
                raise ValueError(
                    "bit_widths must be among the analyzed ones "
                    f"{', '.join(map(str, self.bit_widths))}, got {bits}: analyze again with it."
                )
        if not allowed:
            raise ValueError("bit_widths must name at least one bit width, got none.")
        costs = [[layer.parameters * bits / 8 for bits in allowed] for layer in self.layers]
        omegas = [[layer.omega[bits] for bits in allowed] for layer in self.layers]
        return allowed, np.array(costs), np.array(omegas)

    def plan(
        self,
        choices: Iterable[int],
        *,
        bit_widths: Iterable[int] | None = None,
        made_by: Mapping[str, Any] | None = None,
    ) -> BitPlan:
        """The plan that takes option choices[i] of the bit widths for layer i."""
        allowed = tuple(bit_widths or self.bit_widths)
        bits = {name: allowed[i] for name, i in zip(self.names, choices, strict=True)}
        return self.plan_of(bits, made_by=made_by)

    def plan_of(
        self, weight_bits: Mapping[str, int], *, made_by: Mapping[str, Any] | None = None
    ) -> BitPlan:
        """The plan with these bits in every layer, with its size and Ω.

        Raises:
            ValueError: If a layer is missing or unknown, or a bit width was not analyzed.
        """
        for name in weight_bits:
            self.index(name)
        missing = [name for name in self.names if name not in weight_bits]
        if missing:
            raise ValueError(
                f"weight_bits must name every layer, but {missing[0]!r} is missing: give its bits."
            )
        for name, bits in weight_bits.items():
            if bits not in self.bit_widths:
                raise ValueError(
                    f"weight_bits[{name!r}] must be one of the analyzed bit widths "
                    f"{', '.join(map(str, self.bit_widths))}, got {bits!r}."
                )
        return BitPlan(
            workload=self.workload,
            weight_bits={name: weight_bits[name] for name in self.names},
            size_bytes=sum(x.parameters * weight_bits[x.name] for x in self.layers) / 8,
            omega=sum(layer.omega[weight_bits[layer.name]] for layer in self.layers),
            made_by=dict(made_by or {}),
            quantizer=dict(self.quantizer),
        )

    def uniform(self, bits: int) -> BitPlan:
        """The plan that gives every layer the same bits."""
        return self.plan_of(dict.fromkeys(self.names, bits), made_by={"uniform": bits})

    def index(self, name: str) -> int:
        """Position of a layer.

        Raises:
            ValueError: If no layer has that name.
        """
        if name not in self.names:
            near = get_close_matches(str(name), self.names, n=1, cutoff=0) or self.names[:1]
            raise ValueError(
                f"layer must be one of the network's, got {name!r}: the nearest is {near[0]!r}."
            )
        return self.names.index(name)

    def to_frame(self) -> "pd.DataFrame":
        """One row a layer: what it is, trace, error, and Ω at every bit width."""
        import pandas as pd

        return pd.DataFrame(
            {
                "layer": layer.name,
                "kind": layer.kind,
                "shape": "×".join(map(str, layer.shape)),
                "parameters": layer.parameters,
                "macs": layer.macs,
                "trace": layer.trace.mean,
                "sem": layer.trace.sem,
                "relative_sem": layer.trace.relative_sem,
                "exact": layer.trace.exact,
                **{f"omega_{bits}": layer.omega[bits] for bits in self.bit_widths},
            }
            for layer in self.layers
        )

    def save(self, path: str | Path) -> None:
        """Write JSON, and the mini-batch traces beside it under the same name as safetensors."""
        arrays = {
            name: np.ascontiguousarray(getattr(self, name))  # safetensors ignores strides
            for name in ("batch_traces", "batch_sizes", "activation_batch_traces")
        }
        sidecar = Path(path).with_suffix(".safetensors")
        sidecar.parent.mkdir(parents=True, exist_ok=True)
        save_file(arrays, sidecar)
        fields = asdict(self)
        for name in arrays:
            del fields[name]
        write_json(path, "analysis", fields)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            FormatError: If a file is missing, cut, of another version, or not an analysis.
        """
        fields = read_json(path, "analysis")
        sidecar = Path(path).with_suffix(".safetensors")
        try:
            arrays: dict[str, Any] = load_file(sidecar)
        except Exception as error:
            raise FormatError(
                f"{sidecar} must hold the mini-batch traces of {path}, but cannot be read "
                f"({error}): keep both files together."
            ) from error
        with reading(path, "analysis"):
            fields["layers"] = tuple(LayerSensitivity.from_json(x) for x in fields["layers"])
            fields["activations"] = tuple(
                ActivationSensitivity.from_json(x) for x in fields["activations"]
            )
            fields["alive"] = tuple(tuple(held) for held in fields.get("alive", ()))
            fields["bit_widths"] = tuple(fields["bit_widths"])
            fields["provenance"] = Provenance(**fields["provenance"])
            analysis = cls(**fields, **arrays)
        sizes = analysis.batch_sizes.shape
        if len(sizes) != 1:
            raise FormatError(
                f"{sidecar} must hold one batch size a batch, got shape {sizes}: "
                "keep both files of one analysis together."
            )
        expected = (*sizes, len(analysis.layers))
        if analysis.batch_traces.shape != expected:
            raise FormatError(
                f"{sidecar} must hold traces [batches, layers] {expected}, "
                f"got {analysis.batch_traces.shape}: keep both files of one analysis together."
            )
        return analysis
