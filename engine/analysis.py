"""What an analysis found: the sensitivities of one network, from which every plan is made."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from engine.choices import COSTS as COSTS
from engine.choices import check_activation_bits, check_name, check_weight_bits, costs_of
from engine.frontier import Frontier, pareto_frontier
from engine.latency import LatencyTable
from engine.results import (
    BitPlan,
    FormatError,
    Provenance,
    check_bits,
    read_json,
    reading,
    write_json,
)
from engine.sensitivities import ActivationSensitivity as ActivationSensitivity
from engine.sensitivities import Histogram as Histogram
from engine.sensitivities import LayerSensitivity as LayerSensitivity

if TYPE_CHECKING:
    import pandas as pd


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
