"""The range of every activation on calibration images, and the grid that b bits lay over it.

Grids are asymmetric and one a tensor: unsigned, with zero point 0, where nothing is negative, as
after a rectifier (Jacob et al., "Quantization and Training of Neural Networks for Efficient
Integer-Arithmetic-Only Inference", 2018, sec. 2.1).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from engine.activations import Activation, tapped
from engine.layers import evaluation_mode
from engine.quantizers import Grid, Quantizer

IMAGES = 512  # at most, if not told otherwise
BATCH = 32  # images run at once
SAMPLE = 2**16  # values of an activation, over all images, that its grids are fitted to


@dataclass(frozen=True)
class Range:
    """What an activation was seen to be."""

    low: float  # least value
    high: float  # greatest
    sample: Tensor  # some values, [values]
    activation_range: str

    @property
    def signed(self) -> bool:
        """Whether there are negative values."""
        return self.low < 0

    def grid(self, bits: int) -> Grid:
        """The grid of b bits: codes 0 … 2^b − 1, one scale and zero point, [1, 1] each.

        Args:
            bits: 1…8.
        """
        quantizer = Quantizer("asymmetric", "tensor", self.activation_range)
        return quantizer.fit(self.sample.unsqueeze(0), bits)


def draw(dataset: Dataset[Any], images: int, seed: int) -> list[tuple[Tensor, Any]]:
    """Draw images with their targets at random, each at most once; all where there are fewer.

    Raises:
        ValueError: If there are none.
    """
    available = len(dataset)  # type: ignore[arg-type]
    if not available:
        raise ValueError(
            "calibration must hold at least one image, got 0 images: "
            "give the workload images to round and correct with."
        )
    generator = torch.Generator().manual_seed(seed)
    return [dataset[int(i)] for i in torch.randperm(available, generator=generator)[:images]]


def stacked(pairs: list[Any]) -> Any:
    """Put images side by side, and their targets.

    Raises:
        ValueError: If they have not one shape.
    """
    try:
        return default_collate(pairs)
    except RuntimeError as error:
        parts = zip(("images", "targets"), zip(*pairs, strict=True), strict=False)
        for name, part in parts:
            shapes = [list(x.shape) for x in part if isinstance(x, Tensor)]
            other = next((shape for shape in shapes if shape != shapes[0]), None)
            if other is not None:
                remedy = "bring images to one size" if name == "images" else "fill up with class −1"
                raise ValueError(
                    f"{name} must have one shape, got {shapes[0]} and {other}: {remedy}."
                ) from error
        raise


def calibrate(
    model: nn.Module,
    found: Sequence[Activation],
    images: Tensor,
    *,
    activation_range: str = "mse",
    seed: int = 0,
) -> dict[str, Range]:
    """See what values activations take.

    Args:
        model: The float network; it comes back as it was.
        found: Its activations, those wanted.
        images: [N, ...], the calibration images; run in eval mode, `BATCH` at once.
        activation_range: How grids are fitted, see `quantizers.Quantizer`: "mse" or "percentile" of
            `SAMPLE` values drawn at random, or "min_max" of all values.
        seed: Of these draws.

    Raises:
        ValueError: If a value is not finite, or an activation has only one value.
    """
    Quantizer("asymmetric", "tensor", activation_range)  # refuses an unknown one
    generator = torch.Generator().manual_seed(seed)
    seen = {a.name: _Seen(a.name, generator) for a in found}
    with evaluation_mode(model), torch.no_grad(), tapped(model, seen, found):
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            for one in seen.values():
                one.begin(start, len(batch), SAMPLE * len(batch) // len(images))
            model(batch)
    return {name: one.range(activation_range, len(images)) for name, one in seen.items()}


@dataclass
class _Seen:
    """What has been seen of an activation."""

    name: str
    generator: torch.Generator
    low: float = float("inf")
    high: float = -float("inf")
    parts: list[Tensor] = field(default_factory=list)
    first: int = 0  # image of the mini-batch
    images: int = 0  # in it
    values: int = 0  # to keep of it

    def begin(self, first: int, images: int, values: int) -> None:
        self.first, self.images, self.values = first, images, max(1, values)

    def __call__(self, tensor: Tensor) -> Tensor:
        low, high = tensor.aminmax()
        if not bool(torch.isfinite(low) & torch.isfinite(high)):
            rows = tensor.reshape(self.images, -1)
            worst = int(torch.isfinite(rows).all(1).int().argmin())
            value = float(rows[worst][~torch.isfinite(rows[worst])][0])
            raise ValueError(
                f"input of layer {self.name!r} must be finite, got {value} for calibration image "
                f"{self.first + worst}: look for overflow in the network or NaN in that image."
            )
        self.low, self.high = min(self.low, float(low)), max(self.high, float(high))
        drawn = torch.randint(tensor.numel(), (self.values,), generator=self.generator)
        self.parts.append(tensor.flatten()[drawn])
        return tensor

    def range(self, activation_range: str, images: int) -> Range:
        if not self.low < self.high:
            raise ValueError(
                f"input of layer {self.name!r} must vary, got only {self.low:g} on calibration "
                f"images 0…{images - 1}: look for a dead layer before it, or give other images."
            )
        ends = torch.tensor([self.low, self.high], dtype=self.parts[0].dtype)
        return Range(self.low, self.high, torch.cat([*self.parts, ends]), activation_range)
