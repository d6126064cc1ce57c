"""ImageNet (Russakovsky et al., 2015) from the user's folder, and pictures in its place.

The folder holds `val/` and perhaps `train/`, each with a folder a class; images are read when they
are asked for. In its place stands the project's sample of CIFAR-10, enlarged: enough to see how a
network's layers differ, and no ImageNet.
"""

import hashlib
import os
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import transforms

from engine.datasets.cifar10 import sample_cifar10
from engine.datasets.files import ImageFiles, draw_files, named_folder, readable
from engine.datasets.images import LabelledImages
from engine.models.imagenet import Preprocessing
from engine.results import FormatError

FOLDER = "HAWQ_VIZ_IMAGENET"  # the environment variable that names the folder
CLASSES = 1000
CALIBRATION_IMAGES = 1024
LEAST = 4  # images a part of the set
LABELLED_AT_ONCE = 16
SUFFIXES = (".jpeg", ".jpg", ".png", ".bmp", ".webp")


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
    root = named_folder(
        FOLDER, "ImageNet's val/ and train/ (val/ alone will do), each with a folder a class"
    )
    files = {part: _files(root / part) for part in ("train", "val") if (root / part).is_dir()}
    if "val" not in files:
        raise FormatError(f"{root} must hold val/, with a folder a class, but does not.")
    as_seen, at_random = _transforms(preprocessing)

    def of(part: str, chosen: list[tuple[str, int]], words: str, transform: Any) -> ImageFiles:
        return ImageFiles(root / part, tuple(chosen), transform, f"ImageNet, {words}")

    if "train" in files:
        drawn, train = draw_files(files["train"], CALIBRATION_IMAGES)[0], files["train"]
        calibration = of("train", drawn, f"{{}} of {len(train):,} training images", as_seen)
        plain = of("train", train, f"{len(train):,} training images", as_seen)
        calibration = readable(calibration)
        test = of("val", files["val"], "{} validation images", as_seen)
    else:
        every = files["val"]
        drawn, others = draw_files(every, min(CALIBRATION_IMAGES, len(every) // 2))
        words = f"{{}} of {len(every):,} validation images, for there is no train/"
        calibration = plain = readable(of("val", drawn, words, as_seen))
        test = of("val", others, "{} validation images that nothing else was done with", as_seen)
    train_images = replace(
        plain, transform=at_random, plain=plain, name=f"{plain.name}, cut out and mirrored"
    )
    return calibration, train_images, readable(test)


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
