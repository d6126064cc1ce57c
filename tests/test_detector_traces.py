"""Traces of a loss that is not convex in the outputs, against dense Hessians; they have a sign."""

import re
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from tiny_detector import ANCHORS, TinyDetector, squares, tiny_detector
from torch import Tensor

from engine.activations import find_activations, tapped
from engine.detection import DetectionLoss
from engine.layers import find_layers
from engine.probes import elementwise_roots
from engine.traces import Traces, average_traces

LOSS = DetectionLoss(ANCHORS)
COUNT = 4


pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.fixture
def detector() -> TinyDetector:
    return tiny_detector()


@pytest.fixture(scope="module")
def expected() -> tuple[dict[str, float], dict[str, float]]:
    torch.set_default_dtype(torch.float64)
    return dense(tiny_detector(), *some())


def some(count: int = COUNT) -> tuple[Tensor, Tensor]:
    return squares(count, 5).tensors


def unmarked(outputs: Tensor, targets: Tensor) -> Tensor:
    """The same loss, not known to depend on each output by itself."""
    return LOSS(outputs, targets)


def zeros_like_those_of(model: TinyDetector, image: Tensor) -> dict[str, list[Tensor]]:
    """Zeros shaped like the tensors of every activation, as its readers come by them."""
    found = find_activations(model, image).found
    seen: dict[str, list[Tensor]] = {a.name: [] for a in found}

    def noting(name: str) -> Callable[[Tensor], Tensor]:
        def note(tensor: Tensor) -> Tensor:
            seen[name].append(torch.zeros_like(tensor))
            return tensor

        return note

    with tapped(model, {name: noting(name) for name in seen}, found):
        model(image)
    return seen


def outputs_with(model: TinyDetector, image: Tensor, name: str, added: Sequence[Tensor]) -> Tensor:
    """What the detector gives where something is added to the tensors of an activation."""
    left = list(added)
    found = find_activations(model, image).found
    with tapped(model, {name: lambda tensor: tensor + left.pop(0)}, found):
        return model(image)


def dense(model: TinyDetector, images: Tensor, targets: Tensor) -> tuple[dict, dict]:
    """Tr(H) / n of weights and activations, from dense Hessians."""
    hessian = torch.autograd.functional.hessian
    values, weights, activations = dict(model.named_parameters()), {}, {}
    for layer in find_layers(model, images[:1]):

        def loss_of(weight: Tensor, name: str = layer.parameter) -> Tensor:
            changed = {**values, name: weight}
            return LOSS(torch.func.functional_call(model, changed, (images,)), targets)

        block = hessian(loss_of, values[layer.parameter].detach())
        trace = block.reshape(layer.parameters, -1).trace()
        weights[layer.name] = float(trace) / layer.parameters
    for image, target in zip(images.split(1), targets.split(1), strict=True):
        for name, tensors in zeros_like_those_of(model, image).items():

            def loss_at(
                *added: Tensor, name: str = name, image: Tensor = image, target: Tensor = target
            ) -> Tensor:
                return LOSS(outputs_with(model, image, name, added), target)

            blocks = hessian(loss_at, tuple(tensors))
            trace = sum(
                float(blocks[i][i].reshape(x.numel(), -1).trace()) for i, x in enumerate(tensors)
            )
            count = sum(x.numel() for x in tensors) * len(images)
            activations[name] = activations.get(name, 0.0) + trace / count
    return weights, activations


def summed(model: TinyDetector, images: Tensor, targets: Tensor) -> tuple[dict, dict]:
    """The same from every output's own root of S instead of a probe of all of them."""
    layers = find_layers(model, images[:1])
    weights = {layer.name: 0.0 for layer in layers}
    parameters = [model.get_parameter(layer.parameter) for layer in layers]
    activations: dict[str, float] = {}

    def squares_of(outputs: Tensor, target: Tensor, tensors: list[Tensor]) -> list[float]:
        totals = [0.0] * len(tensors)
        for sign, c in elementwise_roots(outputs, target, LOSS, torch.ones_like(outputs)):
            each = torch.diag(c.flatten()).reshape(-1, *outputs.shape)
            slopes = torch.autograd.grad(
                outputs, tensors, each, is_grads_batched=True, retain_graph=True
            )
            totals = [
                t + sign * float(g.square().sum()) for t, g in zip(totals, slopes, strict=True)
            ]
        return totals

    for image, target in zip(images.split(1), targets.split(1), strict=True):
        totals = squares_of(model(image), target, parameters)
        for layer, total in zip(layers, totals, strict=True):
            weights[layer.name] += total / layer.parameters / len(images)
        for name, tensors in zeros_like_those_of(model, image).items():
            leaves = [x.requires_grad_() for x in tensors]
            totals = squares_of(outputs_with(model, image, name, leaves), target, leaves)
            count = sum(x.numel() for x in leaves) * len(images)
            activations[name] = activations.get(name, 0.0) + sum(totals) / count
    return weights, activations


def estimate(
    model: TinyDetector, images: Tensor, targets: Tensor, seed: int = 0, **options: object
) -> Traces:
    batches = zip(images.split(2), targets.split(2), strict=True)
    given = {"loss": LOSS, "relative_sem": 1e-9, **options}
    return average_traces(model, batches, generator=torch.Generator().manual_seed(seed), **given)


def test_summed_over_outputs_a_detector_has_the_hessians_traces(detector, expected) -> None:
    images, targets = some()
    roots = elementwise_roots(detector(images), targets, LOSS, torch.ones(COUNT, 60, 6))
    assert [sign for sign, _ in roots] == [1, -1]  # the loss is not convex in its outputs
    for got, wanted in zip(summed(detector, images, targets), expected, strict=True):
        assert got == pytest.approx(wanted, rel=1e-8)
    traces = estimate(detector, images, targets)
    assert traces.exact
    assert all(trace.exact for trace in traces.activations.values())
    assert {"tower", "kinds"} <= traces.activations.keys()  # read at both levels


@pytest.mark.parametrize(
    "options",
    [{}, {"estimator": "hutchinson"}, {"loss": unmarked}],
    ids=["gauss_newton", "hutchinson", "unmarked loss"],
)
def test_estimates_lie_within_four_errors_of_the_dense_hessian(detector, expected, options) -> None:
    (images, targets), repeated = some(), 24  # the same images: what differs is the probe
    runs = [estimate(detector, images, targets, seed, **options) for seed in range(repeated)]
    for kind, traces in zip(("weights", "activations"), expected, strict=True):
        for name, trace in traces.items():
            means = np.array([getattr(run, kind)[name].mean for run in runs])
            assert abs(means.mean() - trace) < 4 * means.std(ddof=1) / repeated**0.5


def test_it_needs_fewer_images_than_a_loss_that_is_not_known_to_be_elementwise(detector) -> None:
    # on `retinanet-shapes`, 96 images in mini-batches of 8: 870 times fewer for the median
    # weight, 170 times for the median activation, 3 times for the least of both
    with torch.no_grad():  # sure of the background, as any trained detector
        detector.kinds.weight.div_(30)
        detector.kinds.bias.fill_(-4)
    (images, targets), spreads = some(), []
    for loss in (LOSS, unmarked):
        runs = [estimate(detector, images, targets, seed, loss=loss) for seed in range(16)]
        rows = [
            [t.mean for t in (*run.weights.values(), *run.activations.values())] for run in runs
        ]
        spreads.append(np.var(rows, axis=0))
    ratios = spreads[1] / spreads[0]
    assert np.median(ratios) > 3


def test_two_passes_are_the_product_of_two_element_by_element(detector) -> None:
    images, targets = some(2)
    told = estimate(detector, images, targets).weights
    outputs = detector(images)
    leaf = outputs.detach().requires_grad_()
    (slope,) = torch.autograd.grad(LOSS(leaf, targets), leaf, create_graph=True)
    (s,) = torch.autograd.grad(slope.sum(), leaf)
    signs = torch.randint(
        0, 2, s.shape, generator=torch.Generator().manual_seed(0), dtype=torch.int8
    )
    u = (2 * signs - 1) * s.abs().sqrt()
    for name, trace in told.items():
        weight = detector.get_parameter(f"{name}.weight")
        one, two = (
            torch.autograd.grad(outputs, weight, x, retain_graph=True)[0] for x in (u, s.sign() * u)
        )
        assert trace.mean == pytest.approx(float((one * two).mean()), rel=1e-9)


def test_a_loss_that_is_wrongly_called_elementwise_is_refused(detector) -> None:
    class Wrong:
        elementwise = True

        def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return outputs.flatten(1).logsumexp(1).mean() + 0 * targets.sum()

    with pytest.raises(ValueError, match="loss must depend on each output by itself") as error:
        estimate(detector, *some(2), loss=Wrong())
    sentence = (
        r"loss must depend on each output by itself where its attribute elementwise says so, got "
        r"slopes that other outputs change by \S+: take the attribute away\."
    )
    assert re.fullmatch(sentence, str(error.value))
