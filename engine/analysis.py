"""What an analysis found: the sensitivities of one network, from which every plan is made."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from engine.budgets import peak_frontier, within_budgets
from engine.choices import COSTS as COSTS
from engine.choices import (
    Choices,
    Limits,
    check_activation_bits,
    check_analyzed,
    check_name,
    check_weight_bits,
    costs_of,
    listed,
)
from engine.frontier import Frontier
from engine.joint import joint_frontier
from engine.latency import LatencyTable
from engine.results import (
    BELOW_ERROR,
    BitPlan,
    FormatError,
    Provenance,
    read_json,
    reading,
    write_json,
)
from engine.sensitivities import BINS, histogram_in_steps
from engine.sensitivities import ActivationSensitivity as ActivationSensitivity
from engine.sensitivities import Finding as Finding
from engine.sensitivities import Histogram as Histogram
from engine.sensitivities import LayerSensitivity as LayerSensitivity

if TYPE_CHECKING:
    import pandas as pd

ARRAYS = (  # in a file of their own, beside the rest
    "batch_traces",
    "batch_sizes",
    "activation_batch_traces",
    "probe_state",
    "weight_counts",
)
TOLERANCES = {"bops": 1e-3, "latency": 1e-3, "activation_peak": 1e-2}  # where exact is too large


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
    images_left: int | None = None  # of the data; unknown in files of before this was kept
    probe_state: NDArray[np.uint8] = field(
        default_factory=lambda: np.zeros(0, np.uint8)
    )  # of the generator of probes, for `further.analyze_further`; none in files of before
    weight_counts: NDArray[np.int32] = field(
        default_factory=lambda: np.zeros((0, 0, 0), np.int32)
    )  # [layers, bit widths, BINS] of `weight_histogram`; empty in files of before
    findings: tuple[Finding, ...] | None = None  # of the network's checklist; None: not looked

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

    @property
    def exhausted(self) -> bool:
        """Whether every image of the data has been used, as far as is known."""
        if self.images_left is None:
            return self.stopped_because == "images"
        return self.images_left == 0

    @property
    def next_target(self) -> float:
        """The error to go on to: half of what was asked for, or that itself if it was missed."""
        return self.relative_sem / 2 if self.stopped_because == "target" else self.relative_sem

    @property
    def below_error(self) -> tuple[str, ...]:
        """Layers, and inputs of layers, whose trace lies below its standard error."""
        inputs = [f"input of {x.name}" for x in self.activations if x.trace.floored]
        return (*(layer.name for layer in self.layers if layer.trace.floored), *inputs)

    def frontier(
        self,
        cost: str = "size",
        *,
        tolerance: float | None = None,
        latency: LatencyTable | None = None,
        **limits: Unpack[Limits],
    ) -> Frontier:
        """Every plan that no other beats in both cost and Ω.

        A cost chooses what it counts: "size" the bits of weights, "activation_memory" and
        "activation_peak" those of activations, "bops" and "latency" both. What is not chosen is
        float, unless its bits are given.

        Args:
            cost: One of `COSTS`.
            tolerance: Share of the cost range by which plans may be passed over; 0 is exact, and
                what is done if not given, but for bops and latency (0.001) and the activations'
                peak (0.01), whose exact frontiers are large.
            latency: The times that make up that cost.
            **limits: What plans have to keep to, see `choices.Limits`.

        Raises:
            ValueError: If a name, bit width or cost is unknown, or limits contradict each other.
        """
        limits = listed(limits)
        choices = Choices.of(self, [cost], **limits)
        tolerance = TOLERANCES.get(cost, 0.0) if tolerance is None else tolerance
        made_by = self._made_by({"cost": cost}, limits, latency) | {"tolerance": tolerance}
        tables = choices.costs(cost, latency), choices.omegas
        if cost == "activation_peak":
            found = peak_frontier(
                *tables, choices.sets(), tolerance=tolerance, **choices.constraints
            )
        else:
            found = joint_frontier(*tables, tolerance=tolerance, **choices.constraints)
        return found.named(
            lambda options: self.plan_of(*choices.bits(options), latency=latency, made_by=made_by)
        )

    def within(
        self,
        budgets: Mapping[str, float],
        *,
        latency: LatencyTable | None = None,
        **limits: Unpack[Limits],
    ) -> BitPlan:
        """The plan of least Ω that keeps to several budgets at once.

        Args:
            budgets: The most that each cost may be, by its name in `COSTS`.
            latency: The times that make up that cost.
            **limits: What plans have to keep to, see `choices.Limits`.

        Raises:
            NotMet: If no plan keeps to all budgets; it names the nearest that can be kept.
            ValueError: As for `frontier`.
        """
        if not budgets:
            raise ValueError(f"budgets must name one of {', '.join(COSTS)} at least, got none.")
        limits = listed(limits)
        choices = Choices.of(self, budgets, **limits)
        options = within_budgets(
            {cost: choices.costs(cost, latency) for cost in budgets},
            choices.omegas,
            budgets,
            sets={"activation_peak": choices.sets()},
            **choices.constraints,
        )
        made_by = self._made_by({"budgets": dict(budgets)}, limits, latency)
        return self.plan_of(*choices.bits(options), latency=latency, made_by=made_by)

    def separate(
        self,
        size: float,
        activation_memory: float,
        *,
        locked: Mapping[str, int] | None = None,
        tied: Iterable[Iterable[str]] = (),
        bit_widths: Iterable[int] | None = None,
        locked_activations: Mapping[str, int] | None = None,
        activation_bit_widths: Iterable[int] | None = None,
    ) -> BitPlan:
        """The paper's way: weights by their size, then activations by their memory, in bytes.

        Ω is a sum, and neither cost depends on the other's bits, so that each is chosen on its own
        and nothing is lost but budgets that would trade one for the other.

        Raises:
            ValueError: As for `frontier`, or if a budget lies below the smallest plan.
        """
        first = self.frontier(locked=locked, tied=tied, bit_widths=bit_widths).within(size)
        second = self.frontier(
            "activation_memory",
            weights=first.weight_bits,
            locked_activations=locked_activations,
            activation_bit_widths=activation_bit_widths,
        ).within(activation_memory)
        return replace(second, made_by={"separate": [first.made_by, second.made_by]})

    def options(
        self, cost: str = "size", bit_widths: Iterable[int] | None = None
    ) -> tuple[tuple[int, ...], NDArray[np.float64], NDArray[np.float64]]:
        """The choices of every weight: allowed bit widths [B], their bytes and Ω [layers, B].

        Raises:
            ValueError: If the cost is another than size, or a bit width was not analyzed.
        """
        if cost != "size":
            raise ValueError(f"cost must be size, which the weights alone have, got {cost!r}.")
        choices = Choices.of(self, ["size"], bit_widths=bit_widths)
        return choices.weight_widths, choices.costs("size")[..., 0], choices.omegas[..., 0]

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
        self,
        weight_bits: Mapping[str, int],
        activation_bits: Mapping[str, int] | None = None,
        *,
        latency: LatencyTable | None = None,
        made_by: Mapping[str, Any] | None = None,
    ) -> BitPlan:
        """The plan with these bits in every layer and activation, with its costs and Ω.

        Args:
            weight_bits: Of every layer; none of all where weights stay float.
            activation_bits: Of every activation, though the network's input may be left out; none
                where activations stay float.
            latency: Where the plan's time is to be known.
            made_by: What the plan remembers of how it was made.

        Raises:
            ValueError: If a name is missing or unknown, or a bit width was not analyzed.
        """
        weight_bits = check_weight_bits(self, weight_bits)
        activation_bits = check_activation_bits(self, activation_bits)
        costs = costs_of(self, weight_bits, activation_bits, latency)
        omegas = [x.omega[weight_bits[x.name]] for x in self.layers if weight_bits]
        omegas += [x.omega[activation_bits[x.name]] for x in self.activations if activation_bits]
        return BitPlan(
            workload=self.workload,
            weight_bits=weight_bits,
            size_bytes=costs["size"],
            omega=float(sum(omegas)),
            made_by=dict(made_by or {}),
            activation_bits=activation_bits,
            quantizer=dict(self.quantizer),
            costs=costs,
        )

    def uniform(
        self,
        bits: int | None,
        activation_bits: int | None = None,
        *,
        latency: LatencyTable | None = None,
    ) -> BitPlan:
        """The plan that gives every weight the same bits, and every activation; none is float.

        The network's input keeps 8 bits: `uniform(4, 8)` and `uniform(4, 4)` differ in all others.
        """
        made_by = {"uniform": bits}
        if activation_bits is not None:
            made_by["activation_bits"] = activation_bits
        return self.plan_of(
            check_weight_bits(self, bits),
            check_activation_bits(self, activation_bits),
            latency=latency,
            made_by=made_by,
        )

    def costs_of(
        self,
        weight_bits: Mapping[str, int],
        activation_bits: Mapping[str, int] | None = None,
        latency: LatencyTable | None = None,
    ) -> dict[str, float]:
        """Every cost of a plan that can be known; arguments as for `plan_of`."""
        return self.plan_of(weight_bits, activation_bits, latency=latency).costs

    def index(self, name: str) -> int:
        """Position of a layer.

        Raises:
            ValueError: If no layer has that name.
        """
        return check_name(name, self.names, "layer")

    def weight_histogram(self, name: str, bits: int) -> Histogram | None:
        """The weights of a layer in steps of their grids; None where they were not counted.

        Raises:
            ValueError: If no layer has that name, or the bit width was not analyzed.
        """
        layer, width = self.index(name), check_analyzed(self, bits, "bits")
        if not self.weight_counts.size:
            return None
        scheme = self.quantizer.get("scheme", "symmetric")
        counts = self.weight_counts[layer, self.bit_widths.index(width)]
        return histogram_in_steps(counts, scheme, width)

    def _made_by(
        self, asked: Mapping[str, Any], limits: Limits, latency: LatencyTable | None
    ) -> dict[str, Any]:
        """How a plan came about: by which analysis and with which arguments."""
        usual = {"locked": {}, "tied": [], "bit_widths": list(self.bit_widths)}
        table = {"latency": latency.source} if latency is not None else {}
        return {**asked, **usual, **limits, **table, "analysis": self.provenance.command}

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
                "note": BELOW_ERROR if layer.trace.floored else "",
                **{f"omega_{bits}": layer.omega[bits] for bits in self.bit_widths},
            }
            for layer in self.layers
        )

    def save(self, path: str | Path) -> None:
        """Write JSON, and the arrays beside it under the same name as safetensors."""
        arrays = {
            name: np.ascontiguousarray(getattr(self, name))  # safetensors ignores strides
            for name in ARRAYS
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
            if fields.get("findings") is not None:
                fields["findings"] = tuple(Finding(**x) for x in fields["findings"])
            analysis = cls(**fields, **arrays)
        sizes = analysis.batch_sizes.shape
        if len(sizes) != 1:
            raise FormatError(
                f"{sidecar} must hold one batch size a batch, got shape {sizes}: "
                "keep both files of one analysis together."
            )
        layers = len(analysis.layers)
        counted = (
            (layers, len(analysis.bit_widths), BINS) if analysis.weight_counts.size else (0,) * 3
        )
        for what, expected, found in (
            ("traces [batches, layers]", (*sizes, layers), analysis.batch_traces.shape),
            ("counts [layers, bit widths, bins]", counted, analysis.weight_counts.shape),
        ):
            if found != expected:
                raise FormatError(
                    f"{sidecar} must hold {what} {expected}, got {found}: "
                    "keep both files of one analysis together."
                )
        return analysis
