"""One mini-batch's estimate of every trace: output-space probes, and Hutchinson's.

Both give numbers whose expectation is the trace of a weight's block of the Hessian, for each weight
and, image by image, for each activation, from the same backward pass.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Generator, Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.nn import functional as F

from engine.activations import Activation, tapped, told_apart
from engine.exactness import linear_in
from engine.losses import check_loss_is_mean

ESTIMATORS = ("gauss_newton", "hutchinson", "hutchinson_shared")
LOSSES = ("cross_entropy", "mse")
FEW = 4  # images that a loss is shown to be a mean on
DIAGONAL_TOLERANCE = 1e-3  # of the largest curvature: what counts as diagonal

Loss = str | Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Probe:
    """What one mini-batch says of every trace."""

    squares: Sequence[Tensor]  # shaped like the weights; the sum of each estimates its trace
    activations: Tensor  # [images, activations] in float64: estimates of each image's own trace
    exact: list[bool]  # weights, then activations; told with the first mini-batch only, for all


def probe(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    *,
    loss: Loss,
    estimator: str,
    weights: Sequence[Tensor],
    found: Sequence[Activation],
    some: bool,
    generator: Generator,
    index: int,
) -> Probe:
    """Estimate all traces once.

    The Hessian of a mean loss in a batch of activations is block-diagonal over the images, each
    block an image's own Hessian over their number, so its trace is told image by image.

    Args:
        model: In eval mode, with gradients for the weights.
        images: [N, ...].
        targets: [N, ...].
        loss: A name or a callable; its attribute `elementwise`, if true, says that each output's
            share depends on that output alone, see `elementwise_roots`.
        estimator: One of `ESTIMATORS`.
        weights: Those wanted.
        found: Activations wanted.
        some: Whether these are not all weights that layers read, so that a backward pass to them
            may not come by every activation.
        generator: Source of the probes.
        index: Of the mini-batch, for messages.

    Raises:
        ValueError: If targets or outputs are not what the loss takes, or the loss is not finite.
    """
    marks = _Marks(found, len(images))
    with tapped(model, marks.functions(), found):
        outputs = outputs_of(model, images)
    value = _mean_loss(outputs, targets, loss, index)
    count = len(weights)
    edges = [get_gradient_edge(weight) for weight in weights] + marks.edges
    if estimator != "gauss_newton":
        products = _hessian_probe(value, edges, estimator == "hutchinson_shared", generator)
        marks.add_all([product * len(images) for product in products[count:]])
        return Probe(products[:count], marks.totals, [True] * (count + len(found)))
    exact = []
    if index == 0:
        linear = linear_in(outputs, edges)
        exact = linear[:count] + marks.all_of(linear[count:])
    u = _rademacher(outputs, generator)
    if isinstance(loss, str) or getattr(loss, "elementwise", False):
        roots = _roots(outputs, targets, loss, u, index)
        asked = edges if some else edges[:count] + marks.unheard
        squares = _signed_squares(outputs, asked, count, roots, marks)
        return Probe([square / len(images) for square in squares], marks.totals, exact)
    curved = _loss_curvature(outputs, targets, loss, u)
    left = torch.autograd.grad(outputs, edges, u, retain_graph=True)
    right = torch.autograd.grad(outputs, edges, curved)
    products = [a * b for a, b in zip(left, right, strict=True)]
    marks.add_all([product * len(images) for product in products[count:]])
    return Probe(products[:count], marks.totals, exact)


def _signed_squares(
    outputs: Tensor,
    asked: Sequence[GradientEdge],
    weights: int,
    roots: Sequence[tuple[int, Tensor]],
    marks: "_Marks",
) -> list[Tensor]:
    """Σ ± (Jᵀc)² of each weight, one backward pass for each root c; the marks hear theirs."""
    totals: list[Tensor] = []
    for i, (sign, c) in enumerate(roots):
        with marks.hearing(partial(_signed_square, sign)):
            kept = i + 1 < len(roots)
            gradients = torch.autograd.grad(outputs, asked, c, retain_graph=kept)
        squares = [_signed_square(sign, gradient) for gradient in gradients[:weights]]
        totals = [a + b for a, b in zip(totals, squares, strict=True)] if totals else squares
    return totals


def _signed_square(sign: int, gradient: Tensor) -> Tensor:
    return sign * gradient.square()


class _Marks:
    """The activations of one forward pass, each told apart, and what is added up of them.

    Their gradients are heard as the backward pass comes by, so that no two are held at once.
    """

    def __init__(self, found: Sequence[Activation], images: int) -> None:
        self.found, self.images = found, images
        self.edges: list[GradientEdge] = []
        self.owners: list[int] = []  # activation of each edge
        self.unheard: list[GradientEdge] = []  # leaves: a backward pass comes by only if asked to
        self.totals = torch.zeros(images, len(found), dtype=torch.float64)
        self.change: Callable[[Tensor], Tensor] | None = None

    def functions(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """Functions for `tapped`: each hands on what it is given."""
        return {a.name: partial(self._mark, i) for i, a in enumerate(self.found)}

    def _mark(self, i: int, tensor: Tensor) -> Tensor:
        marked = told_apart(tensor)
        edge = get_gradient_edge(marked)
        self.edges.append(edge)
        self.owners.append(i)
        if marked.is_leaf:
            self.unheard.append(edge)
        marked.register_hook(partial(self._hear, len(self.edges) - 1))
        return marked

    def _hear(self, k: int, gradient: Tensor) -> None:
        if self.change is not None:
            self.add(k, self.change(gradient))

    @contextmanager
    def hearing(self, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Add up what this makes of each gradient that is heard in the while."""
        self.change = change
        try:
            yield
        finally:
            self.change = None

    def add(self, k: int, values: Tensor) -> None:
        """Add the sum over each image to what is known of the activation of an edge."""
        by_image = values.detach().reshape(self.images, -1).sum(1)
        self.totals[:, self.owners[k]] += by_image.double()

    def add_all(self, values: Sequence[Tensor]) -> None:
        """The same for every edge."""
        for k, value in enumerate(values):
            self.add(k, value)

    def all_of(self, told: Sequence[bool]) -> list[bool]:
        """What is true of all edges of each activation."""
        return [
            all(x for x, owner in zip(told, self.owners, strict=True) if owner == i)
            for i in range(len(self.found))
        ]


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


def elementwise_roots(
    outputs: Tensor, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor], u: Tensor
) -> list[tuple[int, Tensor]]:
    """Multiply by the roots of a diagonal S: S₊^½ u, with sign 1, and S₋^½ u, with −1, if any.

    S = S₊ − S₋, the Hessian of each image's loss in its outputs, may be indefinite where it is
    diagonal, as that of a focal loss is. ‖Jᵀ S₊^½ u‖² − ‖Jᵀ S₋^½ u‖² has the expectation
    Tr(Jᵀ S J); it is ⟨Jᵀ|S|^½ u, Jᵀ sign(S)|S|^½ u⟩, element by element, without the gradients of
    two backward passes held side by side. On `retinanet-shapes` it needs 870 times fewer images
    than ⟨Jᵀu, JᵀSu⟩ for the median weight, 170 times for the median activation: few outputs of a
    detector are curved, and that one hears the noise of all.

    Args:
        outputs: [N, ...].
        targets: [N, ...].
        loss: (outputs, targets) → mean loss; each output's share depends on that output alone.
        u: Shaped like the outputs.
    """
    s = len(outputs) * _loss_curvature(outputs, targets, loss, torch.ones_like(u))
    parts = ((1, s.clamp(min=0)), (-1, (-s).clamp(min=0)))
    return [(sign, part.sqrt() * u) for sign, part in parts if sign > 0 or bool(part.any())]


def _roots(
    outputs: Tensor, targets: Tensor, loss: Loss, u: Tensor, index: int
) -> list[tuple[int, Tensor]]:
    """Cotangents c with Σ ± E[c cᵀ] = S, the Hessian of each image's loss in its outputs."""
    if isinstance(loss, str):
        return [(1, curvature_root(outputs.detach(), loss, u))]
    roots = elementwise_roots(outputs, targets, loss, u)
    if index == 0:
        apart = len(outputs) * _loss_curvature(outputs, targets, loss, u)
        for sign, c in roots:
            apart = apart - sign * c * c * u
        size = max(float((c * c).max()) for _, c in roots)
        if float(apart.abs().max()) > DIAGONAL_TOLERANCE * size:
            raise ValueError(
                "loss must depend on each output by itself where its attribute elementwise says "
                f"so, got slopes that other outputs change by {float(apart.abs().max()):.2g}: "
                "take the attribute away."
            )
    return roots


def _mean_loss(outputs: Tensor, targets: Tensor, loss: Loss, index: int) -> Tensor:
    """The mean loss of a mini-batch, finite."""
    if len(targets) != len(outputs):
        raise ValueError(
            f"targets of mini-batch {index} must be one an image, "
            f"got {len(targets)} for {len(outputs)} images."
        )
    function = loss_function(loss)
    if index == 0 and callable(loss):
        check_loss_is_mean(function, outputs[:FEW].detach(), targets[:FEW])
    value = function(outputs, targets)
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
    value: Tensor, edges: Sequence[GradientEdge], shared: bool, generator: Generator
) -> list[Tensor]:
    """v ∘ H v: for each tensor with its own product and block, or with one product for all."""
    slopes = torch.autograd.grad(value, edges, create_graph=True)
    probes = [_rademacher(slope, generator) for slope in slopes]
    if shared:
        products = torch.autograd.grad(slopes, edges, probes)
        return [v * p for v, p in zip(probes, products, strict=True)]
    squares: list[Tensor] = []
    for slope, edge, v in zip(slopes, edges, probes, strict=True):
        last = len(squares) == len(edges) - 1
        (product,) = torch.autograd.grad(slope, edge, v, retain_graph=not last)
        squares.append(v * product)
    return squares


def _rademacher(like: Tensor, generator: Generator) -> Tensor:
    """±1 with equal chances, shaped like a tensor and on its device."""
    signs = torch.randint(0, 2, like.shape, generator=generator, dtype=torch.int8)
    return (2 * signs - 1).to(like)
