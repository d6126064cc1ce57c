"""Whether a loss is a mean over images, as everything here takes it to be."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

TOLERANCE = 1e-3  # of the loss; float32 sums differ by less


def check_loss_is_mean(
    loss: Callable[[Tensor, Any], Tensor], outputs: Tensor, targets: Any
) -> None:
    """See whether a loss is one number that stays as it is where every image comes twice.

    A sum over images doubles; traces and Ω would then grow with the size of the mini-batches.

    Args:
        loss: (outputs, targets) → mean loss.
        outputs: [N, ...], of at least one image.
        targets: [N, ...], or several such tensors in lists, tuples or dictionaries.

    Raises:
        ValueError: If it is no such number, or does not stay.
    """
    with torch.no_grad():
        once = loss(outputs, targets)
        if not isinstance(once, Tensor) or once.numel() != 1:
            got = f"shape {list(once.shape)}" if isinstance(once, Tensor) else type(once).__name__
            raise ValueError(
                f"loss must be one number, the mean over images, got {got}: return its mean."
            )
        twice = loss(*tree_map(_repeated, (outputs, targets)))
    before, after = float(once), float(twice)
    if _same(before, after):
        return
    if _same(2 * before, after):
        raise ValueError(
            f"loss must be a mean over images, got a sum ({before:.4g} for {len(outputs)} images, "
            f"{after:.4g} where each comes twice): divide by the number of images."
        )
    raise ValueError(
        f"loss must be a mean over images, got {before:.4g} for {len(outputs)} images and "
        f"{after:.4g} where each comes twice: average the losses of the single images."
    )


def _repeated(value: Any) -> Any:
    return torch.cat([value, value]) if isinstance(value, Tensor) and value.dim() else value


def _same(a: float, b: float) -> bool:
    """Whether two losses are equal up to rounding; what is not finite is for others to tell."""
    difference = abs(a - b)
    return not difference > TOLERANCE * max(abs(a), abs(b))
