"""Gradients through the rounding, batch norms alive again, and the way back."""

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from engine import BitPlan, Workload, quantize
from engine.layers import Channels
from engine.quantized import QuantizedWeight
from engine.quantizers import Quantizer
from engine.trainable import LiveNorm, TrainedWeight, deployed, revive_norms, trainable

quantizers = st.builds(
    Quantizer,
    st.sampled_from(["symmetric", "asymmetric"]),
    st.sampled_from(["channel", "tensor"]),
    st.sampled_from(["mse", "min_max", "percentile"]),
)


def slow_rounding(rows: Tensor, scale: Tensor, zero: Tensor, low: int, high: int) -> Tensor:
    """By detaching: the rounding's error counts as a constant, and so does a clamped code."""
    position = rows / scale + zero
    nearest = position.round().detach()
    straight = position + (nearest - position).detach()
    clamped = nearest.clamp(low, high)
    return (torch.where(clamped == nearest, straight, clamped) - zero) * scale


def made(seed: int, bits: int, quantizer: Quantizer) -> tuple[Tensor, TrainedWeight]:
    weight = torch.randn(5, 4, 3, 3, generator=torch.Generator().manual_seed(seed)).double()
    channels = Channels(axis=seed % 2)
    grid = quantizer.fit(channels.rows(weight), bits)
    fixed = QuantizedWeight(grid, bits, channels)
    return weight.requires_grad_(), TrainedWeight(fixed, learned=True, count=weight.numel())


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 8), quantizers)
def test_values_are_those_of_the_quantized_weight(seed, bits, quantizer):
    weight, trained = made(seed, bits, quantizer)
    assert torch.equal(trained(weight), trained.quantized()(weight))


@settings(max_examples=40)
@given(st.integers(0, 1000), st.integers(1, 8), quantizers)
def test_gradients_are_those_of_the_formula_written_out(seed, bits, quantizer):
    weight, trained = made(seed, bits, quantizer)
    cotangent = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)).double()
    (trained(weight) * cotangent).sum().backward()
    found, found_scale = weight.grad, trained.scale.grad

    weight.grad, scale = None, trained.scale.detach().clone().requires_grad_()
    rows = trained.channels.rows(weight)
    slow = slow_rounding(rows, scale, trained.zero_point, trained.low, trained.high)
    (trained.channels.weight(slow, weight.shape) * cotangent).sum().backward()
    count = weight.numel() / scale.numel() * max(-trained.low, trained.high)
    torch.testing.assert_close(found, weight.grad)
    torch.testing.assert_close(found_scale, scale.grad / count**0.5, rtol=1e-9, atol=1e-12)


def test_a_step_size_that_is_fixed_is_no_parameter():
    weight, trained = made(0, 3, Quantizer())
    fixed = TrainedWeight(trained.quantized(), learned=False, count=weight.numel())
    assert list(fixed.parameters()) == []
    fixed(weight).sum().backward()
    assert weight.grad is not None


class Net(nn.Module):
    """Two layers with batch norms, one without, and a batch norm that nothing can fold."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(2)
        self.conv1 = nn.Conv2d(2, 6, 3, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, 3)
        self.norm2 = nn.BatchNorm2d(4, eps=1e-3)
        self.fc = nn.Linear(4 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm1(self.conv1(self.first(x))))
        x = torch.relu(self.norm2(self.conv2(x)))
        return self.fc(x.flatten(1))


@pytest.fixture
def workload() -> Workload:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(64, 2, 6, 6, generator=generator)
    data = TensorDataset(images, torch.arange(64) % 3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = Net()
        for _ in range(10):
            model(images)
    return Workload("net", model.eval(), data, data, data)


PLAN = BitPlan("net", {"conv1": 3, "conv2": 2, "fc": 4}, 0.0, 0.0)


@pytest.mark.parametrize("learned", [True, False])
def test_there_and_back_changes_nothing(workload, learned):
    images = workload.test.tensors[0]
    quantized = quantize(workload, PLAN)
    before = copy.deepcopy(quantized.state_dict())
    model = trainable(quantized, learned_scales=learned)
    back = deployed(model)
    assert list(back.state_dict()) == list(before)
    assert all(
        torch.equal(a, b) for a, b in zip(back.state_dict().values(), before.values(), strict=True)
    )
    assert torch.equal(back(images), quantized(images))
    for parameter in model.parameters():
        parameter.data.add_(1.0)
    after = quantized.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)  # a copy was trained


def test_live_norms_begin_as_the_identity(workload):
    images = workload.test.tensors[0]
    quantized = quantize(workload, PLAN)
    model = trainable(quantized, learned_scales=True)
    revive_norms(model, workload.model, images)
    live = [name for name, module in model.named_modules() if isinstance(module, LiveNorm)]
    assert live == ["norm1", "norm2"]
    torch.testing.assert_close(model.eval()(images), quantized(images), rtol=1e-4, atol=1e-5)
    # On the images they were measured on, batch statistics are the running ones.
    model.train()
    model.first.eval()
    torch.testing.assert_close(model(images), quantized(images), rtol=1e-3, atol=1e-4)


def test_live_norms_fold_into_what_they_compute(workload):
    images = workload.test.tensors[0]
    model = trainable(quantize(workload, PLAN), learned_scales=True)
    revive_norms(model, workload.model, images)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for _ in range(5):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), workload.test.tensors[1]).backward()
        optimizer.step()
    expected, codes = model.eval()(images), codes_of(model)
    back = deployed(model)
    assert codes_of(back).equal(codes)
    torch.testing.assert_close(back(images), expected, rtol=1e-4, atol=1e-5)
    assert list(back.state_dict()) == list(quantize(workload, PLAN).state_dict())


def codes_of(model: nn.Module) -> Tensor:
    """Every quantized weight as codes; trained and deployed weights have their grids in common."""
    found = []
    for name in ("conv1", "conv2", "fc"):
        parametrized = model.get_submodule(name).parametrizations["weight"]
        quantized = parametrized[0]
        if isinstance(quantized, TrainedWeight):
            quantized = quantized.quantized()
        found.append(quantized.grid.codes(parametrized.original.flatten(1)).flatten())
    return torch.cat(found)


def test_a_live_norm_stays_positive(workload):
    model = trainable(quantize(workload, PLAN), learned_scales=True)
    revive_norms(model, workload.model, workload.test.tensors[0])
    with torch.no_grad():
        model.norm1.norm.weight.fill_(-1)
        model.norm1.keep_positive()
    assert (model.norm1.norm.weight > 0).all()


def test_a_weight_that_two_layers_share_is_trained_as_one():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    model[2].weight = model[0].weight
    data = TensorDataset(
        torch.randn(8, 4, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2
    )
    plan = BitPlan("shared", {"0": 3, "4": 3}, 0.0, 0.0)
    quantized = quantize(Workload("shared", model.eval(), data, data, data), plan)
    trained = trainable(quantized, learned_scales=True)
    owners = [trained[i].parametrizations["weight"] for i in (0, 2)]
    assert owners[0][0] is owners[1][0]
    assert owners[0].original is owners[1].original
    back = deployed(trained)
    assert back[0].parametrizations["weight"][0] is back[2].parametrizations["weight"][0]
