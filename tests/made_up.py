"""An analysis of made-up numbers, for drawing only: nothing here was measured."""

import numpy as np

from engine.analysis import Analysis, LayerSensitivity
from engine.results import Evaluation, Provenance, TraceEstimate, wilson_interval

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


def made_up_analysis(workload: str = "resnet20-cifar10", layers: tuple = LAYERS) -> Analysis:
    rng = np.random.default_rng(0)
    records = []
    for name, shape, mean, sem, exact in layers:
        n = int(np.prod(shape))
        trace = TraceEstimate(mean, sem, BATCHES, exact)
        moved = {b: n * (0.1 / 2**b) ** 2 * float(rng.uniform(0.8, 1.2)) for b in range(2, 9)}
        omega = {b: trace.for_omega * x for b, x in moved.items()}
        kind = "linear" if len(shape) == 2 else "conv2d"
        channels = (mean,) * shape[0]
        records.append(
            LayerSensitivity(name, kind, shape, n, 100 * n, trace, moved, omega, channels)
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
    )


def made_up_evaluation(value: float, samples: int = 1000, loss: float = 0.3) -> Evaluation:
    interval = wilson_interval(round(value * samples), samples)
    return Evaluation("top-1", value, interval, samples, loss, 0.01, PROVENANCE)
