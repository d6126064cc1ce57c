"""Traces of activations against dense Hessians; their errors against repeated estimates."""

import numpy as np
import pytest
import torch
from branching import READERS, Branching, branching
from torch import Tensor, nn
from torch.nn import functional as F

from engine.probes import Probe, curvature_root, loss_function
from engine.traces import Traces, average_traces

OUTPUTS = 4
ESTIMATORS = ("gauss_newton", "hutchinson", "hutchinson_shared")


pytestmark = pytest.mark.usefixtures("double_precision")


def images_and_labels(count: int, outputs: int = OUTPUTS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    images = torch.randn(count, 2, 4, 4, generator=generator)
    return images, torch.randint(0, outputs, (count,), generator=generator)


def dense_traces(
    model: Branching, images: Tensor, targets: Tensor, loss: str = "cross_entropy"
) -> dict[str, float]:
    """Tr(H) / n of each activation, the mean over images of dense Hessians of their own losses."""
    traces = dict.fromkeys(READERS, 0.0)
    for image, target in zip(images.split(1), targets.split(1), strict=True):
        for name, value in model.activations(image).items():

            def loss_of(
                value: Tensor, name: str = name, image: Tensor = image, target: Tensor = target
            ) -> Tensor:
                return loss_function(loss)(model(image, {name: value}), target)

            block = torch.autograd.functional.hessian(loss_of, value.detach())
            trace = block.reshape(value.numel(), value.numel()).trace()
            traces[name] += float(trace) / value.numel() / len(images)
    return traces


def summed_traces(model: Branching, images: Tensor, loss: str) -> dict[str, float]:
    """The Gauss-Newton traces with every output's probe summed instead of drawn."""
    traces = dict.fromkeys(READERS, 0.0)
    for image in images.split(1):
        for name, value in model.activations(image).items():
            leaf = value.detach().requires_grad_()
            outputs = model(image, {name: leaf})
            for u in torch.eye(outputs.numel()):
                c = curvature_root(outputs.detach(), loss, u.reshape(outputs.shape))
                (slope,) = torch.autograd.grad(outputs, leaf, c, retain_graph=True)
                traces[name] += float(slope.square().mean()) / len(images)
    return traces


def estimate(model: nn.Module, images: Tensor, targets: Tensor, **options: object) -> Traces:
    batches = zip(images.split(8), targets.split(8), strict=True)
    given = {"generator": torch.Generator().manual_seed(0), "relative_sem": 1e-9, **options}
    return average_traces(model, batches, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_summed_over_outputs_a_relu_network_has_the_hessians_traces(loss: str) -> None:
    model, (images, labels) = branching(OUTPUTS), images_and_labels(10)
    targets = labels if loss == "cross_entropy" else torch.randn(10, OUTPUTS)
    dense = dense_traces(model, images, targets, loss)
    assert summed_traces(model, images, loss) == pytest.approx(dense, rel=1e-9)
    traces = estimate(model, images, targets, loss=loss)
    assert set(traces.activations) == set(READERS)
    assert all(trace.exact for trace in traces.activations.values())


def squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).square().mean()


@pytest.mark.parametrize("loss", ["mse", squared], ids=["by name", "a callable"])
@pytest.mark.parametrize("layers", [None, ["second", "left"]], ids=["all", "some"])
def test_with_one_output_a_probe_has_no_noise_and_equals_the_dense_hessian(
    loss: object, layers: list[str] | None
) -> None:
    # u² = 1, so ‖Jᵀ S^½ u‖² is J S Jᵀ itself, image by image
    model, (images, _) = branching(1), images_and_labels(16)
    targets = torch.randn(16, 1)
    dense = dense_traces(model, images, targets, "mse")
    traces = estimate(model, images, targets, loss=loss, layers=layers)
    expected = {name: dense[name] for name in layers or READERS}
    assert {n: t.mean for n, t in traces.activations.items()} == pytest.approx(expected, rel=1e-9)
    assert all(trace.samples == 16 for trace in traces.activations.values())
    means = traces.activation_batch_traces.mean(0)
    assert dict(zip(traces.activations, means, strict=True)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimates_lie_within_four_errors_of_the_dense_hessian(estimator: str) -> None:
    model, (images, labels) = branching(OUTPUTS), images_and_labels(64)
    repeated = 12  # the same images: what differs is the probe
    dense = dense_traces(model, images, labels)
    runs = [
        estimate(
            model, images, labels, estimator=estimator, generator=torch.Generator().manual_seed(i)
        ).activations
        for i in range(repeated)
    ]
    for name, expected in dense.items():
        means = np.array([run[name].mean for run in runs])
        error = means.std(ddof=1) / repeated**0.5
        assert abs(means.mean() - expected) < 4 * error


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_the_standard_error_is_that_of_repeated_estimates(estimator: str) -> None:
    model, repeated, count = branching(OUTPUTS), 60, 32
    generator = torch.Generator().manual_seed(11)
    runs = []
    for _ in range(repeated):
        images = torch.randn(count, 2, 4, 4, generator=generator)
        labels = torch.randint(0, OUTPUTS, (count,), generator=generator)
        runs.append(
            estimate(model, images, labels, estimator=estimator, generator=generator).activations
        )
    for name in READERS:
        claimed = np.sqrt(np.mean([run[name].sem ** 2 for run in runs]))
        spread = np.std([run[name].mean for run in runs], ddof=1)
        assert 0.7 < claimed / spread < 1.4


def test_before_the_last_silu_traces_are_not_called_exact() -> None:
    model, (images, labels) = branching(OUTPUTS, nn.SiLU), images_and_labels(16)
    traces = estimate(model, images, labels)
    dense, summed = (
        dense_traces(model, images, labels),
        summed_traces(model, images, "cross_entropy"),
    )
    assert {name for name, t in traces.activations.items() if not t.exact} == {
        "stem",
        "first",
        "second",
    }
    for name, trace in traces.activations.items():
        assert (abs(summed[name] / dense[name] - 1) < 1e-9) == trace.exact


def test_weights_are_told_the_same_with_and_without_activations() -> None:
    model, (images, labels) = branching(OUTPUTS), images_and_labels(32)
    both = estimate(model, images, labels)
    alone = estimate(model, images, labels, activations=False)
    assert alone.activations == {}
    assert alone.activation_batch_traces.shape == (4, 0)
    assert (both.batch_traces == alone.batch_traces).all()


def test_the_search_goes_on_until_activations_are_known_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    generator = torch.Generator().manual_seed(0)

    def told(_: nn.Module, images: Tensor, __: Tensor, *, weights, found, **___: object) -> Probe:
        noisy = 1 + torch.randn(len(images), len(found), generator=generator)
        exact = [True] * (len(weights) + len(found))
        return Probe([torch.ones_like(weight) for weight in weights], noisy, exact)

    monkeypatch.setattr("engine.traces.probe", told)
    model, images, labels = nn.Sequential(nn.Linear(3, 2)), torch.ones(4000, 3), torch.zeros(4000)

    def search(**options: object) -> Traces:
        return estimate(model, images, labels, relative_sem=0.03, **options)

    both = search()
    assert search(activations=False).images == 32 * 8  # the fewest: weights have no noise here
    assert both.stopped_because == "target"
    assert both.images == pytest.approx(1 / 0.03**2, rel=0.3)
    negligible = search(perturbation={"0": 1.0}, activation_perturbation={"0": 1e-9})
    assert negligible.images > 700  # it is all there is of activations, so it is not negligible


def test_a_network_that_mixes_images_in_its_first_axis_is_left_alone() -> None:
    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.relu, self.last = nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            steps = self.relu(self.first(x)).transpose(0, 1).contiguous()  # [steps, N, 3]
            return self.last(F.relu(steps)).mean(0)

    traces = estimate(Mixing(), torch.randn(16, 5, 3), torch.zeros(16, dtype=torch.long))
    assert set(traces.activations) == {"first"}


def test_an_overflow_in_an_activation_is_named() -> None:
    class Steep(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.first(x)
            return self.last(torch.where(x > 1e9, x, x * 1e200) * 1e-200)

    message = r"traces of mini-batch 0 must be finite, got inf in the input of layer 'first'"
    model = Steep()
    with torch.no_grad():
        model.first.weight.mul_(1e160)
    with pytest.raises(ValueError, match=message):
        estimate(model, torch.full((8, 3), 1e-170), torch.zeros(8, dtype=torch.long))
