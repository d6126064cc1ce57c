"""Round one tensor to b bits: a uniform affine grid, how its range is chosen, and where it stands.

Value = scale · (code − zero point). Symmetric codes are −2^(b−1) … 2^(b−1) − 1 with zero point 0;
one symmetric bit means ±s, which is the same grid with zero point −½. Asymmetric codes are
0 … 2^b − 1 with a whole zero point. See Jacob et al., "Quantization and Training of Neural Networks
for Efficient Integer-Arithmetic-Only Inference", 2018.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from engine.layers import Channels
from engine.results import check_bits

SCHEMES = ("symmetric", "asymmetric")
GRANULARITIES = ("channel", "tensor")
RANGES = ("mse", "min_max", "percentile")
PERCENTILE = 0.999  # of the magnitudes (symmetric), or cut from both tails (asymmetric)
COARSE, FINE, REFINEMENTS = 32, 16, 4  # steps of the search for the least squared error
MOVES = range(-2, 3)  # of the zero point, in codes, and with each of them
STRETCHES = (0.8, 0.85, 0.9, 0.95, 1.0, 1.05, 1.1, 1.15, 1.2)  # of the scale


@dataclass(frozen=True)
class Quantizer:
    """How grids are fitted.

    Args:
        scheme: "symmetric", or "asymmetric" with a zero point.
        granularity: One grid an output "channel", or one for the whole "tensor".
        range: "mse" (least squared error), "min_max" (nothing is clipped) or "percentile".
    """

    scheme: str = "symmetric"
    granularity: str = "channel"
    range: str = "mse"

    def __post_init__(self) -> None:
        choices = {"scheme": SCHEMES, "granularity": GRANULARITIES, "range": RANGES}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                raise ValueError(
                    f"{name} must be one of {', '.join(known)}, got {getattr(self, name)!r}."
                )

    def fit(self, rows: Tensor, bits: int) -> "Grid":
        """Fit a grid to each row.

        Args:
            rows: [channels, n]; with granularity "tensor" one grid serves all rows.
            bits: 1…8.

        Raises:
            ValueError: If bits lie outside 1…8.
        """
        check_bits(bits, "bits")
        values = rows.detach()
        if self.granularity == "tensor":
            values = values.reshape(1, -1)
        if self.scheme == "symmetric" and bits == 1:
            return _grid(2 * self._magnitude_of_one_bit(values), -0.5, bits, self.scheme)
        low, high = self._range(values)
        if self.range == "mse":
            return self._least_squares(values, low, high, bits)
        return self._grid_of(low, high, bits)

    def _magnitude_of_one_bit(self, values: Tensor) -> Tensor:
        """The s of ±s: the mean magnitude is the least-squares choice in closed form."""
        if self.range == "mse":
            return values.abs().mean(1, keepdim=True)
        low, high = self._range(values)
        return torch.maximum(-low, high)

    def _range(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest value of each row that the grid should hold: ≤ 0 and ≥ 0."""
        low, high = values.aminmax(dim=1, keepdim=True)
        if self.range == "percentile":
            ordered = values.abs().sort(dim=1).values
            if self.scheme == "asymmetric":
                ordered = values.sort(dim=1).values
            last = values.shape[1] - 1
            top = ordered[:, round(PERCENTILE * last)].unsqueeze(1)
            bottom = ordered[:, round((1 - PERCENTILE) * last)].unsqueeze(1)
            if self.scheme == "symmetric":
                bottom = -top
            low, high = torch.maximum(low, bottom), torch.minimum(high, top)
        return low.clamp(max=0), high.clamp(min=0)

    def _grid_of(self, low: Tensor, high: Tensor, bits: int) -> "Grid":
        """The finest grid that holds low … high."""
        if self.scheme == "symmetric":
            half = 2 ** (bits - 1)
            return _grid(torch.maximum(-low / half, high / (half - 1)), 0.0, bits, self.scheme)
        scale = ((high - low) / (2**bits - 1)).clamp(min=torch.finfo(low.dtype).tiny)
        return _grid(scale, (-low / scale).round(), bits, self.scheme)

    def _least_squares(self, values: Tensor, low: Tensor, high: Tensor, bits: int) -> "Grid":
        """Search the share of the range, and then its place, that err least, row by row."""
        best = self._grid_of(low, high, bits)
        error = best.squared_error(values)
        share = torch.ones_like(low)
        for steps, width in ((COARSE, 1.0), (FINE, 1 / COARSE)):
            centre = share.clone()
            for i in range(1, 2 * steps if width < 1 else steps):
                candidate = i / steps if width == 1 else centre + width * (i / steps - 1)
                tried = self._grid_of(low * candidate, high * candidate, bits)
                best, error, better = best.or_better(tried, error, values)
                share = torch.where(better, torch.as_tensor(candidate, dtype=low.dtype), share)
        best, error = _projected(best, error, values)
        if self.scheme == "asymmetric":  # so far both ends of the range kept their ratio
            scale, zero_point = best.scale, best.zero_point
            for move in MOVES:
                moved = (zero_point + move).clamp(best.low, best.high)
                for stretch in STRETCHES:
                    tried = replace(best, scale=scale * stretch, zero_point=moved)
                    best, error, _ = best.or_better(tried, error, values)
            best, error = _projected(best, error, values)
        return best


@dataclass(frozen=True)
class Grid:
    """The values that b bits can hold, one row of them a channel."""

    scale: Tensor  # [channels or 1, 1], positive
    zero_point: Tensor  # like scale; whole, but −½ for one symmetric bit
    low: int  # least code
    high: int  # greatest code

    def codes(self, rows: Tensor) -> Tensor:
        """Nearest code of every value, as floats."""
        return self.places(rows).round_().clamp_(self.low, self.high)

    def places(self, rows: Tensor) -> Tensor:
        """Where every value lies among the codes, before it is rounded to one."""
        return (rows / self.scale).add_(self.zero_point)

    def round(self, rows: Tensor) -> Tensor:
        """Nearest value on the grid."""
        return self.codes(rows).sub_(self.zero_point).mul_(self.scale)

    def squared_error(self, rows: Tensor) -> Tensor:
        """‖Q(w) − w‖² of every row, [rows, 1]."""
        return (self.round(rows) - rows).square().sum(1, keepdim=True)

    def or_better(
        self, other: "Grid", error: Tensor, rows: Tensor
    ) -> tuple["Grid", Tensor, Tensor]:
        """Take for every row the other grid where its error is less; also says where."""
        theirs = other.squared_error(rows)
        better = theirs < error
        grid = Grid(
            torch.where(better, other.scale, self.scale),
            torch.where(better, other.zero_point, self.zero_point),
            self.low,
            self.high,
        )
        return grid, torch.where(better, theirs, error), better


class QuantizedWeight(nn.Module):
    """What stands between a stored weight and its layer: the nearest values on a grid.

    A parametrization (`torch.nn.utils.parametrize`), so it serves any layer class.
    """

    def __init__(self, grid: Grid, bits: int, channels: Channels) -> None:
        super().__init__()
        self.bits, self.channels = bits, channels
        self.low, self.high = grid.low, grid.high
        self.register_buffer("scale", grid.scale.clone())
        self.register_buffer("zero_point", grid.zero_point.clone())

    @property
    def grid(self) -> Grid:
        """The grid as it stands."""
        scale, zero_point = self.get_buffer("scale"), self.get_buffer("zero_point")
        return Grid(scale, zero_point, self.low, self.high)

    def forward(self, weight: Tensor) -> Tensor:
        """Round a weight to the grid."""
        rounded = self.grid.round(self.channels.rows(weight))
        return self.channels.weight(rounded, weight.shape)

    def holding(self, weight: Tensor, codes: Tensor) -> Tensor:
        """The weight, moved onto the grid where its nearest codes are others than the given.

        Args:
            weight: As it is stored.
            codes: [channels, n].
        """
        grid, rows = self.grid, self.channels.rows(weight)
        on_grid = (codes - grid.zero_point) * grid.scale
        held = torch.where(grid.codes(rows) == codes, rows, on_grid)
        return self.channels.weight(held, weight.shape)


class QuantizedActivation(nn.Module):
    """What stands between a tensor and the layers that read it: the nearest values on one grid.

    Args:
        grid: Of one row.
        bits: How many its codes take.
        group: Activations of one group have their scale in common (see `quantized.quantize`).
    """

    def __init__(self, grid: Grid, bits: int, group: int | None = None) -> None:
        super().__init__()
        self.bits, self.group = bits, group
        self.low, self.high = grid.low, grid.high
        self.register_buffer("scale", grid.scale.detach().reshape(()).clone())
        self.register_buffer("zero_point", grid.zero_point.detach().reshape(()).clone())

    @property
    def grid(self) -> Grid:
        """The grid as it stands, for a tensor of any shape."""
        return Grid(self.get_buffer("scale"), self.get_buffer("zero_point"), self.low, self.high)

    def forward(self, tensor: Tensor) -> Tensor:
        """Round a tensor of any shape to the grid."""
        return self.grid.round(tensor)


def _grid(scale: Tensor, zero_point: Tensor | float, bits: int, scheme: str) -> Grid:
    scale = scale.clamp(min=torch.finfo(scale.dtype).tiny)
    zero = torch.as_tensor(zero_point, dtype=scale.dtype, device=scale.device).expand_as(scale)
    low = -(2 ** (bits - 1)) if scheme == "symmetric" else 0
    return Grid(scale, zero, low, low + 2**bits - 1)


def _projected(grid: Grid, error: Tensor, values: Tensor) -> tuple[Grid, Tensor]:
    """Improve the scales: with the codes given, the best one is a projection."""
    for _ in range(REFINEMENTS):
        levels = grid.codes(values) - grid.zero_point
        scale = (values * levels).sum(1, keepdim=True) / levels.square().sum(1, keepdim=True)
        scale = torch.where(scale > 0, scale, grid.scale)  # also where all levels are 0
        tiny = torch.finfo(scale.dtype).tiny
        grid, error, _ = grid.or_better(replace(grid, scale=scale.clamp(min=tiny)), error, values)
    return grid, error
