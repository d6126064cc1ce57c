"""Ranges and grids of activations, and what rounding them does, against plain loops."""

import math

import pytest
import torch
from branching import READERS, Branching, branching
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from engine.activations import find_activations
from engine.calibration import Range, calibrate, draw
from engine.perturbation import FEWEST_IMAGES, analyze
from engine.probes import loss_function
from engine.roundoff import BINS, measure_roundoff
from engine.workloads import Workload

COUNT, OUTPUTS, WIDTHS = 40, 3, (2, 4, 8)


@pytest.fixture
def model() -> Branching:
    return branching(OUTPUTS)


@pytest.fixture
def images() -> Tensor:
    return torch.randn(COUNT, 2, 4, 4, generator=torch.Generator().manual_seed(1))


def ranges_of(model: nn.Module, images: Tensor, **options: object) -> dict[str, Range]:
    return calibrate(model, find_activations(model, images).found, images, **options)


def test_ranges_are_least_and_greatest_over_all_images(model: Branching, images: Tensor) -> None:
    own = model.activations(images)
    for name, seen in ranges_of(model, images).items():
        values = own[name].detach()
        assert (seen.low, seen.high) == (float(values.min()), float(values.max()))
        assert seen.signed == bool((own[name] < 0).any())


def test_after_a_rectifier_grids_are_unsigned(model: Branching, images: Tensor) -> None:
    ranges = ranges_of(model, images)
    assert {name for name, seen in ranges.items() if seen.signed} == {"stem", "head"}
    for name, seen in ranges.items():
        grid = seen.grid(4)
        assert (grid.low, grid.high) == (0, 15)
        assert (float(grid.zero_point) == 0) == (not seen.signed), name


def test_min_max_clips_nothing_and_mse_errs_less(model: Branching, images: Tensor) -> None:
    own = model.activations(images)
    whole = ranges_of(model, images, activation_range="min_max")
    least = ranges_of(model, images, activation_range="mse")
    for name, values in own.items():
        rows = values.detach().reshape(1, -1)
        grid = whole[name].grid(3)
        assert float((grid.round(rows) - rows).abs().max()) <= float(grid.scale) * 0.5001
        assert float(least[name].grid(3).squared_error(rows)) < float(grid.squared_error(rows))


def test_a_percentile_leaves_out_the_ends() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    values = torch.cat([torch.rand(4000, 2), torch.tensor([[1000.0, 0.0]])])
    seen = ranges_of(model, values, activation_range="percentile")["0"]
    assert seen.high == 1000.0
    assert float(seen.grid(8).scale) * 255 < 2


def test_the_draw_of_values_follows_the_seed(model: Branching, images: Tensor) -> None:
    many = images.repeat(60, 1, 1, 1)
    first, again, other = (ranges_of(model, many, seed=seed)["stem"].sample for seed in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_images_are_drawn_once_each_with_their_targets() -> None:
    data = TensorDataset(torch.arange(10.0), torch.arange(10))
    pairs = draw(data, 6, seed=3)
    assert [float(image) for image, _ in pairs] == [float(target) for _, target in pairs]
    assert len({int(target) for _, target in pairs}) == 6
    assert [int(t) for _, t in draw(data, 6, seed=3)] == [int(t) for _, t in pairs]
    assert len(draw(data, 50, seed=0)) == 10


def test_no_image_to_draw() -> None:
    message = "calibration must hold at least one image, got 0 images: give the workload images"
    with pytest.raises(ValueError, match=message):
        draw(TensorDataset(torch.zeros(0)), 5, seed=0)


@pytest.mark.parametrize(("value", "said"), [(math.inf, "inf"), (math.nan, "nan")])
def test_an_image_that_overflows_is_named(model: Branching, value: float, said: str) -> None:
    images = torch.randn(COUNT, 2, 4, 4)
    images[37, 0, 1, 1] = value
    message = (
        f"input of layer 'stem' must be finite, got {said} for calibration image 37: look for "
        "overflow in the network or NaN in that image."
    )
    with pytest.raises(ValueError, match=message):
        ranges_of(model, images)


def test_an_activation_that_never_varies_is_named(images: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.ReLU(), nn.Conv2d(3, 2, 1))
    with torch.no_grad():
        model[0].bias.fill_(-100)
    message = (
        "input of layer '2' must vary, got only 0 on calibration images 0…39: look for a dead "
        "layer before it, or give other images."
    )
    with pytest.raises(ValueError, match=message):
        ranges_of(model, images)


def test_an_unknown_range(model: Branching, images: Tensor) -> None:
    with pytest.raises(
        ValueError, match=r"range must be one of mse, min_max, percentile, got 'ema'"
    ):
        ranges_of(model, images, activation_range="ema")


@pytest.mark.parametrize("loss", ["cross_entropy", "a callable"])
def test_every_image_alone_and_every_width_alone(
    model: Branching, images: Tensor, loss: str
) -> None:
    labels = torch.arange(COUNT) % OUTPUTS
    criterion = (
        "cross_entropy" if loss == "cross_entropy" else lambda o, t: 2 * F.cross_entropy(o, t)
    )
    found = find_activations(model, images).found
    ranges = calibrate(model, found, images)
    pairs = list(zip(images, labels, strict=True))
    told = measure_roundoff(model, found, ranges, pairs, loss=criterion, bit_widths=WIDTHS)
    for name in READERS:
        moved: dict[int, list[float]] = {bits: [] for bits in WIDTHS}
        along: dict[int, list[float]] = {bits: [] for bits in WIDTHS}
        values = []
        for image, label in zip(images.split(1), labels.split(1), strict=True):
            leaf = model.activations(image)[name].detach().requires_grad_()
            values.append(leaf.detach())
            value = loss_function(criterion)(model(image, {name: leaf}), label)
            (slope,) = torch.autograd.grad(value, leaf)
            for bits in WIDTHS:
                grid = ranges[name].grid(bits)
                codes = (leaf.detach() / grid.scale + grid.zero_point).round().clamp(0, 2**bits - 1)
                error = (codes - grid.zero_point) * grid.scale - leaf.detach()
                moved[bits].append(float(error.square().sum()))
                along[bits].append(float((error * slope).sum()))
        for bits in WIDTHS:
            for (mean, sem), each in (
                (told[name].perturbation[bits], torch.tensor(moved[bits], dtype=torch.float64)),
                (told[name].first_order[bits], torch.tensor(along[bits], dtype=torch.float64)),
            ):
                scale = float(each.abs().mean())
                assert mean == pytest.approx(float(each.mean()), rel=1e-4, abs=1e-4 * scale)
                assert sem == pytest.approx(float(each.std()) / COUNT**0.5, rel=1e-3)
        flat = torch.cat(values).flatten()
        counts = torch.histc(flat, BINS, float(flat.min()), float(flat.max()))
        assert told[name].counts == tuple(map(int, counts))
        assert told[name].images == COUNT


def workload_of(model: nn.Module, images: Tensor) -> Workload:
    data = TensorDataset(images, torch.arange(len(images)) % OUTPUTS)
    return Workload("branching", model, data, data, data)


def test_an_analysis_puts_traces_and_roundoff_together(model: Branching, images: Tensor) -> None:
    analysis = analyze(workload_of(model, images), bit_widths=WIDTHS, seed=4)
    assert {a.name: a.readers for a in analysis.activations} == READERS
    for a in analysis.activations:
        assert a.trace.samples == a.images == COUNT
        for bits in WIDTHS:
            assert a.omega[bits] == pytest.approx(a.trace.for_omega * a.perturbation[bits])
            assert a.grids[bits][0] > 0
        assert list(a.perturbation) == sorted(a.perturbation)
        assert a.perturbation[2] > a.perturbation[4] > a.perturbation[8]
        assert sum(a.histogram.counts) == COUNT * a.elements
    assert [a.name for a in analysis.activations if a.image] == ["stem"]
    assert analysis.activation_batch_traces.shape == (len(analysis.batch_sizes), len(READERS))
    assert analysis.quantizer["activation_range"] == "mse"
    assert analysis.quantizer["seed"] == "4"
    assert analysis.quantizer["calibration_images"] == str(COUNT)


def test_an_analysis_of_weights_alone(model: Branching, images: Tensor) -> None:
    both = analyze(workload_of(model, images), bit_widths=WIDTHS)
    alone = analyze(workload_of(model, images), bit_widths=WIDTHS, activations=False)
    assert alone.activations == ()
    assert alone.layers == both.layers
    assert set(alone.quantizer) == {"scheme", "weight_granularity", "weight_range"}
    assert "activations=False" in alone.provenance.command


def test_of_large_activations_fewer_images_are_rounded(
    model: Branching, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    workload = workload_of(model, images)
    elements = sum(a.elements for a in analyze(workload, bit_widths=WIDTHS).activations)
    for values, rounded in ((25 * elements, 25), (25 * elements - 1, 24), (1, FEWEST_IMAGES)):
        monkeypatch.setattr("engine.perturbation.ROUNDED_VALUES", values)
        analysis = analyze(workload, bit_widths=WIDTHS)
        assert {a.images for a in analysis.activations} == {rounded}
        assert {a.trace.samples for a in analysis.activations} == {COUNT}
        assert analysis.quantizer["calibration_images"] == str(COUNT)


def test_no_more_images_than_allowed_are_looked_at(model: Branching, images: Tensor) -> None:
    analysis = analyze(workload_of(model, images), bit_widths=WIDTHS, max_images=12)
    assert {a.images for a in analysis.activations} == {12}
    assert analysis.quantizer["calibration_images"] == "12"
