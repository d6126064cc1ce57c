"""What rounding an activation does, image by image: how far it moves, and along which slope.

The mean of ‖Q_b(a) − a‖² goes into Ω. The gradient in an activation is not zero at a minimum of the
loss in the weights, so the mean of ⟨g, Q_b(a) − a⟩, with g the gradient of the image's own loss,
stands beside Ω; a second-order prediction of the loss leaves it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from engine.activations import Activation, tapped, told_apart
from engine.calibration import BATCH, Range, stacked
from engine.layers import evaluation_mode
from engine.probes import Loss, loss_function, outputs_of
from engine.quantizers import Grid
from engine.results import Progress

BINS = 128  # of a histogram


@dataclass(frozen=True, eq=False)
class Roundoff:
    """What every bit width does to one activation; of one image, averaged over images."""

    images: int
    grids: dict[int, Grid]
    perturbation: dict[int, tuple[float, float]]  # bits → mean ‖Q(a) − a‖², its standard error
    first_order: dict[int, tuple[float, float]]  # bits → mean ⟨g, Q(a) − a⟩, its standard error
    counts: tuple[int, ...]  # of values in `BINS` bins of equal width, least to greatest value


def measure_roundoff(
    model: nn.Module,
    found: Sequence[Activation],
    ranges: Mapping[str, Range],
    pairs: Sequence[tuple[Tensor, Any]],
    *,
    loss: Loss,
    bit_widths: Sequence[int],
    progress: Progress | None = None,
) -> dict[str, Roundoff]:
    """Round every activation to every bit width, each alone and on no network's way.

    Args:
        model: The float network; it comes back as it was.
        found: Its activations, those wanted.
        ranges: Of these.
        pairs: Images and targets.
        loss: A name, or a callable (outputs, targets) → mean loss.
        bit_widths: 1…8 each.
        progress: Told of images done.
    """
    told = {
        a.name: _Told({bits: ranges[a.name].grid(bits) for bits in bit_widths}, ranges[a.name])
        for a in found
    }
    with evaluation_mode(model):
        for start in range(0, len(pairs), BATCH):
            images, targets = stacked(list(pairs[start : start + BATCH]))
            for one in told.values():
                one.begin(len(images))
            functions = {name: one.tap for name, one in told.items()}
            with torch.enable_grad(), tapped(model, functions, found):
                value = loss_function(loss)(outputs_of(model, images), targets)
            leaves = [leaf for one in told.values() for leaf in one.leaves]
            weights = [p for p in model.parameters() if p.requires_grad]
            torch.autograd.grad(value, weights + leaves, allow_unused=True)
            if progress:
                progress(start + len(images), len(pairs), "images with rounded activations")
    return {name: one.roundoff() for name, one in told.items()}


class _Told:
    """What has been seen of one activation."""

    def __init__(self, grids: dict[int, Grid], seen: Range) -> None:
        self.grids, self.seen = grids, seen
        self.rows: list[tuple[Tensor, Tensor]] = []  # ‖Δa‖² and ⟨g, Δa⟩ of a mini-batch's images
        self.leaves: list[Tensor] = []  # tensors that gradients come to only if asked to
        self.counts = torch.zeros(BINS)

    def begin(self, images: int) -> None:
        """A mini-batch of so many images comes."""
        self.images, self.leaves = images, []
        size = (images, len(self.grids))
        self.rows.append((torch.zeros(size).double(), torch.zeros(size).double()))

    def tap(self, tensor: Tensor) -> Tensor:
        """Hand a tensor on, and listen to its gradient."""
        low, high = self.seen.low, self.seen.high
        self.counts += torch.histc(tensor.detach().float(), BINS, low, high)
        marked = told_apart(tensor)
        if marked.is_leaf:
            self.leaves.append(marked)
        marked.register_hook(partial(self._hear, tensor.detach()))
        return marked

    def _hear(self, tensor: Tensor, gradient: Tensor) -> None:
        values, slopes = (x.reshape(self.images, -1) for x in (tensor, gradient))
        moved, along = self.rows[-1]
        for i, grid in enumerate(self.grids.values()):
            error = grid.round(values) - values
            moved[:, i] += error.square().sum(1).double()
            along[:, i] += self.images * (error * slopes).sum(1).double()

    def roundoff(self) -> Roundoff:
        """The means over all images."""
        moved, along = (torch.cat([row[i] for row in self.rows]).numpy() for i in range(2))
        return Roundoff(
            images=len(moved),
            grids=self.grids,
            perturbation=dict(zip(self.grids, _means(moved), strict=True)),
            first_order=dict(zip(self.grids, _means(along), strict=True)),
            counts=tuple(int(count) for count in self.counts),
        )


def _means(values: NDArray[np.float64]) -> list[tuple[float, float]]:
    """Mean over images and its standard error of each column of [images, bit widths]."""
    sems = values.std(0, ddof=1) / len(values) ** 0.5
    return list(zip(values.mean(0).tolist(), sems.tolist(), strict=True))
