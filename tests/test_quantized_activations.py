"""Rounding activations against a plain loop, and their gradients against formulas written out."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from engine.quantizers import Grid, QuantizedActivation, Quantizer
from engine.recipe import ACTIVATION_RANGES
from engine.trainable import RANGE_SMOOTHING, TrainedActivation

shapes = st.lists(st.integers(1, 4), min_size=0, max_size=5).map(tuple)


def grid_of(scale: float, zero_point: int, low: int, high: int) -> Grid:
    return Grid(
        torch.tensor([[scale]], dtype=torch.float64),
        torch.tensor([[zero_point]], dtype=torch.float64),
        low,
        high,
    )


@st.composite
def grids(draw: st.DrawFn) -> tuple[Grid, int]:
    """Of activations (from 0 on, with a zero point) and of other operands (signed)."""
    bits = draw(st.integers(1, 8))
    scale = draw(st.floats(0.01, 2))
    if draw(st.booleans()):
        return grid_of(scale, draw(st.integers(0, 2**bits - 1)), 0, 2**bits - 1), bits
    return grid_of(scale, 0, -(2 ** (bits - 1)), 2 ** (bits - 1) - 1), bits


def drawn(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(shape, generator=generator, dtype=torch.float64)


@settings(max_examples=60)
@given(grids(), shapes, st.integers(0, 1000))
def test_every_value_goes_to_the_nearest_of_the_grid(made, shape, seed):
    grid, bits = made
    tensor = drawn(shape, seed)
    rounded = QuantizedActivation(grid, bits)(tensor)
    assert rounded.shape == tensor.shape
    scale, zero = grid.scale.item(), grid.zero_point.item()
    values = [(code - zero) * scale for code in range(grid.low, grid.high + 1)]
    for before, after in zip(tensor.flatten().tolist(), rounded.flatten().tolist(), strict=True):
        assert after in values
        assert abs(after - before) <= min(abs(v - before) for v in values) + 1e-12


@settings(max_examples=60)
@given(grids(), shapes, st.integers(0, 1000), st.sampled_from(ACTIVATION_RANGES))
def test_a_trained_activation_gives_the_same_values(made, shape, seed, ranges):
    tensor, quantized = drawn(shape, seed), QuantizedActivation(*made)
    trained = TrainedActivation(quantized, ranges, []).eval()
    assert torch.equal(trained(tensor), quantized(tensor))
    assert torch.equal(trained.quantized()(tensor), quantized(tensor))
    state, before = trained.quantized().state_dict(), quantized.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(state[name], before[name]) for name in before)


def slow_gradients(tensor: Tensor, grid: Grid, cotangent: Tensor) -> tuple[list[float], float]:
    """Esser et al. 2020, eq. 3 and 5, one value at a time, with the zero point kept."""
    scale, zero = grid.scale.item(), grid.zero_point.item()
    to_tensor, to_scale = [], 0.0
    for value, c in zip(tensor.flatten().tolist(), cotangent.flatten().tolist(), strict=True):
        code = round(value / scale + zero)
        inside = grid.low <= code <= grid.high
        to_tensor.append(c if inside else 0.0)
        if inside:
            to_scale += c * (code - zero - value / scale)
        else:
            to_scale += c * ((grid.low if code < grid.low else grid.high) - zero)
    features = tensor[0].numel() if tensor.dim() else 1
    return to_tensor, to_scale / math.sqrt(features * max(-grid.low, grid.high))


@settings(max_examples=60)
@given(grids(), shapes, st.integers(0, 1000), st.sampled_from(ACTIVATION_RANGES))
def test_gradients_are_those_of_the_formula_written_out(made, shape, seed, ranges):
    grid, bits = made
    tensor, cotangent = drawn(shape, seed).requires_grad_(), drawn(shape, seed + 1)
    trained = TrainedActivation(QuantizedActivation(grid, bits), ranges, []).eval()
    (trained(tensor) * cotangent).sum().backward()
    to_tensor, to_scale = slow_gradients(tensor.detach(), grid, cotangent)
    assert tensor.grad.flatten().tolist() == pytest.approx(to_tensor)
    assert isinstance(trained.scale, torch.nn.Parameter) == (ranges == "learned")
    if ranges == "learned":
        assert trained.scale.grad.item() == pytest.approx(to_scale, rel=1e-9, abs=1e-12)


def trained_on(
    grid: Grid, bits: int, batches: list[Tensor]
) -> tuple[TrainedActivation, float, float]:
    """A running range after some batches, and the same two numbers by hand."""
    trained = TrainedActivation(QuantizedActivation(grid, bits), "running", []).train()
    scale, zero = grid.scale.item(), grid.zero_point.item()
    least, greatest = (grid.low - zero) * scale, (grid.high - zero) * scale
    for batch in batches:
        trained(batch)
        least += (1 - RANGE_SMOOTHING) * (min(0, batch.min().item()) - least)
        greatest += (1 - RANGE_SMOOTHING) * (max(0, batch.max().item()) - greatest)
    return trained, least, greatest


@pytest.mark.parametrize("signed", [False, True])
def test_a_running_range_follows_the_batches(signed):
    grid = grid_of(0.5, 0, -8, 7) if signed else grid_of(0.5, 3, 0, 15)
    batches = [drawn((4, 5), seed) for seed in range(30)]
    trained, least, greatest = trained_on(grid, 4, batches)
    scale = max(least / -8, greatest / 7) if signed else (greatest - least) / 15
    found = trained.quantized()
    assert found.scale.item() == pytest.approx(scale)
    assert found.zero_point.item() == (0 if signed else round(-least / scale))
    assert torch.equal(trained(batches[-1]).detach(), trained.quantized()(batches[-1]))


def test_a_running_range_rests_in_eval_mode():
    trained = TrainedActivation(QuantizedActivation(grid_of(0.5, 3, 0, 15), 4), "running", [])
    before = copy.deepcopy(trained.state_dict())
    trained.eval()(100 * drawn((4, 5), 0))
    assert all(torch.equal(before[name], value) for name, value in trained.state_dict().items())


def test_a_running_range_of_nothing_but_zeros_stays_finite():
    grid = Grid(torch.tensor([[0.5]]), torch.tensor([[3.0]]), 0, 15)
    trained = TrainedActivation(QuantizedActivation(grid, 4), "running", []).train()
    for _ in range(2000):  # beyond where the moving average is zero
        assert torch.equal(trained(torch.zeros(2, 3)), torch.zeros(2, 3))
    assert trained.scale > 0


@pytest.mark.parametrize("ranges", ["learned", "running"])
def test_partners_have_one_scale(ranges):
    partners: list[TrainedActivation] = []
    unsigned = QuantizedActivation(grid_of(0.5, 3, 0, 15), 4, group=0)
    signed = QuantizedActivation(grid_of(0.5, 0, -128, 127), 8, group=0)
    one = TrainedActivation(unsigned, ranges, partners).train()
    two = TrainedActivation(signed, ranges, partners).train()
    sums = one(drawn((2, 3), 0)).sum() + two(100 * drawn((2, 3), 1)).sum()
    if ranges == "learned":
        sums.backward()
        assert one.scale is two.scale
        alone = [TrainedActivation(x, "learned", []) for x in (unsigned, signed)]
        for partner, tensor in zip(alone, (drawn((2, 3), 0), 100 * drawn((2, 3), 1)), strict=True):
            partner(tensor).sum().backward()
        assert_close(one.scale.grad, sum(partner.scale.grad for partner in alone))
    else:
        assert one.scale.item() == two.scale.item() == max(x._needed_scale() for x in partners)
    assert one.quantized().scale == two.quantized().scale
    assert one.quantized().group == two.quantized().group == 0


def test_a_step_size_stays_positive():
    trained = TrainedActivation(QuantizedActivation(grid_of(0.5, 3, 0, 15), 4), "learned", [])
    with torch.no_grad():
        trained.scale.fill_(-1)
        trained.keep_positive()
    assert trained.scale > 0


def test_gradients_in_single_precision_keep_to_their_tensor():
    grid = Quantizer("asymmetric", "tensor", "min_max").fit(torch.rand(1, 50), 3)
    trained = TrainedActivation(QuantizedActivation(grid, 3), "learned", [])
    tensor = torch.rand(2, 5, requires_grad=True)
    trained(tensor).sum().backward()
    assert tensor.grad.dtype == trained.scale.grad.dtype == torch.float32
    assert trained.scale.grad.shape == ()
