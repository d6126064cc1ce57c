"""Go on from an analysis with images that it has not seen: `analyze_further`.

Nothing is estimated twice. The images follow in the order that the seed of the analysis gave them,
the probes where its generator had come to, so that the result is what one longer analysis would
have found; the mini-batches of both are its sample.
"""

import math
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from engine.activations import find_activations
from engine.analysis import ActivationSensitivity, Analysis
from engine.layers import find_layers, fold_batch_norm
from engine.perturbation import round_weights, sensitivity, shuffled_batches
from engine.quantizers import Quantizer
from engine.results import Progress, Provenance, TraceEstimate
from engine.traces import Traces, average_traces
from engine.workloads import Workload, describe_data, example_image

SAME = 1e-3  # share by which ‖ΔW‖² of the same weights may differ from machine to machine


def analyze_further(
    analysis: Analysis,
    workload: Workload,
    *,
    relative_sem: float | None = None,
    max_images: int | None = None,
    max_seconds: float | None = None,
    progress: Progress | None = None,
    source: str = "ANALYSIS.json",
    command: str | None = None,
) -> Analysis:
    """Estimate the traces of an analysis from more images of the same data.

    Every other setting is that of the analysis. Ranges of activations, and what rounding does to
    these, stay as they are. An analysis saved by an earlier release does not hold the state of its
    generator: then the probes are of a seed of their own, which are as good.

    Args:
        analysis: To go on from; it is not changed.
        workload: Which it was made of, with the same data.
        relative_sem: Standard error of each trace, as a share of it, to stop at;
            `Analysis.next_target` if not given.
        max_images: At most so many that it has not seen.
        max_seconds: Time for these.
        progress: Told as the work goes on.
        source: The file of the analysis, for the command.
        command: That makes the result again; composed from the arguments if not given.

    Raises:
        ValueError: If an argument is out of range, the network or its data are not those of the
            analysis, or no image is left.
    """
    started = time.perf_counter()
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1, got {max_images}.")
    data, fingerprint = describe_data(workload.calibration)
    if fingerprint != analysis.provenance.fingerprint:
        raise ValueError(
            f"workload must have the images of the analysis, {analysis.provenance.data}, "
            f"got {data}: give the same data, or analyze anew."
        )
    left = len(workload.calibration) - analysis.images  # type: ignore[arg-type]
    if left < 1:
        raise ValueError(
            f"analysis must leave images to go on with, got all {analysis.images:,} used: "
            "analyze more data anew."
        )
    seed, target = analysis.provenance.seed, relative_sem or analysis.next_target
    images = min(left, max_images or sys.maxsize)
    batches = shuffled_batches(
        workload.calibration,
        images,
        int(analysis.batch_sizes.max()),
        torch.Generator().manual_seed(seed),
        after=analysis.images,
    )
    example = example_image(workload.calibration)
    model = fold_batch_norm(workload.model, example)
    layers = find_layers(model, example)
    given = analysis.quantizer
    quantizer = Quantizer(given["scheme"], given["weight_granularity"], given["weight_range"])
    errors, counts = round_weights(model, layers, analysis.bit_widths, quantizer, progress)
    _check_network(
        analysis,
        {name: {b: float(x.sum()) for b, x in own.items()} for name, own in errors.items()},
    )
    fewest, generator = analysis.bit_widths[0], _probes(analysis)
    traces = average_traces(
        model,
        batches,
        loss=workload.loss,
        estimator=analysis.estimator,
        relative_sem=target,
        max_seconds=max_seconds,
        activations=find_activations(model, example).found if analysis.activations else False,
        perturbation={layer.name: layer.perturbation[fewest] for layer in analysis.layers},
        activation_perturbation={x.name: x.perturbation[fewest] for x in analysis.activations},
        generator=generator,
        known=_traces(analysis),
        progress=progress
        and (lambda done, _, note: progress(done, analysis.images + images, f"images, {note}")),
    )
    options: dict[str, Any] = {"further": source, "relative_sem": target}
    limits = {"max_images": max_images, "max_seconds": max_seconds}
    options |= {name: value for name, value in limits.items() if value is not None}
    said = command or workload.command("analyze", **options)
    return replace(
        analysis,
        layers=tuple(
            sensitivity(layer, traces, errors[layer.name], analysis.granularity) for layer in layers
        ),
        activations=tuple(_estimated(x, traces.activations[x.name]) for x in analysis.activations),
        relative_sem=target,
        images=traces.images,
        stopped_because=traces.stopped_because,
        seconds=analysis.seconds + time.perf_counter() - started,
        batch_traces=traces.batch_traces,
        batch_sizes=traces.batch_sizes,
        activation_batch_traces=traces.activation_batch_traces,
        weight_counts=counts,
        images_left=analysis.images + left - traces.images,
        probe_state=generator.get_state().numpy(),
        provenance=Provenance(seed, data, fingerprint, said),
    )


def _estimated(x: ActivationSensitivity, trace: TraceEstimate) -> ActivationSensitivity:
    """The record of an activation with another trace."""
    omega = {bits: trace.for_omega * moved for bits, moved in x.perturbation.items()}
    return replace(x, trace=trace, omega=omega)


def _probes(analysis: Analysis) -> torch.Generator:
    """The generator of probes where the analysis left it, or one with a seed of its own."""
    generator = torch.Generator()
    if len(analysis.probe_state):
        return generator.set_state(torch.from_numpy(analysis.probe_state.copy()))
    entropy = np.random.SeedSequence((analysis.provenance.seed, analysis.images))
    return generator.manual_seed(int(entropy.generate_state(1)[0]))


def _traces(analysis: Analysis) -> Traces:
    """What the analysis found, as `average_traces` gave it."""
    return Traces(
        weights={layer.name: layer.trace for layer in analysis.layers},
        exact=analysis.exact,
        images=analysis.images,
        stopped_because=analysis.stopped_because,
        estimator=analysis.estimator,
        seconds=analysis.seconds,
        batch_traces=analysis.batch_traces,
        batch_sizes=analysis.batch_sizes,
        channels={layer.name: layer.channel_traces for layer in analysis.layers},
        channel_sems={layer.name: layer.channel_sems for layer in analysis.layers},
        activations={x.name: x.trace for x in analysis.activations},
        activation_batch_traces=analysis.activation_batch_traces,
    )


def _check_network(analysis: Analysis, moved: Mapping[str, Mapping[int, float]]) -> None:
    known = {layer.name: layer.perturbation for layer in analysis.layers}
    if list(known) != list(moved):
        raise ValueError(
            f"workload must have the layers of the analysis {', '.join(known)}, "
            f"got {', '.join(moved)}: give the network that was analyzed."
        )
    for name, by_bits in moved.items():
        for bits, value in by_bits.items():
            if not math.isclose(value, known[name][bits], rel_tol=SAME):
                raise ValueError(
                    f"workload must have the weights of the analysis, but rounding {name!r} to "
                    f"{bits} bits moves them by {value:.4g}, not {known[name][bits]:.4g}: give "
                    "the network that was analyzed, or analyze anew."
                )
