"""Learned rounding against every possible rounding of a small layer, and the layer's own output."""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.testing import assert_close
from torch.utils.data import TensorDataset
from toy import Bent, toy_workload

import engine.rounding
from engine.layers import Channels, find_layers, fold_batch_norm
from engine.quantized import load_quantized, quantize, save_quantized
from engine.quantizers import SCHEMES, Grid, QuantizedWeight, Quantizer
from engine.results import BitPlan
from engine.rounding import ITERATIONS, Moments, draw_images, learn_rounding, learned_codes
from engine.workloads import Workload


@pytest.fixture(scope="module", autouse=True)
def _fewer_steps() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.rounding, "ITERATIONS", 100)
        yield


def moments_of(inputs: Tensor, targets: Tensor) -> Moments:
    """Of a layer that gives weights [channels, n] @ inputs [n, samples]."""
    inputs, targets, count = inputs.double(), targets.double(), inputs.shape[1]
    return Moments((inputs @ inputs.T / count)[None], (targets @ inputs.T / count)[None])


def neighbours(rows: Tensor, quantizer: Quantizer, bits: int) -> tuple[Tensor, Tensor]:
    """Codes below and above each weight; the same code twice beyond the ends of the grid."""
    grid = quantizer.fit(rows, bits)
    below = (rows / grid.scale + grid.zero_point).floor()
    return below.clamp(grid.low, grid.high), (below + 1).clamp(grid.low, grid.high)


@st.composite
def layers_to_round(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, Quantizer, int]:
    """Weights [2, n], correlated inputs [n, samples], targets [2, samples]."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    n = draw(st.integers(1, 6))
    rows = torch.randn(2, n)
    inputs = F.relu(torch.randn(n, n) @ torch.randn(n, 50) + draw(st.floats(-1, 2)))
    targets = rows @ inputs + draw(st.sampled_from([0.0, 0.1])) * torch.randn(2, 50)
    quantizer = Quantizer(draw(st.sampled_from(SCHEMES)))
    return rows, inputs, targets, quantizer, draw(st.integers(1, 4))


# --- one layer


def test_a_small_layer_is_rounded_almost_as_well_as_can_be(monkeypatch):
    """All 2^12 roundings of 12 weights; channels do not mix, so 2 times 2^6 hold them all."""
    monkeypatch.setattr(engine.rounding, "ITERATIONS", ITERATIONS)
    shares, gains = [], []
    for seed in range(8):
        torch.manual_seed(seed)
        rows, quantizer = torch.randn(2, 6), Quantizer()
        inputs = F.relu(torch.randn(6, 6) @ torch.randn(6, 200) + 0.5)
        targets = rows @ inputs
        grid = quantizer.fit(rows, 3)
        below, above = neighbours(rows, quantizer, 3)
        ways = torch.tensor(list(itertools.product((0.0, 1.0), repeat=6)))
        every = below[:, None] + ways * (above - below)[:, None]  # [2, 64, 6]
        levels = (every - grid.zero_point[:, None]) * grid.scale[:, None]
        least = (levels @ inputs - targets[:, None]).square().mean(2).min(1).values
        codes = learned_codes(rows, grid, moments_of(inputs, targets))
        learned = (codes - grid.zero_point) * grid.scale
        got = (learned @ inputs - targets).square().mean(1)
        nearest = (grid.round(rows) @ inputs - targets).square().mean(1)
        assert bool((got >= least * (1 - 1e-4)).all())
        assert bool((got <= nearest * (1 + 1e-4)).all())
        shares += (got / least).tolist()
        gains += (nearest / least).tolist()
    assert max(shares) < 1.1
    assert sum(shares) / len(shares) < 1.01
    assert max(gains) > 3  # what the nearest codes leave to gain
    assert sum(gains) / len(gains) > 1.3


@given(layers_to_round())
@settings(max_examples=12)
def test_every_weight_goes_to_a_neighbour_and_no_channel_gets_worse(example):
    rows, inputs, targets, quantizer, bits = example
    grid = quantizer.fit(rows, bits)
    codes = learned_codes(rows, grid, moments_of(inputs, targets))
    below, above = neighbours(rows, quantizer, bits)
    assert bool(((codes == below) | (codes == above)).all())
    assert grid.low <= int(codes.min()) <= int(codes.max()) <= grid.high
    learned = ((codes - grid.zero_point) * grid.scale @ inputs - targets).square().mean(1)
    nearest = (grid.round(rows) @ inputs - targets).square().mean(1)
    assert bool((learned <= nearest * (1 + 1e-4) + 1e-9).all())


def test_a_search_that_fails_still_ends_where_no_single_change_helps(monkeypatch):
    monkeypatch.setattr(engine.rounding, "LEARNING_RATE", 1e4)  # ends anywhere
    monkeypatch.setattr(engine.rounding, "ITERATIONS", 10)
    torch.manual_seed(0)
    for _ in range(10):
        rows = torch.randn(8, 24, dtype=torch.float64)
        inputs = F.relu(torch.randn(24, 24) @ torch.randn(24, 50) + 1).double()
        quantizer, targets = Quantizer(), rows @ inputs
        grid = quantizer.fit(rows, 3)
        below, above = neighbours(rows, quantizer, 3)

        def error(
            codes: Tensor, grid: Grid = grid, inputs: Tensor = inputs, targets: Tensor = targets
        ) -> Tensor:
            weights = (codes - grid.zero_point) * grid.scale
            return (weights @ inputs - targets).square().mean(1)

        codes = learned_codes(rows, grid, moments_of(inputs, targets))
        least = error(codes)
        assert bool((least <= error(grid.codes(rows))).all())
        for i in range(24):
            other = codes.clone()
            other[:, i] = below[:, i] + above[:, i] - codes[:, i]
            assert bool((least <= error(other) * (1 + 1e-6)).all())


def test_errors_of_weights_that_meet_the_same_input_cancel():
    """Two inputs that are always equal: what counts is the sum of their weights."""
    rows = torch.tensor([[0.3, 0.3, 2.0, -2.0]])
    inputs = torch.randn(4, 100)
    inputs[1] = inputs[0]
    grid = replace(Quantizer().fit(rows, 3), scale=torch.tensor([[1.0]]))
    assert grid.codes(rows).tolist() == [[0, 0, 2, -2]]  # an error of 0.6 in the sum
    codes = learned_codes(rows, grid, moments_of(inputs, rows @ inputs))
    assert sorted(codes[0, :2].tolist()) == [0, 1]  # an error of 0.4
    assert codes[0, 2:].tolist() == [2, -2]


def test_inputs_that_are_always_zero_leave_the_nearest_codes():
    rows = torch.randn(2, 5)
    grid = Quantizer().fit(rows, 3)
    assert torch.equal(
        learned_codes(rows, grid, moments_of(torch.zeros(5, 9), torch.zeros(2, 9))),
        grid.codes(rows),
    )


def test_learning_does_not_touch_torchs_generator():
    rows, drawn = torch.randn(2, 5), torch.get_rng_state()
    learned_codes(rows, Quantizer().fit(rows, 3), moments_of(rows.T, rows @ rows.T))
    assert torch.equal(torch.get_rng_state(), drawn)


# --- what the layer sees

KINDS = {
    "linear": (lambda: nn.Linear(4, 6), (5, 4)),
    "linear without bias on places": (lambda: nn.Linear(4, 6, bias=False), (5, 7, 4)),
    "conv2d": (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1), (5, 4, 7, 8)),
    "dilated": (lambda: nn.Conv2d(4, 6, (3, 2), dilation=2, bias=False), (5, 4, 7, 8)),
    "reflected": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="reflect"), (5, 4, 5, 5)),
    "grouped": (lambda: nn.Conv2d(4, 6, 3, groups=2), (5, 4, 6, 6)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4), (5, 4, 6, 6)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3), (5, 4, 9)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), (3, 2, 4, 4, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2), (5, 4, 3, 3)),
    "transposed in groups": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2), (5, 4, 3, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_moments_give_the_error_of_the_layers_output(kind, monkeypatch):
    torch.manual_seed(0)
    make, shape = KINDS[kind]
    model = nn.Sequential(make())
    images = torch.randn(shape) + 0.3
    (layer,) = find_layers(model, images[:1])
    monkeypatch.setattr(engine.rounding, "BATCH", 2)
    monkeypatch.setattr(engine.rounding, "PATCHES", 500)  # a few images at once, or one
    with torch.no_grad():
        assert engine.rounding._is_linear(model[0], layer, images)
        moments = engine.rounding._moments(model, model, layer, images)
        rows = layer.channels.rows(model[0].weight)
        expected = model(images).movedim(-1 if layer.kind == "linear" else 1, 0).flatten(1)
        zero = moments.errors(torch.zeros_like(rows))
        for _ in range(3):
            other = rows + 0.3 * torch.randn_like(rows)
            moved = copy.deepcopy(model)
            moved[0].weight.copy_(layer.channels.weight(other, moved[0].weight.shape))
            got = moved(images).movedim(-1 if layer.kind == "linear" else 1, 0).flatten(1)
            by_hand = (got - expected).square().mean(1)
            constant = moments.errors(rows)  # least, as these weights give the outputs themselves
            assert_close(moments.errors(other) - constant, by_hand.double(), rtol=1e-3, atol=1e-5)
    assert not zero.any()


def test_inputs_come_from_the_rounded_layers_before_and_targets_from_the_float_network():
    torch.manual_seed(0)
    reference = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))
    images = torch.randn(40, 4)
    layer = find_layers(reference, images[:1])[1]
    model = copy.deepcopy(reference)
    with torch.no_grad():
        model[0].weight.add_(0.5 * torch.randn(5, 4))  # stands for the rounding
        moments = engine.rounding._moments(model, reference, layer, images)
        differences = []
        for weight in (model[2].weight, torch.randn(3, 5)):
            got = F.linear(model[:2](images), weight, reference[2].bias)
            by_hand = (got - reference(images)).square().mean(0).double()
            differences.append(moments.errors(weight) - by_hand)
    assert_close(differences[0], differences[1], rtol=1e-4, atol=1e-5)


class Sorted(nn.Linear):
    """Takes no weight of another shape."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).view(-1, 3)


@pytest.mark.parametrize(("kind", "linear"), [(nn.Linear, True), (Bent, False), (Sorted, False)])
def test_only_layers_that_are_linear_in_their_weight_count(kind, linear):
    torch.manual_seed(0)
    model, images = nn.Sequential(kind(4, 3)), torch.randn(2, 4)
    (layer,) = find_layers(model, images)
    with torch.no_grad():
        assert engine.rounding._is_linear(model[0], layer, images) == linear


# --- a network


class Net(nn.Module):
    """Layers to learn, and those whose rounding cannot be learned."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 4, 3, groups=2)
        self.kernel = nn.Parameter(torch.randn(4, 4))
        self.twice = nn.Linear(4, 4)
        self.bent = Bent(4, 4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.grouped(F.relu(self.norm(self.conv(x)))))
        x = F.relu(x.mean((2, 3)) @ self.kernel)
        return self.fc(self.bent(F.relu(self.twice(self.twice(x)))))


LEARNED = ("conv", "grouped", "fc")
OTHERS = ("kernel", "twice", "bent")


@pytest.fixture
def workload(monkeypatch: pytest.MonkeyPatch) -> Workload:
    monkeypatch.setattr("engine.quantized.IMAGES", 24)
    return toy_workload(Net, images=40, shift=0.3)


def plan_of(bits: int = 2, names: tuple[str, ...] = LEARNED + OTHERS) -> BitPlan:
    return BitPlan("toy", dict.fromkeys(names, bits), 0.0, 0.0)


def codes_of(module: nn.Module) -> Tensor:
    weights = module.parametrizations.weight
    return weights[0].grid.codes(weights[0].channels.rows(weights.original))


def output_of(model: nn.Module, name: str, images: Tensor) -> Tensor:
    caught: list[Tensor] = []
    hook = model.get_submodule(name).register_forward_hook(lambda *given: caught.append(given[2]))
    with torch.no_grad():
        model(images)
    hook.remove()
    return caught[0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_each_layer_is_nearer_to_the_float_network_than_with_nearest_codes(workload, scheme):
    """With the layers before it as they were rounded, whatever they are."""
    learned = quantize(workload, plan_of(), rounding="learned", scheme=scheme)
    nearest = quantize(workload, plan_of(), scheme=scheme)
    images = draw_images(workload.calibration, 24, 0)
    folded = fold_batch_norm(workload.model, images[:1]).eval()
    for name in LEARNED:
        other = copy.deepcopy(learned)
        plain = nearest.get_submodule(name).parametrizations.weight.original
        other.get_submodule(name).parametrizations.weight.original.data = plain.data
        wanted = output_of(folded, name, images)
        errors = [
            float((output_of(model, name, images) - wanted).square().mean())
            for model in (learned, other)
        ]
        assert not torch.equal(
            codes_of(learned.get_submodule(name)), codes_of(other.get_submodule(name))
        )
        assert errors[0] < errors[1]


@pytest.mark.parametrize("bits", [1, 2, 4])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_stored_weights_round_to_the_learned_codes(workload, scheme, bits):
    learned = quantize(workload, plan_of(bits), rounding="learned", scheme=scheme)
    nearest = quantize(workload, plan_of(bits), scheme=scheme)
    for name in LEARNED:
        module, plain = learned.get_submodule(name), nearest.get_submodule(name)
        weights, before = module.parametrizations.weight, plain.parametrizations.weight
        grid = weights[0].grid
        assert torch.equal(grid.scale, before[0].grid.scale)
        assert torch.equal(grid.zero_point, before[0].grid.zero_point)
        rows, was = (weights[0].channels.rows(x.original) for x in (weights, before))
        kept = grid.codes(rows) == grid.codes(was)
        assert torch.equal(rows[kept], was[kept])  # and only those with other codes moved
        assert bool(
            ((grid.codes(rows) - (was / grid.scale + grid.zero_point)).abs()[~kept] < 1).all()
        )


def test_layers_that_cannot_be_learned_keep_the_nearest_codes(workload):
    learned = quantize(workload, plan_of(), rounding="learned")
    nearest = quantize(workload, plan_of())
    assert torch.equal(learned.kernel, nearest.kernel)
    for name in ("twice", "bent"):
        assert torch.equal(learned.get_submodule(name).weight, nearest.get_submodule(name).weight)


def test_layers_of_too_many_inputs_keep_the_nearest_codes(workload, monkeypatch):
    monkeypatch.setattr(engine.rounding, "INPUTS", 18)  # `conv` has 18, `grouped` 27
    learned = quantize(workload, plan_of(), rounding="learned")
    nearest = quantize(workload, plan_of())
    assert not torch.equal(learned.conv.weight, nearest.conv.weight)
    assert torch.equal(learned.grouped.weight, nearest.grouped.weight)


def test_layers_that_stay_float_are_left_alone(workload):
    learned = quantize(workload, plan_of(2, ("conv",)), rounding="learned")
    folded = fold_batch_norm(workload.model, workload.test[0][0][None])
    assert torch.equal(learned.fc.weight, folded.fc.weight)
    assert not parametrize.is_parametrized(learned.fc)


def test_the_seed_alone_decides(workload):
    drawn, before = torch.get_rng_state(), copy.deepcopy(workload.model.state_dict())
    states = [
        quantize(workload, plan_of(), rounding="learned", seed=seed).state_dict()
        for seed in (3, 3, 4)
    ]
    assert torch.equal(torch.get_rng_state(), drawn)
    assert all(map(torch.equal, states[0].values(), states[1].values()))
    assert not all(map(torch.equal, states[0].values(), states[2].values()))
    state = workload.model.state_dict()
    assert all(torch.equal(state[name], before[name]) for name in before)
    assert not any(module._forward_hooks for module in workload.model.modules())


def test_a_learned_network_comes_back_bit_for_bit(workload, tmp_path, monkeypatch):
    learned = quantize(workload, plan_of(), rounding="learned", correction="batch_norm", seed=7)
    save_quantized(learned, tmp_path)
    monkeypatch.setattr("engine.quantized.learn_rounding", None)  # nothing is learned again
    again = load_quantized(workload, tmp_path)
    images = workload.test.tensors[0]
    assert torch.equal(again(images), learned(images))
    assert again.plan == learned.plan
    assert again.plan.quantizer["rounding"] == "learned"


def test_rounding_comes_before_the_correction(workload):
    learned = quantize(workload, plan_of(), rounding="learned")
    both = quantize(workload, plan_of(), rounding="learned", correction="batch_norm")
    for name in LEARNED:
        assert torch.equal(
            codes_of(learned.get_submodule(name)), codes_of(both.get_submodule(name))
        )
    images = draw_images(workload.calibration, 24, 0)
    folded = fold_batch_norm(workload.model, images[:1]).eval()
    wanted, got = (output_of(model, "fc", images).mean(0) for model in (folded, both))
    assert_close(got, wanted, rtol=1e-5, atol=1e-6)


def test_the_plans_own_rounding_is_made_again(workload):
    first = quantize(workload, plan_of(), rounding="learned", seed=2)
    again = quantize(workload, first.plan)
    assert again.plan == first.plan
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))
    plain = quantize(workload, first.plan, rounding="nearest")
    assert torch.equal(plain.fc.weight, quantize(workload, plan_of()).fc.weight)


def test_progress_is_told_layer_by_layer(workload):
    told: list[tuple[int, int, str]] = []
    quantize(workload, plan_of(), rounding="learned", progress=lambda *given: told.append(given))
    assert told == [(i + 1, 4, "layers rounded") for i in range(4)]  # `bent` too, in vain


def test_the_network_is_run_no_further_than_the_layer(workload):
    images = workload.test.tensors[0][:2]
    ran: list[str] = []
    model = copy.deepcopy(workload.model)
    model.fc.register_forward_hook(lambda *_: ran.append("fc"))
    with torch.no_grad():
        inputs, outputs = engine.rounding._reach(model, "conv", images)
    assert torch.equal(inputs, images)
    assert_close(outputs, model.conv(images))
    assert not ran
    assert not model.conv._forward_hooks


def test_images_are_drawn_once_each():
    data = TensorDataset(torch.arange(50.0)[:, None], torch.zeros(50))
    drawn = draw_images(data, 20, 0).flatten().tolist()
    assert len(set(drawn)) == 20
    assert drawn != sorted(drawn)
    assert drawn == draw_images(data, 20, 0).flatten().tolist()
    assert sorted(draw_images(data, 99, 1).flatten().tolist()) == list(range(50))


def test_holding_moves_only_what_has_to_move():
    rows = torch.tensor([[0.4, 1.4, -0.6, 5.0]])
    grid = replace(Quantizer().fit(rows, 3), scale=torch.tensor([[1.0]]))
    weight = QuantizedWeight(grid, 3, Channels())
    held = weight.holding(rows, torch.tensor([[0.0, 2.0, -1.0, 3.0]]))
    assert torch.equal(held, torch.tensor([[0.4, 2.0, -0.6, 5.0]]))
    assert grid.codes(held).tolist() == [[0, 2, -1, 3]]


def test_learning_works_on_a_network_that_is_quantized_already(workload):
    """The low-level call: the grids stay, whatever fitted them."""
    images = draw_images(workload.calibration, 24, 0)
    folded = fold_batch_norm(workload.model, images[:1]).eval()
    model = quantize(workload, plan_of(), weight_range="min_max")
    scales = [buffer.clone() for name, buffer in model.named_buffers() if name.endswith("scale")]
    learn_rounding(model, folded, find_layers(folded, images[:1]), images)
    after = [buffer for name, buffer in model.named_buffers() if name.endswith("scale")]
    assert all(map(torch.equal, scales, after))


def test_an_unknown_rounding_is_refused(workload):
    with pytest.raises(ValueError, match="must") as error:
        quantize(workload, plan_of(), rounding="up")
    assert str(error.value) == "rounding must be one of nearest, learned, got 'up'."
