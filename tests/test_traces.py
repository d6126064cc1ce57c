"""Traces against the dense Hessian, their errors against the spread of repeated estimates."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.layers import find_layers
from engine.probes import curvature_root, loss_function
from engine.traces import Traces, average_traces, weighted_mean

CLASSES = 4


pytestmark = pytest.mark.usefixtures("double_precision")


class Chain(nn.Module):
    """Calls one layer twice, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.twice, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.first(x.flatten(1)[:, :6]))
        return self.last(F.relu(self.twice(F.relu(self.twice(x)))))


def network(activation: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Two convolutions with batch norm, a residual sum, pooling and a linear layer: 692 weights."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(2, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        activation(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 8, 3, padding=1, bias=False),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(32, CLASSES),
    )
    for _ in range(10):
        net(torch.randn(32, 2, 6, 6))
    return net.eval()


def images_and_labels(count: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    images = torch.randn(count, 2, 6, 6, generator=generator)
    return images, torch.randint(0, CLASSES, (count,), generator=generator)


def dense_traces(
    model: nn.Module, images: Tensor, targets: Tensor, loss: str = "cross_entropy"
) -> dict[str, float]:
    """Tr(H) / n of each layer, from one dense Hessian block after the other."""
    values = dict(model.named_parameters())
    traces = {}
    for layer in find_layers(model, images[:1]):

        def loss_of(weight: Tensor, name: str = layer.parameter) -> Tensor:
            changed = {**values, name: weight}
            outputs = torch.func.functional_call(model, changed, (images,))
            return loss_function(loss)(outputs, targets)

        block = torch.autograd.functional.hessian(loss_of, values[layer.parameter].detach())
        traces[layer.name] = float(block.reshape(layer.parameters, -1).trace()) / layer.parameters
    return traces


def summed_traces(
    model: nn.Module, images: Tensor, loss: str = "cross_entropy"
) -> dict[str, float]:
    """The Gauss-Newton traces with every output's probe summed instead of drawn."""
    layers = find_layers(model, images[:1])
    weights = [model.get_parameter(layer.parameter) for layer in layers]
    totals = np.zeros(len(layers))
    for image in images:
        outputs = model(image.unsqueeze(0))
        for k in range(outputs.numel()):
            u = torch.zeros_like(outputs)
            u.view(-1)[k] = 1
            c = curvature_root(outputs.detach(), loss, u)
            gradients = torch.autograd.grad(outputs, weights, c, retain_graph=True)
            totals += [float(g.square().mean()) for g in gradients]
    return dict(zip([layer.name for layer in layers], totals / len(images), strict=True))


def estimate(model: nn.Module, images: Tensor, targets: Tensor, **options: object) -> Traces:
    batches = zip(images.split(8), targets.split(8), strict=True)
    given = {"generator": torch.Generator().manual_seed(0), "relative_sem": 1e-9, **options}
    return average_traces(model, batches, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("loss", ["cross_entropy", "mse"])
def test_summed_over_outputs_a_relu_network_has_the_hessians_traces(loss: str) -> None:
    model, (images, labels) = network(), images_and_labels(24)
    targets = labels if loss == "cross_entropy" else torch.randn(24, CLASSES)
    dense, summed = dense_traces(model, images, targets, loss), summed_traces(model, images, loss)
    assert sum(p.numel() for p in model.parameters()) <= 3000
    assert summed == pytest.approx(dense, rel=1e-9)
    assert estimate(model, images, targets, loss=loss).exact


def test_before_the_last_silu_the_traces_differ_and_are_not_called_exact() -> None:
    model, (images, labels) = network(nn.SiLU), images_and_labels(24)
    dense, summed = dense_traces(model, images, labels), summed_traces(model, images)
    traces = estimate(model, images, labels)
    assert {name: t.exact for name, t in traces.weights.items()} == {
        "0": False,
        "4": True,
        "8": True,
    }
    assert not traces.exact
    for name, expected in dense.items():
        assert (abs(summed[name] / expected - 1) < 1e-9) == traces.weights[name].exact
    assert abs(summed["0"] / dense["0"] - 1) > 1e-3


def test_a_layer_called_twice_in_a_chain_is_not_called_exact() -> None:
    torch.manual_seed(0)
    model, (images, labels) = Chain(), images_and_labels(24)
    dense, summed = dense_traces(model, images, labels), summed_traces(model, images)
    traces = estimate(model, images, labels)
    assert {name: t.exact for name, t in traces.weights.items()} == {
        "first": True,
        "twice": False,
        "last": True,
    }
    for name, expected in dense.items():
        assert (abs(summed[name] / expected - 1) < 1e-9) == traces.weights[name].exact
    assert abs(summed["twice"] / dense["twice"] - 1) > 1e-3


def test_traces_average_over_positions_where_the_loss_does() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Conv2d(5, CLASSES, 1))
    images = torch.randn(6, 2, 5, 5)
    targets = torch.randint(0, CLASSES, (6, 3, 3))
    assert summed_traces(model, images) == pytest.approx(dense_traces(model, images, targets))


@pytest.mark.parametrize(
    ("estimator", "loss"),
    [
        ("gauss_newton", "cross_entropy"),
        ("gauss_newton", F.cross_entropy),  # a callable: two backward passes
        ("gauss_newton", "mse"),
        ("hutchinson", "cross_entropy"),
        ("hutchinson_shared", "cross_entropy"),
    ],
)
def test_errors_are_those_of_repeated_estimates(estimator: str, loss: object) -> None:
    """Over 200 repetitions of 32 mini-batches, drawn with replacement from a small population."""
    model, (images, labels) = network(), images_and_labels(24)
    targets = labels if loss != "mse" else torch.randn(24, CLASSES)
    name = loss if isinstance(loss, str) else "cross_entropy"
    truth = np.array(list(dense_traces(model, images, targets, name).values()))
    repetitions = []
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(0, len(images), (32, 4), generator=generator)
        traces = average_traces(
            model,
            ((images[i], targets[i]) for i in drawn),
            loss=loss,  # type: ignore[arg-type]
            estimator=estimator,
            relative_sem=1e-9,
            generator=generator,
        )
        repetitions.append([(t.mean, t.sem, *t.interval) for t in traces.weights.values()])
        assert all(t.samples == 32 for t in traces.weights.values())
    mean, sem, low, high = np.moveaxis(np.array(repetitions), 2, 0)  # each [200, layers]
    spread = mean.std(0, ddof=1)
    assert (np.abs(mean.mean(0) - truth) < 4 * spread / np.sqrt(200)).all()
    assert np.sqrt((sem**2).mean(0)) == pytest.approx(spread, rel=0.15)
    covered = ((low <= truth) & (truth <= high)).mean(0)
    assert (covered >= 0.88).all()
    assert (covered <= 0.99).all()


def test_channel_traces_average_to_the_layers() -> None:
    model, (images, labels) = network(), images_and_labels(40)
    traces = estimate(model, images, labels)
    assert [len(traces.channels[name]) for name in traces.weights] == [6, 8, CLASSES]
    for name, trace in traces.weights.items():
        assert np.mean(traces.channels[name]) == pytest.approx(trace.mean)


def test_errors_of_channels_are_those_of_their_mini_batches() -> None:
    model, (images, labels) = network(), images_and_labels(50)
    parts = list(zip(images.split(16), labels.split(16), strict=True))  # the last holds 2
    generator = torch.Generator().manual_seed(0)
    one_by_one = [average_traces(model, [part], generator=generator).channels for part in parts]
    traces = average_traces(model, parts, generator=torch.Generator().manual_seed(0))
    for name in traces.weights:
        by_batch = np.array([channels[name] for channels in one_by_one])
        mean, sem = weighted_mean(by_batch, traces.batch_sizes)
        assert np.array(traces.channels[name]) == pytest.approx(mean)
        assert np.array(traces.channel_sems[name]) == pytest.approx(sem)
        assert (sem > 0).any()


def test_mini_batches_weigh_by_their_images() -> None:
    values, sizes = np.array([[1.0], [4.0]]), np.array([3, 1])
    mean, sem = weighted_mean(values, sizes)
    assert mean == pytest.approx([1.75])
    assert sem == pytest.approx([np.sqrt(2 * ((0.75 * -0.75) ** 2 + (0.25 * 2.25) ** 2))])


def test_every_image_is_used_once_and_the_last_batch_is_cut() -> None:
    model, (images, labels) = network(), images_and_labels(50)
    traces = estimate(model, images, labels, max_images=29)
    assert traces.batch_sizes.tolist() == [8, 8, 8, 5]
    assert (traces.images, traces.stopped_because) == (29, "images")
    assert traces.batch_traces.shape == (4, 3)
    whole = estimate(model, images, labels)
    assert whole.batch_sizes.tolist() == [8] * 6 + [2]


def test_it_stops_at_the_target_after_32_mini_batches() -> None:
    model, (images, labels) = network(), images_and_labels(320)
    traces = estimate(model, images, labels, relative_sem=10.0)
    assert (len(traces.batch_sizes), traces.stopped_because) == (32, "target")


def test_negative_traces_stop_it_at_the_target_too() -> None:
    class Hill:
        elementwise = True

        def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return -outputs.square().sum(1).mean() + 0 * targets.sum()

    images, model = torch.randn(2000, 6), nn.Linear(6, CLASSES)
    batches = zip(images.split(32), torch.zeros(2000).split(32), strict=True)
    generator = torch.Generator().manual_seed(0)
    traces = average_traces(model, batches, loss=Hill(), generator=generator)
    assert (traces.stopped_because, traces.images) == ("target", 32 * 32)
    (trace,) = traces.weights.values()
    assert abs(trace.mean + 2) < 4 * trace.sem < 1  # −2 E[x²]
    assert trace.relative_sem <= 0.1


def test_it_stops_when_the_time_is_up() -> None:
    model, (images, labels) = network(), images_and_labels(80)
    traces = estimate(model, images, labels, max_seconds=0.0)
    assert (len(traces.batch_sizes), traces.stopped_because) == (1, "time")


def test_a_layer_that_cannot_matter_does_not_hold_the_others_up() -> None:
    model, (images, labels) = network(), images_and_labels(320)
    errors = {n: t.relative_sem for n, t in estimate(model, images, labels).weights.items()}
    target = min(errors.values()) * 1.05
    sizes = {name: 1.0 if error <= target else 1e-9 for name, error in errors.items()}
    assert set(sizes.values()) == {1.0, 1e-9}
    stopped = estimate(model, images, labels, relative_sem=target, perturbation=sizes)
    assert stopped.stopped_because == "target"
    same = estimate(model, images, labels, relative_sem=target)
    assert same.stopped_because == "images"


def test_one_layer_can_be_asked_for() -> None:
    model, (images, labels) = network(), images_and_labels(16)
    assert list(estimate(model, images, labels, layers=["4"]).weights) == ["4"]


def test_the_same_seed_gives_the_same_traces() -> None:
    model, (images, labels) = network(), images_and_labels(40)
    first, second = (estimate(model, images, labels).batch_traces for _ in range(2))
    assert (first == second).all()


def test_progress_is_told() -> None:
    model, (images, labels) = network(), images_and_labels(16)
    told: list[tuple[int, int, str]] = []
    estimate(model, images, labels, max_images=16, progress=lambda *x: told.append(x))
    assert [(done, total) for done, total, _ in told] == [(8, 16), (16, 16)]
    assert told[-1][2].startswith("median error ")


def state_of(model: nn.Module) -> list[object]:
    return [
        [module.training for module in model.modules()],
        [(p.requires_grad, p.grad, p.detach().clone().tolist()) for p in model.parameters()],
        [b.clone().tolist() for b in model.buffers()],
        [len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules()],
    ]


@pytest.mark.parametrize("estimator", ["gauss_newton", "hutchinson", "hutchinson_shared"])
def test_the_model_comes_back_as_it_was(estimator: str) -> None:
    model, (images, labels) = network(), images_and_labels(16)
    model.train()
    model[1].eval()
    model[4].weight.requires_grad_(False)
    before = state_of(model)
    estimate(model, images, labels, estimator=estimator)
    assert state_of(model) == before
    with pytest.raises(ValueError, match="targets must be classes"):
        estimate(model, images, labels + 100, estimator=estimator)
    assert state_of(model) == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"estimator": "newton"}, "estimator must be one of gauss_newton, hutchinson, hutchinson_"),
        ({"relative_sem": 0}, "relative_sem must be above 0, got 0: 0.1 is usual"),
        ({"relative_sem": float("nan")}, "relative_sem must be above 0, got nan"),
        ({"max_images": 0}, "max_images must be at least 1, got 0"),
        ({"layers": ["5"]}, r"layers must be among 0, 4, 8, got '5'"),
        ({"loss": "hinge"}, "loss must be one of cross_entropy, mse or a callable, got 'hinge'"),
        (
            {"loss": lambda outputs, _: outputs.mean()},
            "loss must have curvature in the outputs, got one that is linear in them: use a smooth",
        ),
        ({"loss": F.l1_loss}, "loss must have curvature in the outputs"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], sentence: str) -> None:
    model, (images, labels) = network(), images_and_labels(16)
    targets = torch.randn(16, CLASSES) if options.get("loss") is F.l1_loss else labels
    with pytest.raises(ValueError, match=sentence):
        estimate(model, images, targets, **options)


def test_bad_data_are_named() -> None:
    model, (images, labels) = network(), images_and_labels(16)
    with pytest.raises(ValueError, match="batches must hold at least one image, got 0 images"):
        estimate(model, images[:0], labels[:0])
    with pytest.raises(ValueError, match="targets must be class numbers for cross_entropy, got t"):
        estimate(model, images, labels.double())
    with pytest.raises(ValueError, match=r"targets must be classes in 0…3, .* got 7: take labels"):
        estimate(model, images, labels.clamp(min=7))
    with pytest.raises(ValueError, match=r"targets must be classes in 0…3, .* got -1"):
        estimate(model, images, labels - labels - 1)
    batches = [(images[:8], labels[:8]), (images[8:], labels[8:10])]
    generator = torch.Generator()
    with pytest.raises(
        ValueError, match="targets of mini-batch 1 must be one an image, got 2 for 8 images"
    ):
        average_traces(model, batches, generator=generator)
    images[9, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="loss of mini-batch 1 must be finite, got nan: look for"):
        estimate(model, images, labels)


def test_bad_networks_are_named() -> None:
    model, (images, labels) = network(), images_and_labels(16)

    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return model(x), x

    pair = Pair()
    pair.model = model
    with pytest.raises(ValueError, match="model must return one tensor, got tuple: wrap it in a"):
        estimate(pair, images, labels)
    with torch.no_grad():
        model[4].weight[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="weights of layer '4' must be finite, got NaN or infinit"):
        estimate(model, images, labels)


def test_overflow_in_a_trace_names_the_layer() -> None:
    model, (images, _) = network(), images_and_labels(16)
    huge = images * 1e200
    with pytest.raises(
        ValueError, match=r"traces of mini-batch 0 must be finite, got inf in layer '0'"
    ):
        estimate(model, huge, model(huge).detach(), loss="mse")


def test_a_loss_that_is_a_sum_over_images_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"loss must be a mean over images, got a sum \(.*: divide"
    ):
        average_traces(
            network(),
            [images_and_labels(8)],
            loss=lambda z, y: F.cross_entropy(z, y, reduction="sum"),
            generator=torch.Generator(),
        )
