"""An analysis of three layers whose numbers follow from their sizes."""

from dataclasses import replace

import numpy as np

from engine.analysis import Analysis, LayerSensitivity
from engine.results import Provenance, TraceEstimate

PROVENANCE = Provenance(0, "64 images", "ab12", "hawq-viz analyze toy", {"python": "3.11"}, "2024")
LAYERS = {"conv1": 432, "layer1.0.conv1": 2304, "fc": 640}
BITS = (2, 4, 8)


def make_layer(name, parameters, mean, sem=0.01):
    perturbation = {bits: parameters * 4.0**-bits for bits in BITS}
    return LayerSensitivity(
        name=name,
        kind="conv2d",
        shape=(parameters // 4, 4),
        parameters=parameters,
        macs=100 * parameters,
        trace=TraceEstimate(mean, sem, samples=4, exact=True),
        perturbation=perturbation,
        omega={bits: max(mean, sem) * x for bits, x in perturbation.items()},
        channel_traces=(mean / 2, mean * 2),
    )


def make_analysis(**changes):
    layers = tuple(make_layer(n, p, 0.5 / (i + 1)) for i, (n, p) in enumerate(LAYERS.items()))
    analysis = Analysis(
        workload="toy",
        layers=layers,
        bit_widths=BITS,
        loss="cross_entropy",
        estimator="gauss_newton",
        granularity="layer",
        quantizer={"scheme": "symmetric", "weight_granularity": "channel", "weight_range": "mse"},
        relative_sem=0.1,
        images=64,
        stopped_because="images",
        seconds=1.25,
        batch_traces=np.arange(12.0).reshape(4, 3),
        batch_sizes=np.array([16, 16, 16, 16]),
        provenance=PROVENANCE,
    )
    return replace(analysis, **changes)
