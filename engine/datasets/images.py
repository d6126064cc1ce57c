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
from torch.utils.data import Dataset

from engine.results import FormatError


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
