"""Time to 10 % relative standard error in the median layer: output-space probes, Hutchinson.

Each estimator takes a number of mini-batches, each with a fresh probe; the spread of a layer's
mini-batch traces tells how many of them 10 % needs, and the time of one tells how long that takes.
Hutchinson is the per-layer one of the paper. The baseline shares the forward and first backward
pass between layers; beside it stands one that builds the graph anew for each layer, as most
published code does. All these are of the weights; what the traces of activations cost on top, from
the same backward pass, is timed by turns with and without them.

    python benchmarks/traces.py [resnet20-cifar10] [resnet50]
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import perf_counter

import numpy as np
import torch
from setting import print_setting, verdict
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet50

from engine import load_workload
from engine.traces import Traces, average_traces

TARGET = 0.1  # relative standard error
PLAIN_REPEATS = 5
TURNS = 7  # with activations and without
MOST = 1.2  # times the weights' traces, with those of activations

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Case:
    """A network, images for it, and how many probes each estimator gets."""

    model: nn.Module
    batches: list[Batch]
    probes: dict[str, int]  # estimator → mini-batches
    goal: float  # least ratio of times


def resnet20_cifar10() -> Case:
    """The sample network on the shipped sample, in mini-batches of 32."""
    workload = load_workload("resnet20-cifar10")
    loader = torch.utils.data.DataLoader(workload.calibration, batch_size=32)
    probes = {"gauss_newton": 31, "hutchinson": 31, "hutchinson_shared": 31}
    return Case(workload.model, list(loader), probes, goal=20)


def resnet50_random() -> Case:
    """Torchvision's ResNet50 with random weights on noise of 224², in mini-batches of 4.

    Ten forward passes re-estimate its batch norms: without them the softmax saturates.
    """
    torch.manual_seed(0)
    model = resnet50()
    with torch.no_grad():
        for _ in range(10):
            model(torch.randn(8, 3, 224, 224))
    batches = [(torch.randn(4, 3, 224, 224), torch.randint(0, 1000, (4,))) for _ in range(16)]
    probes = {"gauss_newton": 16, "hutchinson": 6, "hutchinson_shared": 6}
    return Case(model.eval(), batches, probes, goal=50)


CASES: dict[str, Callable[[], Case]] = {
    "resnet20-cifar10": resnet20_cifar10,
    "resnet50": resnet50_random,
}


def estimate(
    case: Case,
    batches: list[Batch],
    estimator: str,
    layer: str | None = None,
    activations: bool = False,
) -> Traces:
    """Traces from these mini-batches, to the last of them."""
    return average_traces(
        case.model,
        batches,
        estimator=estimator,
        layers=None if layer is None else [layer],
        activations=activations,
        relative_sem=1e-9,
        generator=torch.Generator().manual_seed(0),
    )


def plain_seconds(case: Case) -> float:
    """One forward and backward pass of a mini-batch, median of some after one to warm up."""
    images, targets = case.batches[0]
    times = []
    for _ in range(PLAIN_REPEATS + 1):
        start = perf_counter()
        F.cross_entropy(case.model(images), targets).backward()
        times.append(perf_counter() - start)
    case.model.zero_grad()
    return median(times[1:])


def report(name: str, case: Case) -> None:
    """Print one network's table."""
    size = len(case.batches[0][0])
    print(f"{name}, mini-batches of {size}")
    plain = plain_seconds(case)
    estimate(case, case.batches[:1], "gauss_newton")  # warms up
    print(f"  plain forward + backward         {plain:8.3f} s a mini-batch")
    print("                                   s a probe   spread   probes for 10 %       time")
    times = {}
    for estimator, count in case.probes.items():
        traces = estimate(case, case.batches[:count], estimator)
        seconds = traces.seconds / count
        means = traces.batch_traces.mean(0)
        spread = float(np.median(traces.batch_traces.std(0, ddof=1) / np.abs(means)))
        needed = (spread / TARGET) ** 2
        times[estimator] = seconds * needed
        print(
            f"  {estimator:<30} {seconds:11.3f} {spread:8.2f} {needed:17.1f} "
            f"{seconds * needed:8.1f} s",
            flush=True,
        )
        if estimator == "gauss_newton":
            probe = seconds
        if estimator == "hutchinson":
            layers = list(traces.weights)
            rebuilt = sum(estimate(case, case.batches[:1], estimator, x).seconds for x in layers)
            times["rebuilt"] = rebuilt * needed
            print(
                f"    graph built anew per layer   {rebuilt:11.3f} {spread:8.2f} {needed:17.1f} "
                f"{rebuilt * needed:8.1f} s",
                flush=True,
            )
    ratio = times["hutchinson"] / times["gauss_newton"]
    print(f"  Hutchinson / output-space probes: {ratio:.0f} ", end="")
    print(f"(goal: at least {case.goal:.0f}, {verdict(ratio >= case.goal)}); ", end="")
    print(f"graph built anew: {times['rebuilt'] / times['gauss_newton']:.0f}; ", end="")
    print(f"shared: {times['hutchinson_shared'] / times['gauss_newton']:.0f}")
    print(f"  output-space probe / plain forward + backward: {probe / plain:.2f} ", end="")
    print(f"(goal: at most 1.3, {verdict(probe / plain <= 1.3)})")
    ratios = [
        with_activations / without
        for without, with_activations in (
            tuple(
                estimate(case, case.batches, "gauss_newton", activations=asked).seconds
                for asked in (False, True)
            )
            for _ in range(TURNS)
        )
    ]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75))
    print(f"  weights and activations / weights alone: {middle:.2f} ", end="")
    print(f"(quartiles {low:.2f} to {high:.2f}; goal: at most {MOST}, ", end="")
    print(f"{verdict(middle <= MOST)})\n", flush=True)


def main() -> None:
    """Print a table for each network asked for, all by default."""
    print_setting(
        "Traces: time to 10 % relative standard error in the median layer",
        "torch",
        "torchvision",
    )
    for name in sys.argv[1:] or CASES:
        report(name, CASES[name]())


if __name__ == "__main__":
    main()
