"""Measure a network on a workload's test images, with intervals."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.utils.data import DataLoader, Subset

from engine.layers import evaluation_mode
from engine.probes import Loss, loss_function, outputs_of
from engine.results import DEVIATIONS, Evaluation, Progress, Provenance, wilson_interval
from engine.traces import weighted_mean
from engine.workloads import Workload, describe_data, example_image

METRICS = {"top-1": 1, "top-5": 5}  # how many of the first guesses may be right
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
) -> Evaluation:
    """Measure accuracy and mean loss on the test images.

    Args:
        model: Put into eval mode for the while, and given back as it was.
        workload: Gives the test images, the loss and the name of the metric.
        max_images: The first so many; all by default.
        batch_size: Images at once; as many as memory is sure to hold, 500 at most, by default.
        progress: Told of images done.
        command: That makes the result again; composed from the workload if not given.

    Returns:
        The metric of the images that could be read.

    Raises:
        ValueError: If there are no images, labels that do not match, a metric that is unknown or
            a loss that is not finite.
    """
    if workload.metric not in METRICS:
        raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {workload.metric!r}.")
    if batch_size is not None and batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1, got {max_images}.")
    data, fingerprint = describe_data(workload.test)
    available = len(workload.test)  # type: ignore[arg-type]
    total = min(available, max_images or available)
    correct, sizes, losses = 0, list[int](), list[float]()
    for outputs, targets in _seen(model, workload, total, batch_size):
        classes = _classes(outputs, targets)
        values = _losses(outputs, targets, workload.loss)
        if not bool(torch.isfinite(values).all()):
            raise ValueError(
                f"loss of test images {sum(sizes)}…{sum(sizes) + len(outputs) - 1} must be "
                f"finite, got {float(values[~torch.isfinite(values)][0])}: look for NaN in "
                "the images or the weights."
            )
        losses += values.double().tolist()
        sizes += [len(outputs) // len(values)] * len(values)
        correct += int(_right(outputs, classes, workload.metric).sum())
        if progress:
            progress(sum(sizes), total, "test images")
    given = {} if max_images is None else {"max_images": max_images}
    loss, sem = weighted_mean(np.array(losses), np.array(sizes))
    seen = data if total == available else f"the first {total} of {data}"
    return Evaluation(
        metric=workload.metric,
        value=correct / sum(sizes),
        interval=wilson_interval(correct, sum(sizes)),
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
    total = len(workload.test)  # type: ignore[arg-type]
    right = [
        _right(outputs, _classes(outputs, targets), workload.metric).numpy()
        for outputs, targets in _seen(model, workload, total, batch_size)
    ]
    return np.concatenate(right)


def paired_difference(ours: ArrayLike, theirs: ArrayLike) -> tuple[float, tuple[float, float]]:
    """How much more often one way to make a network is right than another, with its 95 % interval.

    What is common to both on an image, how hard it is above all, cancels: the interval is that of
    the mean over images of the difference, each averaged over the networks of its way (McNemar's
    setting, with several networks a side).

    Args:
        ours: Whether each image is right, [images], or [networks, images] of several seeds.
        theirs: The same images in the same order.

    Raises:
        ValueError: If these are not the same number of images, or fewer than two.
    """
    each = [np.atleast_2d(np.asarray(x, dtype=np.float64)).mean(axis=0) for x in (ours, theirs)]
    if each[0].shape != each[1].shape or len(each[0]) < 2:
        raise ValueError(
            "ours and theirs must be of the same images, two or more, "
            f"got {len(each[0])} and {len(each[1])}."
        )
    difference = each[0] - each[1]
    half = DEVIATIONS * float(difference.std(ddof=1)) / len(difference) ** 0.5
    mean = float(difference.mean())
    return mean, (mean - half, mean + half)


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
        generator=torch.Generator(),  # of no use here, but else it would draw from torch's own
    )
    with ExitStack() as stack:
        stack.enter_context(evaluation_mode(model))
        stack.enter_context(parametrize.cached())  # quantized weights are rounded once
        for batch, targets in loader:
            yield outputs_of(model, batch), targets


def _classes(outputs: Tensor, targets: Tensor) -> Tensor:
    """The class of each image; the largest target where there is one an output."""
    if outputs.dim() != 2 or targets.shape not in (outputs.shape, outputs.shape[:1]):
        raise ValueError(
            f"targets must be one class, or one number an output, for each image, got targets "
            f"{list(targets.shape)} for outputs {list(outputs.shape)}: "
            "take labels and model of the same task."
        )
    return targets.argmax(1) if targets.dim() == 2 else targets


def _right(outputs: Tensor, classes: Tensor, metric: str) -> Tensor:
    """Whether each image's class is among the first guesses, [N]."""
    guesses = METRICS[metric]
    if 1 < guesses >= outputs.shape[1]:
        raise ValueError(
            f"metric must be one that can fail, got {metric!r} of {outputs.shape[1]} outputs: "
            "take top-1."
        )
    if guesses == 1:
        return outputs.argmax(1) == classes
    first = outputs.argsort(dim=1, descending=True, stable=True)[:, :guesses]
    return (first == classes[:, None]).any(dim=1)


def _losses(outputs: Tensor, targets: Tensor, loss: Loss) -> Tensor:
    """Loss of each image; of the mini-batch as one where the loss is the user's own."""
    mean = loss_function(loss)(outputs, targets)  # refuses labels that do not match
    if loss == "cross_entropy":
        each = F.cross_entropy(outputs, targets, reduction="none")
    elif loss == "mse":
        each = F.mse_loss(outputs, targets, reduction="none")
    else:
        return mean.reshape(1)
    return each.flatten(1).mean(1) if each.dim() > 1 else each
