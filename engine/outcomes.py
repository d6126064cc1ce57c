"""What a network does on each test image, and how two differ on the same ones; no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors.numpy import load_file, save_file

from engine.results import DEVIATIONS, FormatError, in_short, replacing


@dataclass(frozen=True, eq=False)
class Outcomes:
    """What a network does on each test image, in their order."""

    right: NDArray[np.bool_] | None  # [images]; None for a metric that counts no images
    losses: NDArray[np.float64] | None  # [images]; None for a loss that tells only batches apart

    def save(self, path: str | Path) -> None:
        """Write safetensors; what is None is left out."""
        told = {"right": self.right, "losses": self.losses}
        with replacing(path) as part:
            save_file({name: x for name, x in told.items() if x is not None}, part)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            FormatError: If the file is missing or cut, or holds something else.
        """
        try:
            found = load_file(path)
        except Exception as error:
            raise FormatError(
                f"{path} must hold what a network did on each image, but cannot be read: "
                f"{in_short(error)}."
            ) from error
        for name, kind in (("right", np.bool_), ("losses", np.float64)):
            array = found.get(name)
            if array is not None and (array.ndim != 1 or array.dtype != kind):
                raise FormatError(
                    f"{path} must hold one number an image as {name}, got {array.dtype} "
                    f"{list(array.shape)}: measure again."
                )
        return cls(found.get("right"), found.get("losses"))


def paired_difference(ours: ArrayLike, theirs: ArrayLike) -> tuple[float, tuple[float, float]]:
    """How much more often one way to make a network is right than another, with its 95 % interval.

    What is common to both on an image, how hard it is above all, cancels: the interval is that of
    the mean over images of the difference, each averaged over the networks of its way (McNemar's
    setting, with several networks a side).

    Args:
        ours: Whether each image is right, or its loss, [images]; or [networks, images] of several
            seeds.
        theirs: The same images in the same order.

    Raises:
        ValueError: If these are not the same number of images, or fewer than two.
    """
    each = [np.atleast_2d(np.asarray(x, dtype=np.float64)).mean(axis=0) for x in (ours, theirs)]
    if each[0].shape != each[1].shape or len(each[0]) < 2:
        raise ValueError(
            "ours and theirs must be of the same images, two or more, "
            f"got {len(each[0])} and {len(each[1])}."
        )
    difference = each[0] - each[1]
    half = DEVIATIONS * float(difference.std(ddof=1)) / len(difference) ** 0.5
    mean = float(difference.mean())
    return mean, (mean - half, mean + half)
