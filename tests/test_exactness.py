"""Where a layer is called exact, its Hessian block is its Gauss-Newton block, and else it is not.

Both are dense here, by their definitions, on networks of a few dozen weights.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn import functional as F

from engine.exactness import LINEAR_IN_FIRST, PIECEWISE_LINEAR, PRODUCTS, linear_in
from engine.layers import evaluation_mode
from engine.probes import loss_function

IMAGES, WIDTH, CLASSES = 5, 4, 3
STEP = 1e-5


def linear_weights(outputs: Tensor, weights: list[Tensor]) -> list[bool]:
    return linear_in(outputs, [get_gradient_edge(weight) for weight in weights])


pytestmark = pytest.mark.usefixtures("double_precision")


@pytest.fixture(autouse=True)
def _repeatable() -> None:
    torch.manual_seed(0)


class Net(nn.Module):
    """`first`, whose weight is judged, then whatever is asked, then `last`."""

    def __init__(self, between: Callable[["Net", Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.first = nn.Linear(WIDTH, WIDTH)
        self.side = nn.Linear(WIDTH, WIDTH)
        self.last = nn.LazyLinear(CLASSES)
        self.between = between
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        self.x = x
        return self.last(self.between(self, self.first(x)).flatten(1))


class Images(Net):
    """The same with a convolution and images."""

    def __init__(self, between: Callable[["Net", Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__(between, **parts)
        self.first = nn.Conv2d(2, WIDTH, 3)
        self.side = nn.Conv2d(2, WIDTH, 3)


class Volumes(Net):
    def __init__(self, between: Callable[["Net", Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__(between, **parts)
        self.first = nn.Conv3d(2, WIDTH, 2)


SHAPES: dict[type[Net], tuple[int, ...]] = {
    Net: (WIDTH,),
    Images: (2, 6, 6),
    Volumes: (2, 4, 4, 4),
}


class Cube(torch.autograd.Function):
    """Unknown to anybody."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, g):
        return g * 3 * ctx.saved_tensors[0] ** 2


class Relu(Cube):
    """The same under the name of a known operator."""


def filled(x: Tensor, start: Callable[[Tensor], Tensor] = torch.zeros_like) -> Tensor:
    """A tensor written part by part."""
    y = start(x)
    y[:, 1:] = x[:, :-1]
    return y


def in_place(x: Tensor, change: Callable[[Tensor], object]) -> Tensor:
    y = x.clone()
    change(y[:, 1:])
    return y


def attention(net: Net, y: Tensor) -> Tensor:
    return net.attention(y, y, y, need_weights=False)[0]


def attended(values: Tensor, keys: Tensor) -> Tensor:
    """Of images: each value averaged over positions, by a softmax of the keys."""
    return (keys.flatten(2) @ keys.flatten(2).mT).softmax(2) @ values.flatten(2)


def shared_heads(net: Net, _: Tensor) -> Tensor:
    """One layer on two inputs, as detectors share their heads between scales."""
    return F.relu(net.first(net.x)) + 2 * F.relu(net.first(net.x.flip(1)))


def product_of_branches(net: Net, _: Tensor) -> Tensor:
    return F.relu(net.first(net.x)) * net.first(net.x.flip(1))


torch.manual_seed(0)  # the same networks below, whatever was imported before

EXACT: dict[str, nn.Module] = {
    "chain": Net(lambda net, y: F.relu(net.side(F.relu(y)))),
    "relu6": Net(lambda _, y: F.relu6(6 * y)),
    "leaky relu": Net(lambda _, y: F.leaky_relu(y, 0.1)),
    "rrelu": Net(lambda _, y: F.rrelu(y)),
    "prelu": Net(lambda net, y: net.prelu(y), prelu=nn.PReLU(WIDTH)),
    "hardsigmoid": Net(lambda _, y: F.hardsigmoid(4 * y)),
    "threshold": Net(lambda _, y: F.threshold(y, 0.1, -1.0)),
    "abs, clamp, where": Net(lambda _, y: torch.where(y > 0, y.abs(), y.clamp(-1, 1))),
    "maximum": Net(lambda _, y: torch.maximum(y, -2 * y) + y.amax(1, keepdim=True)),
    "residual": Net(lambda net, y: F.relu(y + net.x)),
    "another layer before it": Net(lambda net, y: F.relu(y) + F.silu(net.side(net.x))),
    "gate from elsewhere": Net(lambda net, y: F.relu(y) * torch.sigmoid(net.side(net.x))),
    "branches that share it": Net(shared_heads),
    "numerator": Net(lambda net, y: F.relu(y) / (1 + net.side(net.x).square())),
    "by a number": Net(lambda _, y: 3 * F.relu(y) / 2 - 1),
    "batch norm": Net(lambda net, y: F.relu(net.norm(y)), norm=nn.BatchNorm1d(WIDTH)),
    "dropout": Net(lambda net, y: net.drop(F.relu(y)), drop=nn.Dropout()),
    "concatenation": Net(lambda _, y: torch.cat([y, F.relu(-y)], 1)),
    "parts": Net(lambda _, y: y.chunk(2, 1)[0] - y[:, 2:].flip(1).roll(1, 1)),
    "sorted": Net(lambda _, y: torch.sort(y, 1).values + y.topk(WIDTH).values),
    "expanded": Net(lambda _, y: y.unsqueeze(2).expand(-1, -1, 2).transpose(1, 2).reshape(-1, 8)),
    "copied": Net(lambda _, y: torch.empty_like(y).copy_(y)),
    "written part by part": Net(lambda _, y: filled(y)),
    "relu in place": Net(lambda _, y: F.relu_(y.clone())),
    "relu in place on a part": Net(lambda _, y: in_place(y, F.relu_)),
    "gate from elsewhere in place": Net(
        lambda net, y: in_place(y, lambda part: part.mul_(net.side(net.x)[:, 1:]))
    ),
    "two layers' bilinear form": Net(
        lambda net, y: net.form(y, net.side(net.x)), form=nn.Bilinear(WIDTH, WIDTH, 2)
    ),
    "max pooling": Images(lambda _, y: F.max_pool2d(F.relu(y), 2)),
    "average pooling": Images(lambda _, y: F.avg_pool2d(F.relu(y), 2)),
    "adaptive pooling": Images(
        lambda _, y: F.adaptive_avg_pool2d(y, 3) + F.adaptive_max_pool2d(y, 3)
    ),
    "padding": Images(lambda _, y: F.pad(y, (1, 0, 0, 1)) + F.pad(y, (1, 0, 0, 1), "reflect")),
    "circular padding": Images(lambda _, y: F.pad(y, (1, 1, 1, 1), "circular")),
    "upsampling": Images(
        lambda _, y: (
            F.interpolate(y, scale_factor=2) + F.interpolate(y, scale_factor=2, mode="bilinear")
        )
    ),
    "pixel shuffle": Images(lambda _, y: F.relu(F.pixel_shuffle(y, 2))),
    "sampled image": Images(
        lambda net, y: F.grid_sample(y, net.x[:, :, :3, :3].movedim(1, 3), align_corners=False)
    ),
    "values of an attention": Images(lambda net, y: attended(y, net.side(net.x))),
    "channel shuffle": Images(lambda _, y: F.channel_shuffle(y, 2)),
    "unfold": Images(lambda _, y: F.unfold(y, 2)),
    "convolutions": Images(
        lambda net, y: F.relu(net.up(F.relu(net.down(y)))),
        down=nn.Conv2d(WIDTH, WIDTH, 3, groups=2),
        up=nn.ConvTranspose2d(WIDTH, 2, 2),
    ),
    "pooling of volumes": Volumes(
        lambda _, y: F.max_pool3d(F.pad(y, (1,) * 6, "replicate"), 2) + F.avg_pool3d(y, 2).mean()
    ),
}
BENT: dict[str, nn.Module] = {
    "silu": Net(lambda _, y: F.silu(y)),
    "gelu": Net(lambda _, y: F.gelu(y)),
    "hardswish": Net(lambda _, y: F.hardswish(3 * y)),
    "sigmoid in place on a part": Net(lambda _, y: in_place(y, torch.sigmoid_)),
    "product in place": Net(lambda _, y: in_place(y, lambda part: part.mul_(y[:, :-1]))),
    "called twice in a chain": Net(lambda net, y: net.first(F.relu(y))),
    "product of two branches": Net(product_of_branches),
    "its own gate": Net(lambda _, y: y * torch.sigmoid(y)),
    "square": Net(lambda _, y: y * y),
    "denominator": Net(lambda net, y: net.side(net.x) / (3 + y.abs())),
    "both sides of a fraction": Net(lambda _, y: y / (3 + y.abs())),
    "layer norm": Net(lambda net, y: net.norm(y), norm=nn.LayerNorm(WIDTH)),
    "batch statistics": Net(
        lambda net, y: net.norm(y), norm=nn.BatchNorm1d(WIDTH, track_running_stats=False)
    ),
    "group norm": Images(lambda net, y: net.norm(y), norm=nn.GroupNorm(2, WIDTH)),
    "instance norm": Images(lambda net, y: net.norm(y), norm=nn.InstanceNorm2d(WIDTH)),
    "softmax": Net(lambda _, y: 3 * y.softmax(1)),
    "attention": Images(
        lambda net, y: attention(net, y.flatten(2).transpose(1, 2)),
        attention=nn.MultiheadAttention(WIDTH, 1, batch_first=True),
    ),
    "keys of an attention": Images(lambda net, y: attended(net.side(net.x), y)),
    "bilinear form with itself": Net(
        lambda net, y: net.form(y, y), form=nn.Bilinear(WIDTH, WIDTH, 2)
    ),
    "where an image is sampled": Images(
        lambda net, y: F.grid_sample(net.x, y[:, :2].movedim(1, 3).tanh(), align_corners=False)
    ),
    "unknown function": Net(lambda _, y: Cube.apply(y)),
    "unknown function of a known name": Net(lambda _, y: Relu.apply(y)),
}


def blocks(model: nn.Module, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Hessian and Gauss-Newton block [n, n] of the weight of `first`, by their definitions."""
    weight, loss = model.first.weight.detach(), loss_function("cross_entropy")
    n = weight.numel()

    def outputs_of(weight: Tensor) -> Tensor:
        return torch.func.functional_call(model, {"first.weight": weight}, (images,))

    def loss_of(weight: Tensor) -> Tensor:
        return loss(outputs_of(weight), targets)

    def slope_at(moved: Tensor) -> Tensor:
        moved = moved.clone().requires_grad_(True)
        return torch.autograd.grad(loss_of(moved), moved)[0].flatten()

    # by differences of slopes, for some operators have no second derivative in PyTorch
    steps = STEP * torch.eye(n).reshape(n, *weight.shape)
    hessian = torch.stack([slope_at(weight + s) - slope_at(weight - s) for s in steps]) / (2 * STEP)
    jacobian = torch.autograd.functional.jacobian(outputs_of, weight).reshape(-1, n)
    outputs = outputs_of(weight).detach()
    curvature = torch.autograd.functional.hessian(lambda z: loss(z, targets), outputs)
    curvature = curvature.reshape(outputs.numel(), -1)
    return hessian, jacobian.T @ curvature @ jacobian


def judged(model: nn.Module) -> tuple[bool, float]:
    """Whether `first` is called exact, and how far its blocks really are apart."""
    model = model.double()
    images = torch.randn(IMAGES, *SHAPES[type(model)])
    model(images)  # lazy layers take their shape
    targets = torch.arange(IMAGES) % CLASSES
    with evaluation_mode(model):
        (linear,) = linear_weights(model(images), [model.first.weight])
        hessian, gauss_newton = blocks(model, images, targets)
    apart = float((hessian - gauss_newton).norm() / hessian.norm())
    return linear, apart


@pytest.mark.parametrize("model", EXACT.values(), ids=EXACT)
def test_a_layer_called_exact_has_equal_blocks(model):
    linear, apart = judged(model)
    assert linear
    assert apart < 1e-7


@pytest.mark.parametrize("model", BENT.values(), ids=BENT)
def test_a_layer_not_called_exact_has_different_blocks(model):
    linear, apart = judged(model)
    assert not linear
    assert apart > 1e-3


def test_exact_is_decided_for_each_layer():
    model = nn.Sequential(
        nn.Linear(4, 4), nn.SiLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU()
    )
    weights = [model[0].weight, model[2].weight, model[4].weight]
    assert linear_weights(model(torch.randn(2, 4)), weights) == [False, True, True]


def test_a_weight_that_the_outputs_do_not_read_counts_as_linear():
    model = nn.Linear(2, 2)
    assert linear_weights(model(torch.ones(1, 2)), [model.weight, nn.Linear(2, 2).weight]) == [
        True,
        True,
    ]


def test_deep_graphs_are_walked_without_recursion():
    x = torch.ones(1, 2)
    layer = nn.Linear(2, 2)
    y = layer(x)
    for _ in range(5000):
        y = y + 1
    assert linear_weights(y, [layer.weight]) == [True]


def test_no_operator_is_in_two_sets():
    assert not PRODUCTS & PIECEWISE_LINEAR
    assert not LINEAR_IN_FIRST & (PRODUCTS | PIECEWISE_LINEAR)
