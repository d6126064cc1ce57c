"""Rounding against enumeration of the grid; fitted grids against scans of all scales."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.testing import assert_close

from engine.quantizers import GRANULARITIES, RANGES, SCHEMES, Grid, Quantizer

ALL = [Quantizer(*choice) for choice in itertools.product(SCHEMES, GRANULARITIES, RANGES)]
DISTRIBUTIONS = {
    "normal": lambda shape: torch.randn(shape),
    "heavy tails": lambda shape: torch.randn(shape) ** 3,
    "positive": lambda shape: torch.randn(shape).abs(),
    "uniform": lambda shape: torch.rand(shape) - 0.3,
}

quantizers = st.sampled_from(ALL)
bit_widths = st.integers(1, 8)
distributions = st.sampled_from(sorted(DISTRIBUTIONS))


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


@st.composite
def matrices(draw: st.DrawFn, largest: float = 100) -> Tensor:
    """Rows of numbers that hypothesis finds interesting: zeros, constants, ties, single ones."""
    channels, n = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    numbers = st.floats(-largest, largest, width=32) | st.integers(-3, 3).map(float)
    values = draw(st.lists(numbers, min_size=channels * n, max_size=channels * n))
    return torch.tensor(values, dtype=torch.float64).reshape(channels, n)


@st.composite
def drawn_rows(draw: st.DrawFn, least: int = 64, most: int = 300) -> Tensor:
    """Rows like a layer's: many numbers of one distribution."""
    torch.manual_seed(draw(st.integers(0, 10**6)))
    shape = (draw(st.integers(1, 4)), draw(st.integers(least, most)))
    return DISTRIBUTIONS[draw(distributions)](shape).double()


def levels(grid: Grid) -> Tensor:
    """Every value a grid can hold, [channels, 2^b]."""
    codes = torch.arange(grid.low, grid.high + 1, dtype=grid.scale.dtype)
    return (codes - grid.zero_point) * grid.scale


def error(rows: Tensor, quantizer: Quantizer, bits: int) -> Tensor:
    return quantizer.fit(rows, bits).squared_error(rows).squeeze(1)


# --- rounding to a grid


@given(matrices(), quantizers, bit_widths)
@settings(max_examples=60)
def test_every_value_goes_to_the_nearest_level(rows, quantizer, bits):
    grid = quantizer.fit(rows, bits)
    distances = (rows.unsqueeze(2) - levels(grid).unsqueeze(1)).abs()  # [channels, n, levels]
    nearest = distances.min(2).values
    assert_close((grid.round(rows) - rows).abs(), nearest, rtol=1e-6, atol=1e-12)
    assert_close(
        grid.squared_error(rows), nearest.square().sum(1, keepdim=True), rtol=1e-6, atol=1e-12
    )


@given(matrices(), quantizers, bit_widths)
@settings(max_examples=60)
def test_codes_are_whole_and_of_b_bits(rows, quantizer, bits):
    grid = quantizer.fit(rows, bits)
    codes = grid.codes(rows)
    first = -(2 ** (bits - 1)) if quantizer.scheme == "symmetric" else 0
    assert (grid.low, grid.high) == (first, first + 2**bits - 1)
    assert torch.equal(codes, codes.round())
    assert grid.low <= int(codes.min()) <= int(codes.max()) <= grid.high
    assert bool((grid.scale > 0).all())
    assert bool(torch.isfinite(grid.round(rows)).all())
    assert len(grid.scale) == (len(rows) if quantizer.granularity == "channel" else 1)


@given(matrices(), quantizers, bit_widths)
@settings(max_examples=60)
def test_zero_lies_on_the_grid(rows, quantizer, bits):
    grid = quantizer.fit(rows, bits)
    if quantizer.scheme == "symmetric":
        assert bool((grid.zero_point == (-0.5 if bits == 1 else 0)).all())
        if bits == 1:  # the only grid without a zero
            return
    else:
        assert torch.equal(grid.zero_point, grid.zero_point.round())
        assert bool(((grid.zero_point >= 0) & (grid.zero_point < 2**bits)).all())
    assert not grid.round(torch.zeros_like(rows)).any()


@given(matrices(), quantizers, bit_widths)
@settings(max_examples=30)
def test_what_lies_on_a_grid_stays(rows, quantizer, bits):
    grid = quantizer.fit(rows, bits)
    rounded = grid.round(rows)
    assert_close(grid.round(rounded), rounded, rtol=1e-12, atol=0)


# --- how a grid is fitted


@pytest.mark.parametrize("bits", range(2, 9))
def test_symmetric_min_max_clips_nothing(bits):
    rows = torch.randn(5, 40, dtype=torch.float64)
    grid = Quantizer("symmetric", "channel", "min_max").fit(rows, bits)
    half = 2 ** (bits - 1)
    closed_form = torch.tensor(
        [[max(-float(row.min()) / half, float(row.max()) / (half - 1))] for row in rows]
    )
    assert_close(grid.scale, closed_form.double(), rtol=1e-6, atol=0)
    assert bool(((grid.round(rows) - rows).abs() <= grid.scale / 2 * (1 + 1e-12)).all())


@given(drawn_rows(least=1), st.sampled_from(GRANULARITIES), bit_widths)
@settings(max_examples=25)
def test_asymmetric_min_max_gives_the_codes_of_torch(rows, granularity, bits):
    rows = rows.float()
    grid = Quantizer("asymmetric", granularity, "min_max").fit(rows, bits)
    scale, zero_point = grid.scale.flatten(), grid.zero_point.flatten()
    if granularity == "channel":
        fake = torch.fake_quantize_per_channel_affine(rows, scale, zero_point, 0, 0, 2**bits - 1)
    else:
        fake = torch.fake_quantize_per_tensor_affine(
            rows, float(scale), int(zero_point), 0, 2**bits - 1
        )
    # torch multiplies by the inverse of the scale: a value half-way may go the other way
    off = (grid.round(rows) - fake).abs() / grid.scale
    halfway = ((rows / grid.scale) % 1 - 0.5).abs() < 1e-4
    assert bool(((off < 1e-4) | halfway).all())
    assert float((off > 1e-4).float().mean()) <= 0.1


def test_asymmetric_min_max_by_hand():
    grid = Quantizer("asymmetric", "channel", "min_max").fit(torch.tensor([[-1.0, 0.3, 2.0]]), 2)
    assert (grid.scale.item(), grid.zero_point.item()) == (1.0, 1.0)
    assert grid.codes(torch.tensor([[-1.0, 0.3, 2.0, 9.0, -9.0]])).tolist() == [[0, 1, 3, 3, 0]]
    assert grid.round(torch.tensor([[-1.0, 0.3, 2.0, 9.0, -9.0]])).tolist() == [[-1, 0, 2, 2, -1]]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_percentile_leaves_out_the_outliers(scheme):
    rows = torch.cat([torch.linspace(-1, 1, 3997), torch.tensor([50.0, -40.0, 30.0])])[None]
    grid = Quantizer(scheme, "channel", "percentile").fit(rows, 8)
    assert float(levels(grid).abs().max()) < 1.02
    assert float(Quantizer(scheme, "channel", "min_max").fit(rows, 8).scale) > 10 * float(
        grid.scale
    )


@given(matrices(), st.sampled_from(SCHEMES), bit_widths)
@settings(max_examples=25)
def test_percentile_cuts_nothing_off_a_short_row(rows, scheme, bits):
    cut = Quantizer(scheme, "channel", "percentile").fit(rows, bits)
    whole = Quantizer(scheme, "channel", "min_max").fit(rows, bits)
    assert torch.equal(cut.scale, whole.scale)
    assert torch.equal(cut.zero_point, whole.zero_point)


def test_one_symmetric_bit_is_plus_or_minus_s():
    rows = torch.tensor([[3.0, -1.0, -2.0], [0.5, 0.5, -0.1]])
    for kind, s in (("mse", [2.0, 1.1 / 3]), ("min_max", [3.0, 0.5])):
        grid = Quantizer("symmetric", "channel", kind).fit(rows, 1)
        assert_close(grid.round(rows), rows.sign() * torch.tensor(s)[:, None])


@given(drawn_rows(least=2, most=40))
@settings(max_examples=30)
def test_the_mean_magnitude_is_the_best_s(rows):
    best = error(rows, Quantizer(), 1)
    for share in torch.linspace(0, 3, 301):
        s = share * rows.abs().mean(1, keepdim=True)
        assert bool((best <= (rows.sign() * s - rows).square().sum(1) * (1 + 1e-9)).all())


# --- the least squared error


@given(
    matrices() | drawn_rows(), st.sampled_from(SCHEMES), st.sampled_from(GRANULARITIES), bit_widths
)
@settings(max_examples=50)
def test_least_squares_is_never_worse_than_min_max(rows, scheme, granularity, bits):
    if granularity == "tensor":
        rows = rows.reshape(1, -1)
    best = error(rows, Quantizer(scheme, granularity, "mse"), bits)
    whole = error(rows, Quantizer(scheme, granularity, "min_max"), bits)
    assert bool((best <= whole * (1 + 1e-9)).all())


@given(drawn_rows(least=64, most=2000), st.sampled_from(SCHEMES), bit_widths)
@settings(max_examples=25)
def test_least_squares_is_hardly_ever_worse_than_percentile(rows, scheme, bits):
    best = error(rows, Quantizer(scheme, "channel", "mse"), bits)
    cut = error(rows, Quantizer(scheme, "channel", "percentile"), bits)
    assert bool((best <= 1.02 * cut).all())


def least_error(row: Tensor, bits: int) -> float:
    """The least squared error over 4 000 symmetric scales, from nothing to all of the range."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    widest = float(row.abs().max()) / high
    scales = torch.linspace(widest / 4000, 1.1 * widest, 4000, dtype=row.dtype)[:, None]
    rounded = (row / scales).round().clamp(low, high) * scales
    return float((rounded - row).square().sum(1).min())


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize(("bits", "slack"), [(2, 3e-4), (3, 3e-4), (4, 0.01), (6, 0.05)])
def test_least_squares_finds_the_best_symmetric_scale(distribution, bits, slack):
    rows = DISTRIBUTIONS[distribution]((8, 288)).double()
    best = torch.tensor([least_error(row, bits) for row in rows], dtype=rows.dtype)
    ratio = error(rows, Quantizer(), bits) / best
    assert float(ratio.max()) < 1 + slack  # more bits have more local minima
    assert float(ratio.mean()) < 1.01


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_least_squares_comes_near_the_best_asymmetric_grid(distribution, bits):
    rows = DISTRIBUTIONS[distribution]((8, 288)).double()
    top = 2**bits - 1
    best = torch.full((len(rows),), torch.inf, dtype=rows.dtype)
    reach = (rows.max(1).values - rows.min(1).values)[:, None]
    for zero_point in range(top + 1):
        for share in torch.linspace(0.05, 1.2, 231):
            grid = Grid(reach * share / top, torch.full_like(reach, zero_point), 0, top)
            best = torch.minimum(best, grid.squared_error(rows).squeeze(1))
    ratio = error(rows, Quantizer("asymmetric"), bits) / best
    assert float(ratio.max()) < 1.01
    assert float(ratio.mean()) < 1.001


@pytest.mark.parametrize("distribution", DISTRIBUTIONS)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_scale_suits_the_codes_better(scheme, distribution):
    rows = DISTRIBUTIONS[distribution]((8, 288)).double()
    for bits in range(2, 9):
        grid = Quantizer(scheme).fit(rows, bits)
        levels = grid.codes(rows) - grid.zero_point
        scale = (rows * levels).sum(1, keepdim=True) / levels.square().sum(1, keepdim=True)
        projected = (scale * levels - rows).square().sum(1, keepdim=True)
        assert bool((projected > 0.99 * grid.squared_error(rows)).all())


@given(drawn_rows(), st.sampled_from(SCHEMES), st.sampled_from(GRANULARITIES))
@settings(max_examples=25)
def test_error_falls_as_bits_rise(rows, scheme, granularity):
    quantizer = Quantizer(scheme, granularity, "mse")
    errors = [float(error(rows, quantizer, bits).sum()) for bits in range(1, 9)]
    assert errors == sorted(errors, reverse=True)


@given(matrices(), st.integers(2, 8))
@settings(max_examples=50)
def test_error_is_at_most_half_a_step_each(rows, bits):
    """Holds for every row, as min-max is among the grids that the search compares."""
    step = rows.abs().max(1).values / (2 ** (bits - 1) - 1)
    bound = rows.shape[1] * (step / 2) ** 2
    assert bool((error(rows, Quantizer(), bits) <= bound * (1 + 1e-9) + 1e-300).all())


@given(drawn_rows(), st.sampled_from(SCHEMES), bit_widths)
@settings(max_examples=25)
def test_a_grid_a_channel_is_at_least_as_good_as_one_for_all(rows, scheme, bits):
    rows = rows * torch.logspace(0, 2, len(rows), base=2)[:, None]
    channel = error(rows, Quantizer(scheme, "channel", "mse"), bits).sum()
    tensor = error(rows, Quantizer(scheme, "tensor", "mse"), bits).sum()
    assert float(channel) <= 1.02 * float(tensor)  # what the searches may miss


@given(matrices() | drawn_rows(), quantizers, bit_widths, st.integers(-20, 20))
@settings(max_examples=50)
def test_a_scaled_row_has_a_scaled_grid(rows, quantizer, bits, power):
    rows = torch.where(rows.abs() < 1e-30, 0, rows)  # no underflow
    scaled = quantizer.fit(rows * 2.0**power, bits).round(rows * 2.0**power)
    assert torch.equal(scaled, quantizer.fit(rows, bits).round(rows) * 2.0**power)


@given(drawn_rows(), quantizers, bit_widths)
@settings(max_examples=25)
def test_one_grid_for_all_is_that_of_one_long_row(rows, quantizer, bits):
    one = Quantizer(quantizer.scheme, "tensor", quantizer.range).fit(rows, bits)
    long = Quantizer(quantizer.scheme, "channel", quantizer.range).fit(rows.reshape(1, -1), bits)
    assert torch.equal(one.scale, long.scale)
    assert torch.equal(one.zero_point, long.zero_point)


@given(drawn_rows(), st.sampled_from([q for q in ALL if q.granularity == "channel"]), bit_widths)
@settings(max_examples=25)
def test_channels_do_not_mix(rows, quantizer, bits):
    together = quantizer.fit(rows, bits).round(rows)
    apart = torch.cat([quantizer.fit(row[None], bits).round(row[None]) for row in rows])
    assert_close(together, apart, rtol=1e-9, atol=0)


# --- rows with little in them


@pytest.mark.parametrize("bits", [1, 2, 8])
def test_zeros_stay_zeros(bits):
    rows = torch.zeros(2, 5)
    for quantizer in ALL:
        assert float(quantizer.fit(rows, bits).squared_error(rows).sum()) < 1e-60


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("n", [1, 6])
def test_a_constant_row_is_kept(bits, n):
    for quantizer, value in itertools.product(ALL, (0.7, -0.7)):
        rows = torch.full((1, n), value)
        assert_close(quantizer.fit(rows, bits).round(rows), rows, rtol=1e-6, atol=0)


def test_a_row_of_zeros_beside_others_is_no_matter():
    rows = torch.randn(3, 20)
    rows[1] = 0
    for quantizer in ALL:
        rounded = quantizer.fit(rows, 4).round(rows)
        assert bool(torch.isfinite(rounded).all())
        if quantizer.granularity == "channel":
            assert float(rounded[1].abs().max()) < 1e-30


def test_rows_are_not_changed_and_need_no_gradient():
    rows = torch.randn(3, 20, requires_grad=True)
    before = rows.detach().clone()
    grid = Quantizer().fit(rows, 3)
    assert torch.equal(rows, before)
    assert not grid.scale.requires_grad


# --- bad input


@pytest.mark.parametrize("bits", [0, 9, 2.0, True])
def test_bits_must_lie_in_1_to_8(bits):
    with pytest.raises(ValueError, match="bits must be a whole number of bits in 1…8, got "):
        Quantizer().fit(torch.ones(1, 2), bits)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ({"scheme": "log"}, "scheme must be one of symmetric, asymmetric, got 'log'."),
        ({"granularity": "row"}, "granularity must be one of channel, tensor, got 'row'."),
        ({"range": "kl"}, "range must be one of mse, min_max, percentile, got 'kl'."),
    ],
)
def test_unknown_settings_are_refused(wrong, text):
    with pytest.raises(ValueError, match=r"must be one of") as error:
        Quantizer(**wrong)
    assert str(error.value) == text
