"""Average Hessian traces of every layer, each with its standard error.

The diagonal block of a layer's Hessian is E_x[Jᵀ S J] wherever the network is piecewise linear in
that layer's weight (see `exactness`), with J the Jacobian of the outputs and S the Hessian of the
loss in the outputs. With c = S^½ u, u Rademacher, one backward pass of ⟨c, outputs⟩ gives Jᵀc for
every layer at once, and ‖Jᵀc‖² has the expectation Tr(Jᵀ S J). Hutchinson's estimator with
Hessian-vector products (HAWQ-V2, eq. 6) is the reference.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from engine.exactness import linear_weights
from engine.layers import Layer, evaluation_mode, find_layers
from engine.results import Progress, TraceEstimate

ESTIMATORS = ("gauss_newton", "hutchinson", "hutchinson_shared")
LOSSES = ("cross_entropy", "mse")
FEWEST_BATCHES = 32  # before an error is believed enough to stop
NEGLIGIBLE = 0.01  # of Σ Ω: a layer's error below it does not matter to any plan

Loss = str | Callable[[Tensor, Tensor], Tensor]
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
    activations: dict[str, TraceEstimate] = field(default_factory=dict)


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
    perturbation: Mapping[str, float] | None = None,
    generator: Generator,
    progress: Progress | None = None,
) -> Traces:
    """Estimate Tr(H) / n of each layer, from mini-batches that are each used once.

    Stops when every layer's relative standard error is at most the target, after 32 mini-batches
    at least, or when images or time run out.

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
        perturbation: ‖ΔW‖² of each layer at the fewest bits, if known: a layer whose error times
            this is below 1 % of Σ Ω counts as converged too.
        generator: Source of the probes, on the CPU.
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
    found = _wanted(find_layers(model, first[0][:1]), layers)
    weights = _weights(model, found)
    sizes: list[int] = []
    rows: list[NDArray[np.float64]] = []
    channels: list[Tensor] = [torch.zeros(())] * len(found)
    exact = [True] * len(found)
    stopped = "images"
    with evaluation_mode(model):
        for images, targets in chain([first], stream):
            probe = _probe(model, images, targets, loss, estimator, weights, generator, len(sizes))
            if not sizes and estimator == "gauss_newton":
                exact = probe.exact
            by_channel = [
                layer.channels.rows(square).mean(1)
                for layer, square in zip(found, probe.squares, strict=True)
            ]
            row = np.array([float(x.double().mean()) for x in by_channel])
            if not np.isfinite(row).all():
                worst = int(np.argmin(np.isfinite(row)))
                raise ValueError(
                    f"traces of mini-batch {len(sizes)} must be finite, got {row[worst]} "
                    f"in layer {found[worst].name!r}: look for overflow in the network."
                )
            sizes.append(len(images))
            rows.append(row)
            channels = [a + b * len(images) for a, b in zip(channels, by_channel, strict=True)]
            means, sems = weighted_mean(np.array(rows), np.array(sizes))
            settled = _settled(means, sems, relative_sem, found, perturbation)
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
    return Traces(
        weights={
            layer.name: TraceEstimate(float(mean), float(sem), len(sizes), is_exact)
            for layer, mean, sem, is_exact in zip(found, means, sems, exact, strict=True)
        },
        exact=all(exact),
        images=sum(sizes),
        stopped_because=stopped,
        estimator=estimator,
        seconds=time.perf_counter() - started,
        batch_traces=np.array(rows),
        batch_sizes=np.array(sizes, dtype=np.int64),
        channels={
            layer.name: tuple((total / sum(sizes)).tolist())
            for layer, total in zip(found, channels, strict=True)
        },
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


def curvature_root(outputs: Tensor, loss: str, u: Tensor) -> Tensor:
    """Multiply by S^½, any root with S^½ S^½ᵀ = S, the Hessian of each image's loss in its outputs.

    Cross-entropy: S = diag(p) − p pᵀ, S^½ u = √p ∘ u − p (√p · u). Mean squared error over K
    outputs: S = 2 / K · I. Where a loss averages over positions (outputs [N, K, ...]), so does S.
    With u Rademacher, c = S^½ u has E[c cᵀ] = S.

    Args:
        outputs: [N, K] logits or [N, K, positions ...]; for "mse" any [N, ...].
        loss: "cross_entropy" or "mse".
        u: Shaped like the outputs.
    """
    count = outputs[0].numel()
    if loss == "mse":
        return u * (2 / count) ** 0.5
    p = outputs.softmax(1)
    root = p.sqrt()
    positions = count // outputs.shape[1]
    return (root * u - p * (root * u).sum(1, keepdim=True)) / positions**0.5


@dataclass(frozen=True)
class _Probe:
    """One mini-batch: for each layer, numbers whose sum estimates its trace without bias."""

    squares: Sequence[Tensor]  # shaped like the weights
    exact: list[bool]  # told with the first mini-batch only: it is the same for all


def _probe(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Loss,
    estimator: str,
    weights: list[Tensor],
    generator: Generator,
    index: int,
) -> _Probe:
    outputs = outputs_of(model, images)
    value = _mean_loss(outputs, targets, loss, index)
    if estimator != "gauss_newton":
        squares = _hessian_probe(value, weights, estimator == "hutchinson_shared", generator)
        return _Probe(squares, [True] * len(weights))
    exact = linear_weights(outputs, weights) if index == 0 else []
    u = _rademacher(outputs, generator)
    if isinstance(loss, str):
        c = curvature_root(outputs.detach(), loss, u)
        gradients = _gradients(outputs, weights, c)
        return _Probe([g.square() / len(images) for g in gradients], exact)
    curved = _loss_curvature(outputs, targets, loss, u)
    left = _gradients(outputs, weights, u, retain=True)
    right = _gradients(outputs, weights, curved)
    return _Probe([a * b for a, b in zip(left, right, strict=True)], exact)


def _mean_loss(outputs: Tensor, targets: Tensor, loss: Loss, index: int) -> Tensor:
    """The mean loss of a mini-batch, finite."""
    if len(targets) != len(outputs):
        raise ValueError(
            f"targets of mini-batch {index} must be one an image, "
            f"got {len(targets)} for {len(outputs)} images."
        )
    value = loss_function(loss)(outputs, targets)
    if not torch.isfinite(value):
        raise ValueError(
            f"loss of mini-batch {index} must be finite, got {value.item()}: "
            "look for NaN in the images or a diverged network."
        )
    return value


def outputs_of(model: nn.Module, images: Tensor) -> Tensor:
    """What a network gives for images.

    Raises:
        ValueError: If that is not one tensor.
    """
    outputs = model(images)
    if not isinstance(outputs, Tensor):
        raise ValueError(
            f"model must return one tensor, got {type(outputs).__name__}: wrap it in a module "
            "that picks the output the loss reads."
        )
    return outputs


def loss_function(loss: Loss) -> Callable[[Tensor, Tensor], Tensor]:
    """The mean loss of (outputs, targets) by name.

    Raises:
        ValueError: If the name is unknown, or, when called, labels are none of the classes.
    """
    if callable(loss):
        return loss
    if loss not in LOSSES:
        raise ValueError(f"loss must be one of {', '.join(LOSSES)} or a callable, got {loss!r}.")
    return _cross_entropy if loss == "cross_entropy" else F.mse_loss


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    if targets.is_floating_point():
        raise ValueError(
            f"targets must be class numbers for cross_entropy, got {targets.dtype}: "
            'give labels as integers, or set loss="mse".'
        )
    classes = outputs.shape[1]
    if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < classes:
        wrong = int(targets.max()) if int(targets.max()) >= classes else int(targets.min())
        raise ValueError(
            f"targets must be classes in 0…{classes - 1}, as many as the model has outputs, "
            f"got {wrong}: take labels and model of the same task."
        )
    return F.cross_entropy(outputs, targets)


def _loss_curvature(
    outputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], u: Tensor
) -> Tensor:
    """S u for the mean loss as a function of the outputs alone."""
    leaf = outputs.detach().requires_grad_(True)
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(loss(leaf, targets), leaf, create_graph=True)
        if not slope.requires_grad:
            return torch.zeros_like(leaf)
        (curved,) = torch.autograd.grad(slope, leaf, u)
    return curved


def _hessian_probe(
    value: Tensor, weights: list[Tensor], shared: bool, generator: Generator
) -> list[Tensor]:
    """v ∘ H v: for each layer with its own product and block, or with one product for all."""
    slopes = torch.autograd.grad(value, weights, create_graph=True)
    probes = [_rademacher(weight, generator) for weight in weights]
    if shared:
        products = torch.autograd.grad(slopes, weights, probes)
        return [v * p for v, p in zip(probes, products, strict=True)]
    squares: list[Tensor] = []
    for slope, weight, v in zip(slopes, weights, probes, strict=True):
        last = len(squares) == len(weights) - 1
        (product,) = torch.autograd.grad(slope, weight, v, retain_graph=not last)
        squares.append(v * product)
    return squares


def _gradients(
    outputs: Tensor, weights: list[Tensor], cotangent: Tensor, retain: bool = False
) -> tuple[Tensor, ...]:
    return torch.autograd.grad(outputs, weights, cotangent, retain_graph=retain)


def _rademacher(like: Tensor, generator: Generator) -> Tensor:
    """±1 with equal chances, shaped like a tensor and on its device."""
    signs = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(like)


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
    layers: tuple[Layer, ...],
    perturbation: Mapping[str, float] | None,
) -> bool:
    """Whether every layer's error is within the target, or cannot matter."""
    settled = sems <= target * np.abs(means)
    if perturbation is not None:
        sizes = np.array([perturbation[layer.name] for layer in layers])
        settled |= sems * sizes < NEGLIGIBLE * float((np.maximum(means, sems) * sizes).sum())
    return bool(settled.all())
