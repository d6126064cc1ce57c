"""ImageNet (Russakovsky et al., 2015) from the user's folder, and pictures in its place.

The folder holds `val/` and perhaps `train/`, each with a folder a class; images are read when they
are asked for. In its place stands the project's sample of CIFAR-10, enlarged: enough to see how a
network's layers differ, and no ImageNet.
"""

import hashlib
import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import transforms

from engine.datasets.cifar10 import sample_cifar10
from engine.datasets.images import LabelledImages
from engine.models.imagenet import Preprocessing
from engine.results import FormatError

FOLDER = "HAWQ_VIZ_IMAGENET"  # the environment variable that names the folder
CLASSES = 1000
CALIBRATION_IMAGES = 1024
LEAST = 4  # images a part of the set
READERS = 8  # threads that look at files
LABELLED_AT_ONCE = 16
JPEG_BEGINS, JPEG_ENDS = b"\xff\xd8\xff", b"\xff\xd9"
SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")


@dataclass(frozen=True, eq=False)
class ImageFiles(Dataset[tuple[Tensor, int]]):
    """Image files with a class each, read when asked.

    Several asked for at once come without those that cannot be read, which are warned of by name.
    """

    root: Path
    files: tuple[tuple[str, int], ...]  # path below the root, class
    transform: Any  # of a PIL image, to a tensor
    name: str
    plain: "ImageFiles | None" = None  # without random changes, where the transform makes some
    skipped: dict[str, str] = field(default_factory=dict)  # files left out, and why

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        file, label = self.files[index]
        try:
            with Image.open(self.root / file) as image:
                return self.transform(image.convert("RGB")), label
        except (OSError, SyntaxError, ValueError) as error:
            raise FormatError(
                f"{self.root / file} must be an image, but cannot be read: {error}."
            ) from error

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
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


@dataclass(frozen=True, eq=False)
class EnlargedImages(Dataset[tuple[Tensor, int]]):
    """Small pictures enlarged for a network of other classes.

    There is no right class, so each gets the one that the network itself, in float, gives it:
    top-1 on them is how often another network agrees with it.
    """

    pictures: LabelledImages
    network: nn.Module  # in eval mode
    preprocessing: Preprocessing
    name: str

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: list[int]) -> list[tuple[Tensor, int]]:
        images = self._enlarged(indices)
        labels = self._labels
        new = [i for i, index in enumerate(indices) if labels[index] < 0]
        with torch.no_grad():
            for start in range(0, len(new), LABELLED_AT_ONCE):
                some = new[start : start + LABELLED_AT_ONCE]
                labels[[indices[i] for i in some]] = self.network(images[some]).argmax(1)
        return list(zip(images, labels[indices].tolist(), strict=True))

    def _enlarged(self, indices: list[int]) -> Tensor:
        pixels = self.pictures.images[indices].float() / 255
        side, how = self.preprocessing.crop, self.preprocessing
        pixels = F.interpolate(pixels, size=(side, side), mode="bicubic").clamp(0, 1)
        mean, std = (torch.tensor(x)[:, None, None] for x in (how.mean, how.std))
        return (pixels - mean) / std

    @cached_property
    def _labels(self) -> Tensor:
        return torch.full((len(self.pictures),), -1)

    @property
    def fingerprint(self) -> str:
        """Of the pictures and how they are enlarged."""
        how = f"{self.pictures.fingerprint} {self.preprocessing}"
        return hashlib.sha256(how.encode()).hexdigest()[:16]


def sample_imagenet(
    network: nn.Module, preprocessing: Preprocessing
) -> tuple[EnlargedImages, EnlargedImages]:
    """Give the CIFAR-10 sample enlarged: 1 000 images to calibrate with, 1 000 to measure on.

    Args:
        network: That gives the labels, in eval mode.
        preprocessing: What it was trained to see.
    """
    side = preprocessing.crop
    calibration, test = (
        EnlargedImages(
            pictures,
            network,
            preprocessing,
            f"{pictures.name} enlarged to {side}×{side}, which are not ImageNet; "
            "their labels are the float network's own answers",
        )
        for pictures in sample_cifar10()
    )
    return calibration, test


def full_imagenet(preprocessing: Preprocessing) -> tuple[ImageFiles, ImageFiles, ImageFiles]:
    """Find ImageNet's images in the user's folder.

    Images are drawn from `train/` to calibrate with; where there is none, from `val/`, which then
    lacks them for measuring, and they are the training images too. Images to calibrate with and to
    measure on are looked at now, and left out if they cannot be read.

    Returns:
        Images to calibrate with, to train on (cut out and mirrored at random), to measure on.

    Raises:
        FormatError: If there is no such folder, or it has no classes or no images.
    """
    root = _folder()
    files = {part: _files(root / part) for part in ("train", "val") if (root / part).is_dir()}
    if "val" not in files:
        raise FormatError(f"{root} must hold val/, with a folder a class, but does not.")
    as_seen, at_random = _transforms(preprocessing)

    def of(part: str, chosen: list[tuple[str, int]], words: str, transform: Any) -> ImageFiles:
        return ImageFiles(root / part, tuple(chosen), transform, f"ImageNet, {words}")

    if "train" in files:
        drawn, train = _drawn(files["train"], CALIBRATION_IMAGES)[0], files["train"]
        calibration = of("train", drawn, f"{{}} of {len(train):,} training images", as_seen)
        plain = of("train", train, f"{len(train):,} training images", as_seen)
        calibration = _readable(calibration)
        test = of("val", files["val"], "{} validation images", as_seen)
    else:
        every = files["val"]
        drawn, others = _drawn(every, min(CALIBRATION_IMAGES, len(every) // 2))
        words = f"{{}} of {len(every):,} validation images, for there is no train/"
        calibration = plain = _readable(of("val", drawn, words, as_seen))
        test = of("val", others, "{} validation images that nothing else was done with", as_seen)
    train_images = replace(
        plain, transform=at_random, plain=plain, name=f"{plain.name}, cut out and mirrored"
    )
    return calibration, train_images, _readable(test)


def _folder() -> Path:
    chosen = os.environ.get(FOLDER)
    if not chosen:
        raise FormatError(
            f"the environment variable {FOLDER} must name a folder with ImageNet's val/ and train/ "
            "(val/ alone will do), each with a folder a class, but is not set."
        )
    if not Path(chosen).is_dir():
        raise FormatError(f"{FOLDER} must name a folder, but {chosen} is none.")
    return Path(chosen)


def _files(folder: Path) -> list[tuple[str, int]]:
    """Every image below a folder of classes with its class: their folders' place by name."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir())
    if len(names) != CLASSES:
        raise FormatError(
            f"{folder} must hold {CLASSES} folders, one a class in the order of their names, got "
            f"{len(names)}: folders of classes without images may be empty."
        )
    files = [
        (f"{name}/{file}", label)
        for label, name in enumerate(names)
        for file in sorted(os.listdir(folder / name))
        if file.lower().endswith(SUFFIXES)
    ]
    if len(files) < LEAST:
        raise FormatError(
            f"{folder} must hold {LEAST} images or more ({', '.join(SUFFIXES)}) in its folders of "
            f"classes, got {len(files)}."
        )
    return files


def _drawn(
    files: list[tuple[str, int]], images: int
) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """Some files, the same whenever asked, and the others."""
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
    some, others = sorted(order[:images]), sorted(order[images:])
    return [files[i] for i in some], [files[i] for i in others]


def _transforms(preprocessing: Preprocessing) -> tuple[Any, Any]:
    """What an image goes through to be measured, and to be trained on."""
    modes = transforms.InterpolationMode
    mode = modes.BICUBIC if preprocessing.bicubic else modes.BILINEAR
    to_tensor = [
        transforms.ToTensor(),
        transforms.Normalize(preprocessing.mean, preprocessing.std),
    ]
    middle = [
        transforms.Resize(preprocessing.resize, mode),
        transforms.CenterCrop(preprocessing.crop),
    ]
    somewhere = [
        transforms.RandomResizedCrop(preprocessing.crop, interpolation=mode),
        transforms.RandomHorizontalFlip(),
    ]
    return transforms.Compose(middle + to_tensor), transforms.Compose(somewhere + to_tensor)


def _readable(images: ImageFiles) -> ImageFiles:
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
