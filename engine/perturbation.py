"""Ω of each layer and each activation at each bit width: Tr(H) / n · ‖Q(W) − W‖².

HAWQ-V2, Lemma 1 and eq. 9; for an activation a, sec. 3.3, it is the mean of Tr(H_a) / n over images
times the mean of ‖Q(a) − a‖².
"""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from engine.activations import Activation, Activations, find_activations
from engine.analysis import ActivationSensitivity, Analysis, Histogram, LayerSensitivity
from engine.calibration import IMAGES, Range, calibrate, draw, stacked
from engine.layers import Layer, find_layers, fold_batch_norm, skipped_weights
from engine.quantizers import Grid, Quantizer
from engine.results import Progress, Provenance, TraceEstimate, check_bits
from engine.roundoff import Roundoff, measure_roundoff
from engine.sensitivities import BINS, BINS_BEYOND, BINS_WITHIN
from engine.traces import FEWEST_BATCHES, Traces, average_traces
from engine.workloads import Workload, describe_data, example_image

BIT_WIDTHS = (2, 3, 4, 5, 6, 7, 8)
ROUNDED_VALUES = 2**27  # of all activations over all images, at most; each to every bit width
FEWEST_IMAGES = 16  # that are rounded in any case
OMEGA_GRANULARITIES = ("layer", "channel")


def analyze(
    workload: Workload,
    *,
    bit_widths: tuple[int, ...] = BIT_WIDTHS,
    relative_sem: float = 0.1,
    seed: int = 0,
    batch_size: int = 32,
    max_images: int | None = None,
    max_seconds: float | None = None,
    estimator: str = "gauss_newton",
    granularity: str = "layer",
    scheme: str = "symmetric",
    weight_granularity: str = "channel",
    weight_range: str = "mse",
    activations: bool = True,
    activation_range: str = "mse",
    progress: Progress | None = None,
    command: str | None = None,
) -> Analysis:
    """Find how sensitive each layer is and what each bit width does to it.

    Works on the network with its batch norms folded, under the original layer names: traces and
    perturbations are of the same weights, those that are quantized in the end.

    Args:
        workload: Its model is not changed; its calibration images are drawn in random order.
        bit_widths: To be offered to every layer, each in 1…8.
        relative_sem: Standard error of each trace, as a share of it, to stop at.
        seed: Of the order of the images, of the probes, and of the draw of calibration images.
        batch_size: Images a probe; fewer where the data would not fill 32 mini-batches.
        max_images: At most so many of the calibration images. Activations are calibrated on that
            many too, or on `calibration.IMAGES` if these are fewer, and rounded on as many of
            these as hold `ROUNDED_VALUES`.
        max_seconds: Time for the traces.
        estimator: See `traces.average_traces`.
        granularity: "layer": Ω = Tr(H) / n · ‖ΔW‖²; "channel": Σ of the same over the layer's
            output channels, which folding batch norms does not change. Either is at least
            ‖ΔW‖² times the trace's standard error.
        scheme: Of the weight quantizer, see `quantizers.Quantizer`.
        weight_granularity: Of the weight quantizer.
        weight_range: Of the weight quantizer.
        activations: Whether activations are to be analyzed too.
        activation_range: Of the activation quantizer, see `calibration.calibrate`.
        progress: Told as the work goes on.
        command: That makes the result again; composed from the arguments if not given.

    Raises:
        ValueError: If an argument is out of range, or the network or its data cannot be analyzed.
    """
    started = time.perf_counter()
    widths = tuple(sorted({check_bits(bits, "bit_widths") for bits in bit_widths}))
    if not widths:
        raise ValueError("bit_widths must name at least one bit width, got none.")
    if granularity not in OMEGA_GRANULARITIES:
        raise ValueError(
            f"granularity must be one of {', '.join(OMEGA_GRANULARITIES)}, got {granularity!r}."
        )
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if max_images is not None and max_images < 2:
        raise ValueError(f"max_images must be at least 2, for an error bar, got {max_images}.")
    quantizer = Quantizer(scheme, weight_granularity, weight_range)
    data, fingerprint = describe_data(workload.calibration)
    images = min(len(workload.calibration), max_images or sys.maxsize)  # type: ignore[arg-type]
    if images < 2:
        raise ValueError("calibration must hold at least 2 images, for an error bar, got 1.")
    generator = torch.Generator().manual_seed(seed)
    batches = shuffled_batches(
        workload.calibration, images, min(batch_size, max(1, images // FEWEST_BATCHES)), generator
    )
    example = example_image(workload.calibration)
    model = fold_batch_norm(workload.model, example)
    layers = find_layers(model, example)
    errors, counts = round_weights(model, layers, widths, quantizer, progress)
    read = find_activations(model, example) if activations else None
    pairs = draw(workload.calibration, min(images, IMAGES), seed) if read else []
    rounded = _roundoff(workload, model, read, pairs, widths, activation_range, seed, progress)
    traces = average_traces(
        model,
        batches,
        loss=workload.loss,
        estimator=estimator,
        relative_sem=relative_sem,
        max_seconds=max_seconds,
        activations=read.found if read else False,
        perturbation={name: float(error[widths[0]].sum()) for name, error in errors.items()},
        activation_perturbation={
            name: one.perturbation[widths[0]][0] for name, (_, one) in rounded.items()
        },
        generator=generator,
        progress=progress and (lambda done, _, note: progress(done, images, f"images, {note}")),
    )
    options: dict[str, Any] = {
        "bit_widths": widths,
        "relative_sem": relative_sem,
        "batch_size": batch_size,
        "estimator": estimator,
        "granularity": granularity,
        "scheme": scheme,
        "weight_granularity": weight_granularity,
        "weight_range": weight_range,
        "activation_range": activation_range,
        "seed": seed,
    }
    if not activations:
        del options["activation_range"]
        options["activations"] = False
    limits = {"max_images": max_images, "max_seconds": max_seconds}
    options |= {name: value for name, value in limits.items() if value is not None}
    return Analysis(
        workload=workload.name,
        layers=tuple(
            sensitivity(layer, traces, error, granularity)
            for layer, error in zip(layers, errors.values(), strict=True)
        ),
        bit_widths=widths,
        loss=workload.loss if isinstance(workload.loss, str) else repr(workload.loss),
        estimator=estimator,
        granularity=granularity,
        quantizer={
            "scheme": scheme,
            "weight_granularity": weight_granularity,
            "weight_range": weight_range,
        }
        | (
            {
                "activation_range": activation_range,
                "calibration_images": str(len(pairs)),
                "seed": str(seed),
            }
            if read
            else {}
        ),
        relative_sem=relative_sem,
        images=traces.images,
        stopped_because=traces.stopped_because,
        seconds=time.perf_counter() - started,
        batch_traces=traces.batch_traces,
        batch_sizes=traces.batch_sizes,
        images_left=len(workload.calibration) - traces.images,  # type: ignore[arg-type]
        probe_state=generator.get_state().numpy(),
        provenance=Provenance(
            seed, data, fingerprint, command or workload.command("analyze", **options)
        ),
        skipped=skipped_weights(model, layers),
        activations=tuple(
            _activation(a, traces.activations[a.name], *rounded[a.name])
            for a in (read.found if read else ())
        ),
        activation_batch_traces=traces.activation_batch_traces,
        weight_counts=counts,
        alive=read.alive if read else (),
        skipped_activations=read.skipped if read else {},
    )


def round_weights(
    model: nn.Module,
    layers: Sequence[Layer],
    widths: Sequence[int],
    quantizer: Quantizer,
    progress: Progress | None,
) -> tuple[dict[str, dict[int, Tensor]], NDArray[np.int32]]:
    """Round every layer to every bit width.

    Returns:
        ‖Q(w) − w‖² of its output channels by its name and the bits, and how many of its weights
        lie where on their grids, [layers, bit widths, BINS].
    """
    errors, counts = {}, np.zeros((len(layers), len(widths), BINS), np.int32)
    for i, (layer, rows) in enumerate(zip(layers, _rows(model, layers), strict=True)):
        if progress:
            progress(i, len(layers), "layers rounded to every bit width")
        grids = {bits: quantizer.fit(rows, bits) for bits in widths}
        errors[layer.name] = {bits: _squared_error(grid, rows) for bits, grid in grids.items()}
        counts[i] = [weight_counts(rows, grid) for grid in grids.values()]
    return errors, counts


def sensitivity(
    layer: Layer,
    traces: Traces,
    error: Mapping[int, Tensor],
    granularity: str,
) -> LayerSensitivity:
    """One layer's record.

    Args:
        layer: As it was found.
        traces: Its own among them.
        error: Bits → ‖Q(w) − w‖² of every output channel.
        granularity: Of Ω, see `analyze`.
    """
    trace, by_channel = traces.weights[layer.name], np.array(traces.channels[layer.name])
    floor = trace.sem if np.isfinite(trace.sem) else 0.0
    return LayerSensitivity(
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        parameters=layer.parameters,
        macs=layer.macs,
        trace=trace,
        perturbation={bits: float(rows.sum()) for bits, rows in error.items()},
        omega={
            bits: max(float(by_channel @ rows.numpy()), floor * float(rows.sum()))
            if granularity == "channel"
            else trace.for_omega * float(rows.sum())
            for bits, rows in error.items()
        },
        channel_traces=traces.channels[layer.name],
        channel_sems=traces.channel_sems[layer.name],
    )


def _roundoff(
    workload: Workload,
    model: nn.Module,
    read: Activations | None,
    pairs: Sequence[tuple[Tensor, Any]],
    widths: Sequence[int],
    activation_range: str,
    seed: int,
    progress: Progress | None,
) -> dict[str, tuple[Range, Roundoff]]:
    """Range of every activation, and what rounding does to it."""
    if read is None:
        return {}
    images = torch.stack([image for image, _ in pairs])
    ranges = calibrate(model, read.found, images, activation_range=activation_range, seed=seed)
    fitting = ROUNDED_VALUES // max(1, sum(a.elements for a in read.found))
    told = measure_roundoff(
        model,
        read.found,
        ranges,
        pairs[: max(FEWEST_IMAGES, fitting)],
        loss=workload.loss,
        bit_widths=widths,
        progress=progress,
    )
    return {name: (ranges[name], told[name]) for name in told}


def _activation(
    activation: Activation, trace: TraceEstimate, seen: Range, told: Roundoff
) -> ActivationSensitivity:
    return ActivationSensitivity(
        name=activation.name,
        readers=activation.readers,
        shape=activation.shape,
        elements=activation.elements,
        image=activation.image,
        signed=seen.signed,
        trace=trace,
        images=told.images,
        perturbation={bits: mean for bits, (mean, _) in told.perturbation.items()},
        perturbation_sem={bits: sem for bits, (_, sem) in told.perturbation.items()},
        first_order={bits: mean for bits, (mean, _) in told.first_order.items()},
        first_order_sem={bits: sem for bits, (_, sem) in told.first_order.items()},
        omega={bits: trace.for_omega * mean for bits, (mean, _) in told.perturbation.items()},
        grids={
            bits: (float(grid.scale), float(grid.zero_point) + 0.0)  # no −0
            for bits, grid in told.grids.items()
        },
        histogram=Histogram(seen.low, seen.high, told.counts),
    )


def squared_error(rows: Tensor, bits: int, quantizer: Quantizer) -> Tensor:
    """‖Q(w) − w‖² of every output channel, float64 [channels].

    Args:
        rows: [channels, n].
        bits: 1…8.
        quantizer: How the grid is fitted.
    """
    return _squared_error(quantizer.fit(rows, bits), rows)


def _squared_error(grid: Grid, rows: Tensor) -> Tensor:
    return grid.squared_error(rows).squeeze(1).double()


def weight_counts(rows: Tensor, grid: Grid) -> NDArray[np.int64]:
    """How many weights lie where on the grids of their channels, [BINS].

    In steps of its own grid every channel has the same levels, so that one histogram holds all;
    see `sensitivities.histogram_in_steps`.

    Args:
        rows: [channels, n].
        grid: Of these rows.
    """
    codes = grid.high - grid.low + 1
    share = (grid.places(rows) - (grid.low - 0.5)) / codes  # 0…1 over the grid
    bins = (share * BINS_WITHIN).floor_().add_(BINS_BEYOND).clamp_(0, BINS - 1)
    return torch.bincount(bins.flatten().long(), minlength=BINS).numpy()


def shuffled_batches(
    dataset: Dataset[Any],
    images: int,
    batch_size: int,
    generator: torch.Generator,
    *,
    after: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Mini-batches of some of a dataset's images in random order, each once.

    Args:
        dataset: Gives (image, target).
        images: How many.
        batch_size: At most so many at once.
        generator: Of the order.
        after: Images at the beginning of this order that are left out.
    """
    order = torch.randperm(len(dataset), generator=generator)[after:][:images].tolist()  # type: ignore[arg-type]
    unused = torch.Generator()  # else the loader would draw from torch's own
    yield from DataLoader(
        dataset, batch_size=batch_size, sampler=order, collate_fn=stacked, generator=unused
    )


def _rows(model: nn.Module, layers: Sequence[Layer]) -> Iterator[Tensor]:
    parameters = dict(model.named_parameters())
    for layer in layers:
        yield layer.channels.rows(parameters[layer.parameter].detach())
