"""Image files in a folder of the user's, each with a target, read when they are asked for."""

import hashlib
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from engine.results import FormatError

READERS = 8  # threads that look at files
JPEG_BEGINS, JPEG_ENDS = b"\xff\xd8\xff", b"\xff\xd9"

File = tuple[str, Any]  # path below a folder, what is in the image
Files = TypeVar("Files", bound="ImageFiles")


@dataclass(frozen=True, eq=False)
class ImageFiles(Dataset[tuple[Tensor, Any]]):
    """Image files with a target each, read when asked.

    Several asked for at once come without those that cannot be read, which are warned of by name.
    """

    root: Path
    files: tuple[File, ...]  # below the root
    transform: Any  # of a PIL image, to a tensor
    name: str
    plain: "ImageFiles | None" = None  # without random changes, where the transform makes some
    skipped: dict[str, str] = field(default_factory=dict)  # files left out, and why

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        file, target = self.files[index]
        try:
            with Image.open(self.root / file) as image:
                return self.seen(image.convert("RGB"), target)
        except (OSError, SyntaxError, ValueError) as error:
            raise FormatError(
                f"{self.root / file} must be an image, but cannot be read: {error}."
            ) from error

    def seen(self, image: Image.Image, target: Any) -> tuple[Tensor, Any]:
        """What the network and the loss get of an image that was read and its target."""
        return self.transform(image), target

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, Any]]:
        found, wrong = [], None
        for index in indices:
            try:
                found.append(self[index])
            except FormatError as error:
                wrong = error
                warnings.warn(f"{error} It is left out.", RuntimeWarning, stacklevel=2)
        if wrong is not None and not found:
            raise wrong
        return found

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over names and sizes of the files."""
        digest = hashlib.sha256()
        for file, _ in self.files:
            digest.update(f"{file} {(self.root / file).stat().st_size}\n".encode())
        return digest.hexdigest()[:16]


def named_folder(variable: str, holds: str) -> Path:
    """The folder that an environment variable names.

    Raises:
        FormatError: If it is not set or there is no such folder.
    """
    chosen = os.environ.get(variable)
    if not chosen:
        raise FormatError(
            f"the environment variable {variable} must name a folder with {holds}, but is not set."
        )
    if not Path(chosen).is_dir():
        raise FormatError(f"{variable} must name a folder, but {chosen} is none.")
    return Path(chosen)


def draw_files(files: Sequence[File], images: int) -> tuple[list[File], list[File]]:
    """Some files, the same whenever asked, and the others; both in their order."""
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
    some, others = sorted(order[:images]), sorted(order[images:])
    return [files[i] for i in some], [files[i] for i in others]


def readable(images: Files) -> Files:
    """Leave out the files that cannot be read, and say so; {} in the name becomes their number.

    Raises:
        FormatError: If none is left.
    """
    with ThreadPoolExecutor(READERS) as threads:
        damages = threads.map(_damage, (images.root / file for file, _ in images.files))
        skipped = {
            file: damage for (file, _), damage in zip(images.files, damages, strict=True) if damage
        }
    left = tuple(pair for pair in images.files if pair[0] not in skipped)
    if not left:
        file, damage = next(iter(skipped.items()))
        raise FormatError(
            f"{images.root} must hold images that can be read, got none; {file} cannot: {damage}."
        )
    name = images.name.format(f"{len(left):,}")
    if skipped:
        name += f" ({len(skipped):,} left out that cannot be read, {next(iter(skipped))} first)"
    return replace(images, files=left, name=name, skipped=skipped)


def _damage(path: Path) -> str:
    """Why an image cannot be read, or nothing; a JPEG that has its end is taken for whole."""
    try:
        with path.open("rb") as file:
            begins = file.read(len(JPEG_BEGINS))
            file.seek(-min(len(JPEG_ENDS), len(begins)), os.SEEK_END)
            if begins == JPEG_BEGINS and file.read() == JPEG_ENDS:
                return ""
        with Image.open(path) as image:
            image.load()
    except (OSError, SyntaxError, ValueError) as error:
        return str(error)
    return ""
