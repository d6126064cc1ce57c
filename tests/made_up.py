"""An analysis of made-up numbers, for drawing only: nothing here was measured."""

from dataclasses import replace
from typing import Any

import numpy as np

from engine.analysis import ActivationSensitivity, Analysis, Histogram, LayerSensitivity
from engine.results import Evaluation, Provenance, TraceEstimate, wilson_interval
from engine.sensitivities import BINS

BATCHES = 8
PROVENANCE = Provenance(0, "made-up images", "none", "hawq-viz analyze made-up", {}, "2026-01-01")

# name, shape, trace, its standard error, whether exact
LAYERS = (
    ("conv<1>", (16, 3, 3, 3), 6.0, 0.5, True),
    ("layer1.0.conv1", (16, 16, 3, 3), 1.5, 0.2, True),
    ("layer1.0.conv2", (32, 16, 3, 3), 0.8, 0.5, True),  # its interval reaches below zero
    ("layer2.0.conv1", (32, 32, 3, 3), 0.3, 0.03, False),
    ("layer2.0.conv2", (32, 32, 3, 3), -0.01, 0.02, True),  # below its standard error
    ("fc", (10, 32), 0.2, 0.04, True),
)

# name, readers, shape, trace, its standard error, whether exact
ACTIVATIONS = (
    ("conv<1>", ("conv<1>",), (3, 8, 8), 0.4, 0.05, True),
    ("layer1.0.conv1", ("layer1.0.conv1", "layer2.0.conv1"), (16, 8, 8), 0.02, 0.002, True),
    ("layer1.0.conv2", ("layer1.0.conv2",), (16, 8, 8), 0.001, 0.004, True),  # below its error
    ("fc", ("fc",), (32,), 0.3, 0.04, False),
)
SKIPPED = {"layer2.0.conv2": "its input is made by an operator that is not known"}


def made_up_analysis(workload: str = "resnet20-cifar10", layers: tuple = LAYERS) -> Analysis:
    rng = np.random.default_rng(0)
    records = []
    for name, shape, mean, sem, exact in layers:
        n = int(np.prod(shape))
        trace = TraceEstimate(mean, sem, BATCHES, exact)
        moved = {b: n * (0.1 / 2**b) ** 2 * float(rng.uniform(0.8, 1.2)) for b in range(2, 9)}
        omega = {b: trace.for_omega * x for b, x in moved.items()}
        kind = "linear" if len(shape) == 2 else "conv2d"
        channels, errors = (mean,) * shape[0], (sem,) * shape[0]
        records.append(
            LayerSensitivity(name, kind, shape, n, 100 * n, trace, moved, omega, channels, errors)
        )
    return Analysis(
        workload=workload,
        layers=tuple(records),
        bit_widths=tuple(range(2, 9)),
        loss="cross_entropy",
        estimator="gauss_newton",
        granularity="layer",
        quantizer={"scheme": "symmetric", "weight_granularity": "channel", "weight_range": "mse"},
        relative_sem=0.1,
        images=BATCHES * 32,
        stopped_because="images",
        seconds=12.0,
        batch_traces=np.tile([layer[2] for layer in layers], (BATCHES, 1)),
        batch_sizes=np.full(BATCHES, 32),
        provenance=PROVENANCE,
        weight_counts=np.tile(rng.binomial(BINS, 0.5, BINS), (len(layers), 7, 1)),
    )


def made_up_activations(analysis: Analysis, activations: tuple = ACTIVATIONS) -> Analysis:
    """The same analysis, had it been asked for activations too."""
    rng = np.random.default_rng(1)
    records = []
    for name, readers, shape, mean, sem, exact in activations:
        n, image = int(np.prod(shape)), name == activations[0][0]
        trace = TraceEstimate(mean, sem, BATCHES * 32, exact)
        widths = analysis.bit_widths
        scales = {b: 4.0 / (2**b - 1) for b in widths}
        moved = {b: n * scales[b] ** 2 / 12 * float(rng.uniform(0.8, 1.2)) for b in widths}
        first = {b: float(rng.normal()) * 1e-3 * scales[b] for b in widths}
        values = rng.normal(0, 1, 4000) if image else rng.gamma(0.5, 1, 4000)
        low = float(values.min()) if image else 0.0
        counts, _ = np.histogram(values, 64, (low, float(values.max())))
        records.append(
            ActivationSensitivity(
                name=name,
                readers=readers,
                shape=shape,
                elements=n,
                image=image,
                signed=image,
                trace=trace,
                images=128,
                perturbation=moved,
                perturbation_sem={b: 0.02 * x for b, x in moved.items()},
                first_order=first,
                first_order_sem={b: abs(x) / 3 for b, x in first.items()},
                omega={b: trace.for_omega * x for b, x in moved.items()},
                grids={b: (s, float(round(2 / s)) if image else 0.0) for b, s in scales.items()},
                histogram=Histogram(low, float(values.max()), tuple(map(int, counts))),
            )
        )
    held = [tuple(range(i, min(i + 2, len(records)))) for i in range(max(1, len(records) - 1))]
    return replace(
        analysis,
        activations=tuple(records),
        activation_batch_traces=np.tile([x.trace.mean for x in records], (BATCHES, 1)),
        alive=tuple(held),
        skipped_activations=SKIPPED if activations is ACTIVATIONS else {},
    )


def varied(
    analysis: Analysis,
    spread: float = 0.3,
    batches: int = 40,
    *,
    seed: int = 0,
    sizes: tuple[int, ...] = (),
    factor: float = 1.0,
) -> Analysis:
    """The same network had its mini-batches differed, with the errors that follow.

    Half of the spread is common to all layers and activations, as they share their images.
    """
    rng = np.random.default_rng(seed)
    held = np.array(sizes or (16,) * batches)
    share = held / held.sum()
    common = np.exp(rng.normal(0, spread, (len(held), 1)))

    def traces(records: tuple) -> np.ndarray:
        own = np.exp(rng.normal(0, spread, (len(held), len(records))))
        return factor * np.array([x.trace.mean for x in records]) * common * own

    def estimated(record: Any, column: np.ndarray) -> Any:
        mean = float(share @ column)
        spread_of_mean = len(held) / (len(held) - 1) * (share**2 * (column - mean) ** 2).sum()
        trace = replace(record.trace, mean=mean, sem=float(np.sqrt(spread_of_mean)))
        omega = {bits: trace.for_omega * x for bits, x in record.perturbation.items()}
        return replace(record, trace=replace(trace, samples=len(held)), omega=omega)

    rows, read_rows = traces(analysis.layers), traces(analysis.activations)
    return replace(
        analysis,
        layers=tuple(map(estimated, analysis.layers, rows.T)),
        activations=tuple(map(estimated, analysis.activations, read_rows.T)),
        batch_traces=rows,
        activation_batch_traces=read_rows,
        batch_sizes=held,
        images=int(held.sum()),
    )


def made_up_evaluation(value: float, samples: int = 1000, loss: float = 0.3) -> Evaluation:
    interval = wilson_interval(round(value * samples), samples)
    return Evaluation("top-1", value, interval, samples, loss, 0.01, PROVENANCE)
