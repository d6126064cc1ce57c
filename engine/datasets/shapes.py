"""Textured shapes on cluttered backgrounds: a detection set that is made when it is read.

Image i follows from the seed of its split and i alone: how many shapes, of which class, size, angle
and texture, and what lies behind them. A shape's box is that of its own pixels, what covers them or
not.
"""

import hashlib
from functools import cached_property

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

CLASSES = ("disk", "square", "triangle", "star", "ring", "cross")
TEXTURES = ("plain", "stripes", "checks", "dots")
SIDE = 128  # pixels of an image
SMALLEST, LARGEST = 7.0, 34.0  # radius of a shape before it is stretched, in pixels
MOST_SHAPES = 6  # in an image
STRETCH = 0.35  # of a shape along its axes, at most, as a logarithm
OVERLAP = 0.3  # of the smaller of two boxes, at most
TRIES = 20  # to place a shape without covering others
CLUTTER = (6, 16)  # strokes and blobs behind the shapes, at least and at most
NOISE = 8.0  # standard deviation of pixels in 0…255
SEEDS = {"train": 1, "test": 2}
COUNTS = {"sample": (2000, 1000), "full": (8000, 2000)}  # images for training and test
MEAN, STD = 127.5, 64.0  # of pixels in 0…255, for every channel

Pixels = NDArray[np.floating]


class Shapes(Dataset[tuple[Tensor, Tensor]]):
    """Images with the boxes of their shapes.

    An item is (image [3, 128, 128] normalized, target [6, 5]): rows of the target are (class, left,
    top, right, bottom) in pixels, and class −1 where there is no shape.

    Args:
        split: "train" or "test".
        count: Number of images; a smaller set is the beginning of a larger one.

    Raises:
        ValueError: If the split is unknown or the count is below 1.
    """

    def __init__(self, split: str, count: int) -> None:
        if split not in SEEDS:
            raise ValueError(f"split must be one of {', '.join(SEEDS)}, got {split!r}.")
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}.")
        self.split, self.count = split, count
        self.name = f"{count} made images of shapes ({split})"
        self.drawn: dict[int, tuple[Tensor, Tensor]] = {}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        pixels, target = self.picture(index)
        return normalized(pixels), target.clone()

    def picture(self, index: int) -> tuple[Tensor, Tensor]:
        """The image as uint8 [3, 128, 128], kept once drawn, and its target.

        Raises:
            IndexError: If there is no such image.
        """
        if not 0 <= index < self.count:
            raise IndexError(f"index must be in 0…{self.count - 1}, got {index}.")
        if index not in self.drawn:
            pixels, target = draw_image(np.random.default_rng((SEEDS[self.split], index)))
            self.drawn[index] = torch.from_numpy(pixels), torch.from_numpy(target)
        return self.drawn[index]

    @cached_property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 over the targets, which all drawing follows from."""
        digest = hashlib.sha256(f"{self.split} {self.count}".encode())
        for index in range(0, self.count, -(-self.count // 16)):
            digest.update(self.picture(index)[1].numpy().tobytes())
        return digest.hexdigest()[:16]


class TurnedShapes(Dataset[tuple[Tensor, Tensor]]):
    """The same images for training: mirrored along each axis and transposed at random when read.

    Draws from torch's own generator, so that whoever reads them chooses the seed.
    """

    def __init__(self, plain: Shapes) -> None:
        self.plain = plain  # without the changes
        self.name = f"{plain.name}, mirrored and turned"

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return turned(*self.plain[index])

    @property
    def fingerprint(self) -> str:
        """Of the images as they are stored."""
        return self.plain.fingerprint


def shapes_of(data: str) -> tuple[Shapes, Shapes]:
    """Training and test images, "sample" or "full"; the sample is the beginning of all."""
    train, test = COUNTS[data]
    return Shapes("train", train), Shapes("test", test)


def normalized(pixels: Tensor) -> Tensor:
    """Turn uint8 pixels into what the network was made for."""
    return (pixels.float() - MEAN) / STD


def turned(
    image: Tensor, target: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Mirror an image along each axis and transpose it, each with chance ½, and its boxes too.

    Args:
        image: [3, side, side].
        target: [boxes, 5].
        generator: Source of the chances; torch's own by default.
    """
    across, down, turn = torch.randint(0, 2, (3,), generator=generator).tolist()
    kind, left, top, right, bottom = target.unbind(1)
    side = image.shape[-1]
    if across:
        image, left, right = image.flip(2), side - right, side - left
    if down:
        image, top, bottom = image.flip(1), side - bottom, side - top
    if turn:
        image, left, top, right, bottom = image.transpose(1, 2), top, left, bottom, right
    boxes = torch.stack([left, top, right, bottom], 1) * (kind >= 0)[:, None]
    return image.contiguous(), torch.cat([kind[:, None], boxes], 1)


def draw_image(rng: Generator) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw an image: pixels [3, 128, 128] and target [6, 5]."""
    canvas = _background(rng)
    target = np.zeros((MOST_SHAPES, 5), dtype=np.float32)
    target[:, 0] = -1
    boxes: list[tuple[float, ...]] = []
    for _ in range(int(rng.integers(1, MOST_SHAPES + 1))):
        for _ in range(TRIES):
            kind = int(rng.integers(len(CLASSES)))
            radius = float(np.exp(rng.uniform(np.log(SMALLEST), np.log(LARGEST))))
            stretch = float(np.exp(rng.uniform(-STRETCH, STRETCH)))
            place = _Place(rng, radius * np.exp(STRETCH) * 1.25)
            distance = _distance(
                CLASSES[kind], place.u / (radius * stretch), place.v * stretch / radius
            )
            cover = (0.5 - radius * distance).clip(0, 1)
            box = place.box(cover)
            if box is None or any(_shared(box, other) > OVERLAP for other in boxes):
                continue
            place.paint(canvas, cover, _texture(rng, place))
            target[len(boxes)] = kind, *box
            boxes.append(box)
            break
    canvas += rng.standard_normal(canvas.shape, dtype=np.float32) * NOISE
    return canvas.clip(0, 255).astype(np.uint8), target


class _Place:
    """A window of the image around a random place, with coordinates in a frame turned at random.

    Args:
        rng: Source of the place and the angle.
        reach: Pixels from the place to the window's sides, where these are inside the image.
    """

    def __init__(self, rng: Generator, reach: float) -> None:
        self.x, self.y, angle = rng.uniform((0, 0, 0), (SIDE, SIDE, 2 * np.pi))
        self.rows, self.columns = (
            slice(max(0, int(c - reach)), min(SIDE, int(c + reach) + 1)) for c in (self.y, self.x)
        )
        down = (np.arange(self.rows.start, self.rows.stop) + 0.5 - self.y)[:, None]
        across = (np.arange(self.columns.start, self.columns.stop) + 0.5 - self.x)[None]
        turn, lean = np.cos(angle), np.sin(angle)
        self.u = (across * turn + down * lean).astype(np.float32)  # pixels from the place
        self.v = (down * turn - across * lean).astype(np.float32)

    def paint(self, canvas: Pixels, cover: Pixels, colour: Pixels) -> None:
        """Lay a colour over the window where it is covered, in 0…1."""
        window = canvas[:, self.rows, self.columns]
        window += cover * (colour - window)

    def box(self, cover: Pixels) -> tuple[float, ...] | None:
        """Left, top, right, bottom of what is covered; None if it is cut off or too small."""
        top, left = self.rows.start, self.columns.start
        rows, columns = (np.flatnonzero((cover > 0.5).any(axis)) for axis in (1, 0))
        if min(len(rows), len(columns)) < SMALLEST:
            return None
        box = left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1
        return None if min(box) <= 0 or max(box) >= SIDE else tuple(map(float, box))


def _colour(rng: Generator) -> Pixels:
    return rng.uniform(0, 255, (3, 1, 1)).astype(np.float32)


def _background(rng: Generator) -> Pixels:
    """A gradient between two colours with strokes and soft blobs on it."""
    place = _Place(rng, 2 * SIDE)
    share = (place.u / SIDE + 0.5).clip(0, 1)
    canvas = _colour(rng) * share + _colour(rng) * (1 - share)
    for _ in range(int(rng.integers(*CLUTTER))):
        if rng.random() < 0.5:  # a stroke
            length, width = rng.uniform((8, 0.7), (50, 3))
            place = _Place(rng, length + width)
            distance = np.maximum(np.abs(place.u) - length, np.abs(place.v) - width)
            cover = (0.5 - distance).clip(0, 1)
        else:
            length, width = rng.uniform(4, 20, 2)
            place = _Place(rng, 2.5 * max(length, width))
            cover = np.exp(-np.square(place.u / length) - np.square(place.v / width))
        place.paint(canvas, cover * np.float32(rng.uniform(0.3, 0.9)), _colour(rng))
    return canvas


def _distance(kind: str, u: Pixels, v: Pixels) -> Pixels:
    """Below 0 inside a shape of about radius 1, above 0 outside; near its edge about a distance."""
    if kind == "square":
        return np.maximum(np.abs(u), np.abs(v)) - 0.85
    if kind == "triangle":
        slant = np.abs(u) * np.float32(0.75**0.5) - v / 2
        return np.maximum(slant, v) - 0.55
    if kind == "cross":
        a, b = np.abs(u), np.abs(v)
        return np.minimum(np.maximum(a - 1, b - 0.3), np.maximum(b - 1, a - 0.3))
    r = np.hypot(u, v)
    if kind == "disk":
        return r - 1
    if kind == "ring":
        return np.abs(r - 0.75) - 0.25
    fifth = (np.arctan2(v, u) * np.float32(2.5 / np.pi)) % 1  # a star
    return (r - (0.4 + 0.6 * np.abs(2 * fifth - 1))) * 0.6


def _texture(rng: Generator, place: _Place) -> Pixels:
    """Two colours in a pattern, shaped like the window."""
    kind = TEXTURES[int(rng.integers(len(TEXTURES)))]
    step, shift = rng.uniform((3, 0), (9, np.pi))
    first, second = _colour(rng), _colour(rng)
    if kind == "plain":
        return first
    turn, lean = np.cos(shift) * np.pi / step, np.sin(shift) * np.pi / step
    a = np.sin(place.u * turn + place.v * lean)
    if kind == "stripes":
        pattern = a
    else:
        b = np.sin(place.v * turn - place.u * lean)
        pattern = a * b if kind == "checks" else a + b - 0.8
    share = (0.5 + 2 * pattern).clip(0, 1)
    return first * share + second * (1 - share)


def _shared(one: tuple[float, ...], two: tuple[float, ...]) -> float:
    """What two boxes have in common, as a share of the smaller one."""
    width = min(one[2], two[2]) - max(one[0], two[0])
    height = min(one[3], two[3]) - max(one[1], two[1])
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, two)]
    return max(width, 0) * max(height, 0) / min(areas)
