"""COCO (Lin et al., 2014) from the user's folder: images, and boxes around what is in them.

The folder holds `val2017/` and perhaps `train2017/` with the images, and `annotations/` with
`instances_val2017.json` and perhaps `instances_train2017.json`. An image is made as large as fits
into a square, keeps its shape, and stands at the square's upper left; the rest is the mean colour.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights
from torchvision.transforms.functional import normalize, to_tensor

from engine.datasets.files import File, ImageFiles, draw_files, named_folder, readable
from engine.datasets.shapes import Shapes, shapes_of
from engine.detection import DETECTIONS, Detections
from engine.models.imagenet import MEAN, STD
from engine.results import FormatError

FOLDER = "HAWQ_VIZ_COCO"  # the environment variable that names the folder
CATEGORIES = tuple(RetinaNet_ResNet50_FPN_Weights.COCO_V1.meta["categories"])  # 91, by their number
SIDE = 320  # pixels of the square
SURE = 0.5  # score from which the sample takes the network's word
CALIBRATION_IMAGES = 1024
LEAST = 4  # images a part of the set
OVER_THE_EDGE = 1.0  # pixels that a box may reach beyond the image: it is cut there

Box = tuple[float, float, float, float]  # left, top, right, bottom in pixels


@dataclass(frozen=True, eq=False)
class Objects:
    """What is in an image."""

    width: int  # of the image, pixels
    height: int
    rows: NDArray[np.float32]  # [objects, 5]: category, left, top, right, bottom in pixels


@dataclass(frozen=True)
class Fitting:
    """Fits an image and its boxes into a square."""

    side: int  # pixels
    most: int  # rows of a target; those left over are of class −1
    mirrored: bool = False  # every other one, drawn from torch's own generator

    def __call__(self, image: Image.Image, objects: Objects) -> tuple[Tensor, Tensor]:
        """Give the image [3, side, side] normalized, and its target [most, 5].

        Raises:
            ValueError: If the image has another size than its annotations are for.
        """
        if image.size != (objects.width, objects.height):
            raise ValueError(
                f"it has {image.width}×{image.height} pixels, and its annotations are for "
                f"{objects.width}×{objects.height}"
            )
        scale = self.side / max(image.size)
        width, height = (max(1, round(x * scale)) for x in image.size)
        pixels = to_tensor(image.resize((width, height), Image.Resampling.BILINEAR))
        rows = torch.from_numpy(objects.rows).clone()
        rows[:, [1, 3]] *= width / image.width
        rows[:, [2, 4]] *= height / image.height
        if self.mirrored and bool(torch.randint(2, ())):
            pixels = pixels.flip(2)
            rows[:, [1, 3]] = width - rows[:, [3, 1]]
        fitted = torch.zeros(3, self.side, self.side)
        fitted[:, :height, :width] = normalize(pixels, list(MEAN), list(STD))
        target = torch.zeros(self.most, 5)
        target[:, 0] = -1
        target[: len(rows)] = rows
        return fitted, target


@dataclass(frozen=True, eq=False)
class CocoImages(ImageFiles):
    """Images of COCO with the boxes in them; `transform` is a `Fitting`, of image and objects."""

    def seen(self, image: Image.Image, target: Objects) -> tuple[Tensor, Tensor]:
        """The image in its square, and the boxes there."""
        return self.transform(image, target)

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over names and sizes of the files, and all boxes."""
        digest = hashlib.sha256(str(self.transform.side).encode())
        for file, objects in self.files:
            digest.update(f"{file} {(self.root / file).stat().st_size}\n".encode())
            digest.update(objects.rows.tobytes())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class EnlargedShapes(Dataset[tuple[Tensor, Tensor]]):
    """Made pictures for a network of other classes.

    What is there to be found is what the network itself, in float, is sure of: mAP on them is how
    far another network agrees with it.
    """

    pictures: Shapes
    detect: Callable[[Tensor], Sequence[Detections]]  # images [N, 3, side, side] → what they show
    side: int
    name: str

    def __len__(self) -> int:
        return len(self.pictures)

    @torch.no_grad()
    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels = self.pictures.picture(index)[0][None].float() / 255
        pixels = F.interpolate(pixels, size=(self.side, self.side), mode="bicubic").clamp(0, 1)
        image = normalize(pixels, list(MEAN), list(STD))
        if index not in self._targets:
            (found,) = self.detect(image)
            sure = found.scores >= SURE
            target = torch.zeros(DETECTIONS, 5)
            target[:, 0] = -1
            rows = torch.cat([found.classes[sure, None], found.boxes[sure]], 1)
            target[: len(rows)] = rows
            self._targets[index] = target
        return image[0], self._targets[index]

    @cached_property
    def _targets(self) -> dict[int, Tensor]:
        return {}

    @property
    def fingerprint(self) -> str:
        """Of the pictures and how they are enlarged."""
        how = f"{self.pictures.fingerprint} {self.side}"
        return hashlib.sha256(how.encode()).hexdigest()[:16]


def sample_coco(
    detect: Callable[[Tensor], Sequence[Detections]], side: int = SIDE
) -> tuple[EnlargedShapes, EnlargedShapes]:
    """Give made pictures of shapes, enlarged: some to calibrate with, some to measure on.

    Args:
        detect: Tells what the network finds in images [N, 3, side, side].
        side: In pixels.
    """
    calibration, test = (
        EnlargedShapes(
            pictures,
            detect,
            side,
            f"{pictures.name} enlarged to {side}×{side}, which are not COCO; the boxes are what "
            f"the float network itself finds with a score of {SURE} or more",
        )
        for pictures in shapes_of("sample")
    )
    return calibration, test


def full_coco(side: int = SIDE) -> tuple[CocoImages, CocoImages, CocoImages]:
    """Find COCO's images and boxes in the user's folder.

    Images are drawn from `train2017/` to calibrate with; where there is none, from `val2017/`,
    which then lacks them for measuring, and they are the training images too. Annotations of crowds
    are left out, though COCO's own evaluation forgives whatever is found in a crowd. Images to
    calibrate with and to measure on are looked at now, and left out if they cannot be read.

    Args:
        side: Of the square, in pixels.

    Returns:
        Images to calibrate with, to train on (mirrored at random), to measure on.

    Raises:
        ValueError: If there can be no such square.
        FormatError: If there is no such folder, or it lacks images or their boxes.
    """
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, got {side}: {SIDE} is usual.")
    root = named_folder(
        FOLDER, "COCO's val2017/ and annotations/instances_val2017.json, and perhaps those of train"
    )
    if lacking := _lacking(root, "val"):
        raise FormatError(
            f"{root} must hold COCO's val2017/ and annotations/instances_val2017.json, but has no "
            f"{lacking}."
        )

    def of(part: str, chosen: list[File], words: str) -> CocoImages:
        most = max(1, *(len(objects.rows) for _, objects in chosen))
        return CocoImages(root / f"{part}2017", tuple(chosen), Fitting(side, most), words)

    at = f"at {side}×{side}"
    val, left_out = _instances(root, "val")
    if not _lacking(root, "train"):
        train, left_out_there = _instances(root, "train")
        drawn, _ = draw_files(train, CALIBRATION_IMAGES)
        words = f"COCO, {{}} of {len(train):,} training images {at}{left_out_there}"
        calibration = readable(of("train", drawn, words))
        words = f"COCO, {len(train):,} training images {at}{left_out_there}"
        plain = of("train", train, words.format())
        test = of("val", val, f"COCO, {{}} validation images {at}{left_out}")
    else:
        drawn, others = draw_files(val, min(CALIBRATION_IMAGES, len(val) // 2))
        words = f"COCO, {{}} of {len(val):,} validation images {at}, for there is no train2017/"
        calibration = plain = readable(of("val", drawn, words + left_out))
        words = f"COCO, {{}} validation images {at} that nothing else was done with{left_out}"
        test = of("val", others, words)
    train_images = replace(
        plain,
        transform=replace(plain.transform, mirrored=True),
        plain=plain,
        name=f"{plain.name}, mirrored at random",
    )
    return calibration, train_images, readable(test)


def _annotations(root: Path, part: str) -> Path:
    return root / "annotations" / f"instances_{part}2017.json"


def _lacking(root: Path, part: str) -> str:
    """What a part of the set lacks; COCO's annotations of all parts come together."""
    if not (root / f"{part}2017").is_dir():
        return f"{part}2017/"
    file = _annotations(root, part)
    return "" if file.is_file() else str(file.relative_to(root))


def _instances(root: Path, part: str) -> tuple[list[File], str]:
    """Images by name with the objects in them, and what was left out, in words to be formatted.

    Raises:
        FormatError: If the file is no instances file, or has too few images or no boxes.
    """
    file = _annotations(root, part)
    found = _read(file)
    sizes, rows = _sizes(file, found["images"])
    names = {category.get("id"): category.get("name") for category in found["categories"]}
    crowds, skipped = 0, list[str]()
    for i, annotation in enumerate(found["annotations"]):
        try:
            if annotation.get("iscrowd"):
                crowds += 1
                continue
            number, category = annotation["image_id"], annotation["category_id"]
            left, top, width, height = (float(x) for x in annotation["bbox"])
            size = sizes.get(number)
            box = (left, top, left + width, top + height)
            problem = _problem(number, size, category, names, box)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise FormatError(
                f"{file} must give every annotation an image_id, a category_id and a bbox of four "
                f"numbers, got {str(annotation)[:100]}: take COCO's instances_{part}2017.json."
            ) from error
        if problem:
            skipped.append(f"annotation {annotation.get('id', i)} {problem}")
            continue
        assert size is not None
        rows[number].append((category, *_inside(box, size)))
    left_out = f", {crowds:,} annotations of crowds left out" if crowds else ""
    if skipped:
        left_out += f", {len(skipped):,} annotations skipped, the first because {skipped[0]}"
    if len(sizes) < LEAST or not any(rows.values()):
        boxes = sum(map(len, rows.values()))
        raise FormatError(
            f"{file} must hold {LEAST} images or more with boxes in them, got {len(sizes)} images "
            f"and {boxes} boxes{left_out}."
        )
    files = [
        (name, Objects(width, height, np.array(rows[number], np.float32).reshape(-1, 5)))
        for number, (name, width, height) in sizes.items()
    ]
    return sorted(files, key=lambda pair: pair[0]), left_out.replace("{", "{{").replace("}", "}}")


def _read(file: Path) -> Any:
    """Lists of images, annotations and categories, the outlines left out as they are read."""
    kind = "a COCO instances file, with lists of images, annotations and categories"
    try:
        found = json.loads(file.read_bytes(), object_hook=_without_outline)
    except (OSError, ValueError, RecursionError) as error:
        raise FormatError(f"{file} must be {kind}, but {error}.") from error
    for name in ("images", "annotations", "categories"):
        entries = found.get(name) if isinstance(found, dict) else None
        if not isinstance(entries, list) or not all(isinstance(x, dict) for x in entries):
            raise FormatError(
                f"{file} must be {kind}, got no {name}: take COCO's {file.name}, which comes in "
                "annotations_trainval2017.zip."
            )
    return found


def _without_outline(entry: dict[str, Any]) -> dict[str, Any]:
    """Nine tenths of the file are outlines that no detector reads."""
    entry.pop("segmentation", None)
    return entry


def _sizes(
    file: Path, images: list[dict[str, Any]]
) -> tuple[dict[Any, tuple[str, int, int]], dict[Any, list[tuple[float, ...]]]]:
    """Name, width and height of each image by its number, and an empty list for its boxes."""
    sizes = {}
    for image in images:
        try:
            name, width, height = str(image["file_name"]), int(image["width"]), int(image["height"])
            sizes[image["id"]] = name, width, height
        except (KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"{file} must give every image an id, a file_name, a width and a height, "
                f"got {str(image)[:100]}."
            ) from error
    return sizes, {number: [] for number in sizes}


def _problem(
    number: Any,
    size: tuple[str, int, int] | None,
    category: Any,
    names: Mapping[Any, Any],
    box: Box,
) -> str:
    """Why an annotation cannot be used, or nothing."""
    if size is None:
        return f"is of image {number}, which is not listed"
    if category not in names:
        return f"has category {category}, which is not listed"
    known = CATEGORIES[category] if 0 < category < len(CATEGORIES) else "nothing"
    if names[category] != known:
        return f"has category {category}, {names[category]!r}, where COCO has {known!r}"
    name, width, height = size
    if not all(map(math.isfinite, box)) or box[0] >= box[2] or box[1] >= box[3]:
        return f"has a box of no area, {list(box)}"
    inside = _inside(box, size)
    over = max(abs(a - b) for a, b in zip(box, inside, strict=True))
    if over > OVER_THE_EDGE or inside[0] >= inside[2] or inside[1] >= inside[3]:
        return f"has a box outside its image, {list(box)} in {name} of {width}×{height}"
    return ""


def _inside(box: Box, size: tuple[str, int, int]) -> Box:
    """What of a box lies within the image."""
    left, top, right, bottom = box
    return max(left, 0.0), max(top, 0.0), min(right, float(size[1])), min(bottom, float(size[2]))
