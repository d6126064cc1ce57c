"""Labelled images held in memory: what a classification workload reads."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from engine.results import FormatError

PADDING = 4  # pixels around an image before a window is cut out of it


def stack_of(sheet: Path, side: int) -> np.ndarray:
    """Read a PNG sheet with one image a row: [N, side · side] pixels → [N, 3, side, side] uint8.

    Raises:
        FormatError: If the file is no image of that shape.
    """
    try:
        with Image.open(sheet) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError) as error:
        raise FormatError(f"{sheet} must be a PNG sheet, but cannot be read: {error}.") from error
    if pixels.shape[1] != side * side:
        raise FormatError(
            f"{sheet} must have {side * side} pixels a row, one {side}×{side} image each, "
            f"got {pixels.shape[1]}."
        )
    return pixels.reshape(-1, side, side, 3).transpose(0, 3, 1, 2)


def write_sheet(images: np.ndarray, sheet: Path) -> None:
    """Write images [N, 3, side, side] uint8 as a PNG sheet, one image a row."""
    rows = images.transpose(0, 2, 3, 1).reshape(len(images), -1, 3)
    Image.fromarray(np.ascontiguousarray(rows)).save(sheet, optimize=True)


def read_labels(path: Path, count: int, classes: int) -> np.ndarray:
    """Read a JSON list of `count` labels in 0…classes − 1 as int64 [count].

    Raises:
        FormatError: If the file is not that list.
    """
    try:
        labels = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise FormatError(f"{path} must be a JSON list of labels, but {error}.") from error
    if not isinstance(labels, list) or len(labels) != count:
        found = f"{len(labels)} entries" if isinstance(labels, list) else type(labels).__name__
        raise FormatError(
            f"{path} must be a list of {count} labels, one an image, got {found}: "
            "take labels and images from the same source."
        )
    wrong = [x for x in labels if not isinstance(x, int) or not 0 <= x < classes]
    if wrong:
        raise FormatError(f"{path} must hold labels in 0…{classes - 1}, got {wrong[0]!r}.")
    return np.array(labels, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class LabelledImages(Dataset[tuple[Tensor, int]]):
    """Images with a label each, normalized per channel when read.

    A `DataLoader` takes whole batches at once through `__getitems__`.
    """

    images: Tensor  # [N, 3, H, W] uint8
    labels: Tensor  # [N] int64
    mean: tuple[float, ...]  # a channel, of pixels in 0…1
    std: tuple[float, ...]
    name: str  # which data, as every result prints it

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.normalized(self.images[index]), int(self.labels[index])

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        images = self.normalized(self.images[indices])
        return list(zip(images, self.labels[indices].tolist(), strict=True))

    def normalized(self, images: Tensor) -> Tensor:
        """Turn uint8 images [..., 3, H, W] into floats with zero mean and unit deviation."""
        mean, std = (torch.tensor(x)[:, None, None] for x in (self.mean, self.std))
        return (images.float() / 255 - mean) / std

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over images and labels, whatever file they came in."""
        digest = hashlib.sha256(self.images.numpy().tobytes())
        digest.update(self.labels.numpy().tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class AugmentedImages(Dataset[tuple[Tensor, int]]):
    """The same images for training: shifted by up to 4 pixels and mirrored at random when read.

    Draws from torch's own generator, so that whoever reads them chooses the seed.
    """

    plain: LabelledImages  # without the changes

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        padded = F.pad(self.plain.images[indices], (PADDING,) * 4)
        images = self.plain.normalized(windows(padded))
        return list(zip(images, self.plain.labels[indices].tolist(), strict=True))

    @property
    def name(self) -> str:
        """Which data, in words."""
        return f"{self.plain.name}, shifted and mirrored"

    @property
    def fingerprint(self) -> str:
        """Of the images as they are stored."""
        return self.plain.fingerprint


def windows(padded: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Cut a window out of each padded image at random, and mirror half of them.

    Args:
        padded: [B, 3, side + 8, side + 8], 4 pixels added on every side.
        generator: Source of the offsets and mirrorings; torch's own by default.

    Returns:
        [B, 3, side, side], channels last in memory.
    """
    count, window = len(padded), torch.arange(padded.shape[-1] - 2 * PADDING)
    top, left = torch.randint(0, 2 * PADDING + 1, (2, count), generator=generator)
    mirror = torch.randint(0, 2, (count, 1), generator=generator).bool()
    rows = top[:, None] + window
    columns = left[:, None] + torch.where(mirror, window.flip(0), window)
    images = torch.arange(count)[:, None, None]
    return padded[images, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
