"""Average Hessian traces of every layer and every activation, each with its standard error.

The diagonal block of a layer's Hessian is E_x[Jᵀ S J] wherever the network is piecewise linear in
that layer's weight (see `exactness`), with J the Jacobian of the outputs and S the Hessian of the
loss in the outputs. With c = S^½ u, u Rademacher, one backward pass of ⟨c, outputs⟩ gives Jᵀc for
every layer at once, and ‖Jᵀc‖² has the expectation Tr(Jᵀ S J). A diagonal S may be indefinite, as
that of a detector's loss is: then it takes two backward passes, and traces have a sign.
Hutchinson's estimator with Hessian-vector products (HAWQ-V2, eq. 6) is the reference. The same
holds for the activations that layers read (HAWQ-V2, sec. 3.3), and the same backward passes tell
their traces, image by image.
"""

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn

from engine.activations import Activation, find_activations
from engine.layers import Layer, evaluation_mode, find_layers
from engine.probes import ESTIMATORS, Loss, probe
from engine.results import Progress, TraceEstimate
from engine.sensitivities import mean_from_sums

FEWEST_BATCHES = 32  # before an error is believed enough to stop
NEGLIGIBLE = 0.01  # of Σ Ω: a layer's error below it does not matter to any plan

Batches = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Traces:
    """Average traces of all layers, and the mini-batches they are made of."""

    weights: dict[str, TraceEstimate]
    exact: bool  # for every layer
    images: int
    stopped_because: str  # target, images or time
    estimator: str
    seconds: float
    batch_traces: NDArray[np.float64]  # [batches, layers], average traces
    batch_sizes: NDArray[np.int64]  # [batches]
    channels: dict[str, tuple[float, ...]]  # Tr(H_c) / n_c of each output channel
    channel_sems: dict[str, tuple[float, ...]]  # their standard errors; none if not known
    activations: dict[str, TraceEstimate]  # by first reader; samples are images
    activation_batch_traces: NDArray[np.float64]  # [batches, activations]


def average_traces(
    model: nn.Module,
    batches: Batches,
    *,
    loss: Loss = "cross_entropy",
    layers: Iterable[str] | None = None,
    estimator: str = "gauss_newton",
    relative_sem: float = 0.1,
    max_images: int | None = None,
    max_seconds: float | None = None,
    activations: bool | Sequence[Activation] = True,
    perturbation: Mapping[str, float] | None = None,
    activation_perturbation: Mapping[str, float] | None = None,
    generator: Generator,
    known: Traces | None = None,
    progress: Progress | None = None,
) -> Traces:
    """Estimate Tr(H) / n of each layer's weight, and of what it reads, from mini-batches used once.

    Stops when every layer's and activation's relative standard error is at most the target, after
    32 mini-batches at least, or when images or time run out.

    Args:
        model: Taken as it is (batch norms in eval mode, not folded), and given back as it was.
        batches: (images, targets); small ones, 16 to 64 images, spend the images best.
        loss: "cross_entropy", "mse", or a callable (outputs, targets) → mean loss.
        layers: Names of those wanted; all by default.
        estimator: "gauss_newton" (output-space probes; needs no labels unless the loss is a
            callable), "hutchinson" (a Hessian-vector product a layer) or "hutchinson_shared" (one
            product for all layers: unbiased, with noise from the other layers).
        relative_sem: Target of sem / mean.
        max_images: At most so many images.
        max_seconds: Stop at the first mini-batch that ends later.
        activations: Whether to estimate those of activations too; or which, if they were found
            before. With `layers` given, only those that these read first.
        perturbation: ‖ΔW‖² of each layer at the fewest bits, if known: a layer whose error times
            this is below 1 % of Σ Ω counts as converged too.
        activation_perturbation: ‖Δa‖² of each activation likewise.
        generator: Source of the probes, on the CPU.
        known: To go on from, of other images and the same layers and activations; the result is of
            all images.
        progress: Told of images seen, images at most (0 if unknown), and the error reached.

    Raises:
        ValueError: If there are no images, targets that do not match, weights or losses that are
            not finite, a loss without curvature, or an argument out of range.
    """
    if estimator not in ESTIMATORS:
        raise ValueError(f"estimator must be one of {', '.join(ESTIMATORS)}, got {estimator!r}.")
    if not relative_sem > 0:
        raise ValueError(f"relative_sem must be above 0, got {relative_sem}: 0.1 is usual.")
    if max_images is not None and max_images < 1:
        raise ValueError(f"max_images must be at least 1, got {max_images}.")
    started = time.perf_counter()
    stream = _limited(batches, max_images)
    first = next(stream, None)
    if first is None:
        raise ValueError("batches must hold at least one image, got 0 images.")
    layers_found = find_layers(model, first[0][:1])
    found = _wanted(layers_found, layers)
    if activations is True:
        activations = find_activations(model, first[0]).found
    names = {layer.name for layer in found}
    read = [a for a in activations or () if a.name in names]
    weights = _weights(model, found)
    sizes: list[int] = []
    rows: list[NDArray[np.float64]] = []
    read_rows: list[NDArray[np.float64]] = []
    squares = np.zeros(len(read))  # of each image's own, summed
    channels = [torch.zeros(3, 1, dtype=torch.float64)] * len(found)  # Σ B T, Σ B² T, Σ B² T²
    exact = [True] * (len(found) + len(read))
    if known is not None:
        _check_same(known, found, read)
        sizes, rows = known.batch_sizes.tolist(), list(known.batch_traces)
        read_rows, squares = list(known.activation_batch_traces), _squares(known)
        channels = _channel_sums(known)
        exact = [x.exact for x in (*known.weights.values(), *known.activations.values())]
    stopped = "images"
    with evaluation_mode(model):
        for images, targets in chain([first], stream):
            told = probe(
                model,
                images,
                targets,
                loss=loss,
                estimator=estimator,
                weights=weights,
                found=read,
                some=len(found) < len(layers_found),
                generator=generator,
                index=len(sizes),
            )
            if told.exact:
                exact = told.exact
            by_channel = [
                layer.channels.rows(square).mean(1).double()
                for layer, square in zip(found, told.squares, strict=True)
            ]
            row = np.array([float(x.mean()) for x in by_channel])
            each = told.activations.numpy() / np.array([a.elements for a in read])
            _check_finite(row, found, len(sizes), "layer")
            _check_finite(each.sum(0), read, len(sizes), "the input of layer")
            sizes.append(len(images))
            rows.append(row)
            read_rows.append(each.mean(0))
            squares += np.square(each).sum(0)
            b = len(images)
            channels = [
                sums + torch.stack([b * x, b**2 * x, (b * x).square()])
                for sums, x in zip(channels, by_channel, strict=True)
            ]
            means, sems = weighted_mean(np.array(rows), np.array(sizes))
            read_means, read_sems = _over_images(np.array(read_rows), np.array(sizes), squares)
            settled = _settled(means, sems, relative_sem, found, perturbation)
            settled &= _settled(read_means, read_sems, relative_sem, read, activation_perturbation)
            if progress:
                error = float(np.median(sems / np.where(means == 0, np.inf, np.abs(means))))
                progress(sum(sizes), max_images or 0, f"median error {error:.0%}")
            if len(sizes) >= FEWEST_BATCHES and settled:
                stopped = "target"
                break
            if max_seconds is not None and time.perf_counter() - started > max_seconds:
                stopped = "time"
                break
    if callable(loss) and not np.any(rows):
        raise ValueError(
            "loss must have curvature in the outputs, got one that is linear in them: use a smooth "
            "one (smooth L1 for L1)."
        )
    totals = [np.array(float(x)) for x in (sum(sizes), sum(b**2 for b in sizes))]
    of_channels = {
        layer.name: mean_from_sums(len(sizes), [*totals, *sums.numpy()])
        for layer, sums in zip(found, channels, strict=True)
    }
    with_sems = known is None or all(known.channel_sems.values())
    return Traces(
        weights={
            layer.name: TraceEstimate(float(mean), float(sem), len(sizes), is_exact)
            for layer, mean, sem, is_exact in zip(found, means, sems, exact, strict=False)
        },
        exact=all(exact[: len(found)]),
        images=sum(sizes),
        stopped_because=stopped,
        estimator=estimator,
        seconds=time.perf_counter() - started + (known.seconds if known else 0),
        batch_traces=np.array(rows),
        batch_sizes=np.array(sizes, dtype=np.int64),
        channels={name: tuple(mean.tolist()) for name, (mean, _) in of_channels.items()},
        channel_sems={
            name: tuple(sem.tolist()) if with_sems else () for name, (_, sem) in of_channels.items()
        },
        activations={
            a.name: TraceEstimate(float(mean), float(sem), sum(sizes), is_exact)
            for a, mean, sem, is_exact in zip(
                read, read_means, read_sems, exact[len(found) :], strict=True
            )
        },
        activation_batch_traces=np.array(read_rows),
    )


def weighted_mean(
    values: NDArray[np.float64], sizes: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over images and its standard error, from means over mini-batches.

    T̄ = Σ B_b T_b / N and sem² = m / (m − 1) · Σ (B_b / N)² (T_b − T̄)² over m mini-batches.

    Args:
        values: [m, ...].
        sizes: [m], images in each.

    Returns:
        Mean and standard error [...]; the error is infinite for one mini-batch.
    """
    share = (sizes / sizes.sum()).reshape(-1, *[1] * (values.ndim - 1))
    mean = (share * values).sum(0)
    count = len(values)
    if count < 2:
        return mean, np.full_like(mean, np.inf)
    spread = (share**2 * (values - mean) ** 2).sum(0)
    return mean, np.sqrt(count / (count - 1) * spread)


def _over_images(
    rows: NDArray[np.float64], sizes: NDArray[np.int64], squares: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean over all images and its standard error, from means over mini-batches.

    Args:
        rows: [batches, activations].
        sizes: [batches], images in each.
        squares: [activations], Σ of squares over all images.
    """
    count = int(sizes.sum())
    mean = sizes @ rows / count
    if count < 2:
        return mean, np.full_like(mean, np.inf)
    spread = np.maximum(squares / count - mean**2, 0)
    return mean, np.sqrt(spread / (count - 1))


def _squares(known: Traces) -> NDArray[np.float64]:
    """Σ over images of each activation's squares, from its mean and standard error."""
    told = known.activations.values()
    means, sems = np.array([x.mean for x in told]), np.array([x.sem for x in told])
    spread = (known.images - 1) * np.where(np.isfinite(sems), sems, 0) ** 2
    return known.images * (means**2 + spread)


def _channel_sums(known: Traces) -> list[Tensor]:
    """Σ B T, Σ B² T and Σ B² T² of each layer's channels, [3, channels], from mean and error.

    The second is exact for mini-batches of one size; a last one that is smaller hardly changes it.
    """
    m, b = len(known.batch_sizes), torch.from_numpy(known.batch_sizes).double()
    sums = []
    for name, told in known.channels.items():
        mean = torch.tensor(told, dtype=torch.float64)
        spread = torch.zeros_like(mean)
        if m > 1 and known.channel_sems[name]:
            sem = torch.tensor(known.channel_sems[name], dtype=torch.float64)
            spread = (sem * known.images).square() * (m - 1) / m
        squared = b.square().sum()
        rows = [mean * b.sum(), mean * squared, spread + mean.square() * squared]
        sums.append(torch.stack(rows))
    return sums


def _check_same(known: Traces, found: Sequence[Layer], read: Sequence[Activation]) -> None:
    for what, own, given in (
        ("layers", [x.name for x in found], list(known.weights)),
        ("activations", [x.name for x in read], list(known.activations)),
    ):
        if own != given:
            raise ValueError(
                f"known must hold traces of the same {what} {', '.join(own)}, "
                f"got {', '.join(given) or 'none'}."
            )


def _check_finite(
    row: NDArray[np.float64], of: Sequence[Layer | Activation], index: int, what: str
) -> None:
    if not np.isfinite(row).all():
        worst = int(np.argmin(np.isfinite(row)))
        raise ValueError(
            f"traces of mini-batch {index} must be finite, got {row[worst]} "
            f"in {what} {of[worst].name!r}: look for overflow in the network."
        )


def _limited(batches: Batches, max_images: int | None) -> Iterator[tuple[Tensor, Tensor]]:
    """Mini-batches up to a number of images, the last one cut; empty ones are passed over."""
    left = max_images
    for images, targets in batches:
        if left is not None:
            images, targets = images[:left], targets[:left]
            left -= len(images)
        if len(images):
            yield images, targets
        if left == 0:
            return


def _wanted(found: tuple[Layer, ...], names: Iterable[str] | None) -> tuple[Layer, ...]:
    if names is None:
        return found
    by_name = {layer.name: layer for layer in found}
    wanted = list(names)
    for name in wanted:
        if name not in by_name:
            raise ValueError(f"layers must be among {', '.join(by_name)}, got {name!r}.")
    return tuple(layer for layer in found if layer.name in wanted)


def _weights(model: nn.Module, layers: tuple[Layer, ...]) -> list[Tensor]:
    parameters = dict(model.named_parameters())
    weights: list[Tensor] = [parameters[layer.parameter] for layer in layers]
    for layer, weight in zip(layers, weights, strict=True):
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(
                f"weights of layer {layer.name!r} must be finite, got NaN or infinity: "
                "load weights from before the training diverged."
            )
    return weights


def _settled(
    means: NDArray[np.float64],
    sems: NDArray[np.float64],
    target: float,
    layers: Sequence[Layer | Activation],
    perturbation: Mapping[str, float] | None,
) -> bool:
    """Whether every one's error is within the target, or cannot matter."""
    settled = sems <= target * np.abs(means)
    if perturbation is not None and np.isfinite(sems).all():
        sizes = np.array([perturbation[layer.name] for layer in layers])
        settled |= sems * sizes < NEGLIGIBLE * float((np.maximum(means, sems) * sizes).sum())
    return bool(settled.all())
