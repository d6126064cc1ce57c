"""Measure a network on a workload's test images, with intervals."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, Subset

from engine.calibration import stacked
from engine.detection import Detections, Precision, precision_of
from engine.layers import evaluation_mode
from engine.outcomes import Outcomes
from engine.probes import Loss, loss_function, outputs_of
from engine.results import Evaluation, Progress, Provenance, wilson_interval
from engine.traces import weighted_mean
from engine.workloads import Workload, describe_data, example_image

BATCH_SIZE = 500  # images at once, at most
NUMBERS = 2**23  # in these images together, at most, if not told otherwise
SLOW_SECONDS = 0.01  # to read an image, before other processes do it
MOST_PROCESSES = 4


@torch.no_grad()
def evaluate(
    model: nn.Module,
    workload: Workload,
    *,
    max_images: int | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    command: str | None = None,
    each: Callable[[Outcomes], None] | None = None,
) -> Evaluation:
    """Measure a workload's metric and mean loss on the test images.

    "top-1" and "top-5" are the share of images whose class is among the first guesses, with
    Wilson's interval; "mAP" is COCO's, over overlaps of 0.5, 0.55 … 0.95, with that of the
    delete-a-group jackknife over images (see `detection.precision_of`).

    Args:
        model: Put into eval mode for the while, and given back as it was.
        workload: Gives the test images, the loss and the name of the metric.
        max_images: The first so many; all by default.
        batch_size: Images at once; as many as memory is sure to hold, 500 at most, by default.
        progress: Told of images done.
        command: That makes the result again; composed from the workload if not given.
        each: Told once what the network does on each image.

    Returns:
        The metric of the images that could be read.

    Raises:
        ValueError: If there are no images, labels that do not match, a metric that is unknown or
            a loss that is not finite.
    """
    metric = _metric(workload)
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1, got {max_images}.")
    data, fingerprint = describe_data(workload.test)
    available = len(workload.test)  # type: ignore[arg-type]
    total = min(available, max_images or available)
    sizes, losses = list[int](), list[float]()
    for outputs, targets in _seen(model, workload, total, batch_size):
        metric.check(outputs, targets)
        values = _losses(outputs, targets, workload.loss)
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"loss of test images {sum(sizes)}…{sum(sizes) + len(outputs) - 1} must be "
                f"finite, got {float(values[~torch.isfinite(values)][0])}: look for NaN in "
                "the images or the weights."
            )
        losses += values.double().tolist()
        sizes += [len(outputs) // len(values)] * len(values)
        metric.see(outputs, targets)
        if progress:
            progress(sum(sizes), total, "test images")
    given = {} if max_images is None else {"max_images": max_images}
    loss, sem = weighted_mean(np.array(losses), np.array(sizes))
    seen = data if total == available else f"the first {total} of {data}"
    value, interval = metric.measured()
    if each:
        right = torch.cat(metric.right).numpy() if isinstance(metric, _ShareRight) else None
        each(Outcomes(right, np.array(losses) if len(losses) == sum(sizes) else None))
    return Evaluation(
        metric=workload.metric,
        value=value,
        interval=interval,
        samples=sum(sizes),
        loss=float(loss),
        loss_sem=float(sem) if np.isfinite(sem) else 0.0,
        provenance=Provenance(
            0, seen, fingerprint, command or workload.command("evaluate", **given)
        ),
    )


@torch.no_grad()
def correct_images(
    model: nn.Module, workload: Workload, *, batch_size: int | None = None
) -> NDArray[np.bool_]:
    """Tell which test images a network classifies right, to compare networks image by image.

    Args:
        model: As for `evaluate`.
        workload: Likewise.
        batch_size: Likewise.

    Returns:
        [test images], in their order.
    """
    metric = _metric(workload)
    if not isinstance(metric, _ShareRight):
        raise ValueError(
            f"metric must be top-1 or top-5 to tell which images are right, got "
            f"{workload.metric!r}: take measured_precision."
        )
    for outputs, targets in _seen(model, workload, len(workload.test), batch_size):  # type: ignore[arg-type]
        metric.check(outputs, targets)
        metric.see(outputs, targets)
    return torch.cat(metric.right).numpy()


@torch.no_grad()
def measured_precision(
    model: nn.Module, workload: Workload, *, batch_size: int | None = None
) -> Precision:
    """Measure the mAP of a network on the test images, to compare networks by on the same images.

    See `detection.precision_difference`.

    Args:
        model: As for `evaluate`.
        workload: Likewise.
        batch_size: Likewise.
    """
    metric = _metric(replace(workload, metric="mAP"))
    assert isinstance(metric, _BoxPrecision)
    for outputs, targets in _seen(model, workload, len(workload.test), batch_size):  # type: ignore[arg-type]
        _losses(outputs, targets, workload.loss)  # refuses what does not fit
        metric.see(outputs, targets)
    return metric.precision()


def _seen(
    model: nn.Module, workload: Workload, images: int, batch_size: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Outputs and targets of the first test images, mini-batch by mini-batch."""
    dataset = Subset(workload.test, range(images))
    example = example_image(workload.test)  # the first may be slow for other reasons
    started = time.perf_counter()
    example_image(workload.test)
    slow = time.perf_counter() - started > SLOW_SECONDS
    loader = DataLoader(
        dataset,
        batch_size=batch_size or max(1, min(BATCH_SIZE, NUMBERS // example.numel())),
        num_workers=min(MOST_PROCESSES, os.cpu_count() or 1) if slow else 0,
        collate_fn=stacked,
        generator=torch.Generator(),  # of no use here, but else it would draw from torch's own
    )
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(parametrize.cached())  # quantized weights are rounded once
        for batch, targets in loader:
            yield outputs_of(model, batch), targets


class _Metric(Protocol):
    """What is measured of outputs, mini-batch by mini-batch."""

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        """Refuse outputs and targets that do not fit."""

    def see(self, outputs: Tensor, targets: Tensor) -> None:
        """Take a mini-batch in."""

    def measured(self) -> tuple[float, tuple[float, float]]:
        """The metric of all that was seen, and its 95 % interval."""


class _ShareRight:
    """How often the class is among the first guesses."""

    def __init__(self, guesses: int, workload: Workload) -> None:
        self.guesses, self.metric = guesses, workload.metric
        self.right: list[Tensor] = []  # [images] of each mini-batch

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        if outputs.dim() != 2 or targets.shape not in (outputs.shape, outputs.shape[:1]):
            raise ValueError(
                f"targets must be one class, or one number an output, for each image, got targets "
                f"{list(targets.shape)} for outputs {list(outputs.shape)}: "
                "take labels and model of the same task."
            )
        if 1 < self.guesses >= outputs.shape[1]:
            raise ValueError(
                f"metric must be one that can fail, got {self.metric!r} of {outputs.shape[1]} "
                "outputs: take top-1."
            )

    def see(self, outputs: Tensor, targets: Tensor) -> None:
        classes = targets.argmax(1) if targets.dim() == 2 else targets  # the largest of numbers
        if self.guesses == 1:
            self.right.append(outputs.argmax(1) == classes)
        else:
            first = outputs.argsort(dim=1, descending=True, stable=True)[:, : self.guesses]
            self.right.append((first == classes[:, None]).any(dim=1))

    def measured(self) -> tuple[float, tuple[float, float]]:
        right = torch.cat(self.right)
        correct = int(right.sum())
        return correct / len(right), wilson_interval(correct, len(right))


class _BoxPrecision:
    """How good the boxes are that a detector finds; no raw outputs are kept."""

    def __init__(self, workload: Workload) -> None:
        if not hasattr(workload.loss, "detections"):
            raise ValueError(
                "loss must say what boxes outputs mean, for the metric mAP, got "
                f"{workload.loss!r}: take one like detection.DetectionLoss, or another metric."
            )
        self.detections: Callable[[Tensor], list[Detections]] = workload.loss.detections
        self.found: list[Detections] = []
        self.targets: list[Tensor] = []

    def check(self, outputs: Tensor, targets: Tensor) -> None:
        pass  # the loss does

    def see(self, outputs: Tensor, targets: Tensor) -> None:
        self.found += self.detections(outputs)
        self.targets += targets.unbind()

    def precision(self) -> Precision:
        return precision_of(self.found, self.targets)

    def measured(self) -> tuple[float, tuple[float, float]]:
        precision = self.precision()
        return precision.value, precision.interval


METRICS: dict[str, Callable[[Workload], _Metric]] = {
    "top-1": partial(_ShareRight, 1),
    "top-5": partial(_ShareRight, 5),
    "mAP": _BoxPrecision,
}


def _metric(workload: Workload) -> _Metric:
    if workload.metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {workload.metric!r}.")
    return METRICS[workload.metric](workload)


def _losses(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Loss of each image; of the mini-batch as one where the user's own tells no more."""
    if hasattr(loss, "each"):
        return loss.each(outputs, targets)
    mean = loss_function(loss)(outputs, targets)  # refuses labels that do not match
    if loss == "cross_entropy":
        each = F.cross_entropy(outputs, targets, reduction="none")
    elif loss == "mse":
        each = F.mse_loss(outputs, targets, reduction="none")
    else:
        return mean.reshape(1)
    return each.flatten(1).mean(1) if each.dim() > 1 else each
