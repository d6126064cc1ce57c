"""Boxes: what a detector's raw outputs mean, the loss they are trained with, and how good they are.

A detector gives [images, anchors, classes + 4]: for each anchor, a box that stands at its place of
the image whatever that shows, a logit for each class and where the object's box lies beside the
anchor. Targets are [images, most boxes, 5]: rows (class, left, top, right, bottom) in pixels, with
class −1 where there is no object.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, sigmoid_focal_loss

ASPECTS = (0.5, 1.0, 2.0)
MATCHED, UNMATCHED = 0.5, 0.4  # overlap with an object's box from which, and below which
NOT_MATCHED = -1  # Matcher: background; below it, neither
ALPHA, GAMMA = 0.25, 2.0  # focal loss, as published
BETA = 1 / 9  # of the smooth L1 loss: quadratic for errors below it
LEAST_SCORE, SAME_OBJECT = 0.05, 0.5  # of a detection; overlap from which two are one
CANDIDATES, DETECTIONS = 1000, 100  # a pyramid level; an image


@dataclass(frozen=True)
class Anchors:
    """The anchors of a pyramid, level by level, in the order of a RetinaNet's outputs."""

    sizes: tuple[tuple[float, ...], ...]  # pixels, for each level
    strides: tuple[int, ...]  # pixels of the image from one place of a level to the next
    height: int  # of the images, pixels
    width: int

    @classmethod
    def of(cls, strides: tuple[int, ...], height: int, width: int, size: float = 4.0) -> "Anchors":
        """The published anchors: at each level `size` strides wide, and 2^⅓ and 2^⅔ times that."""
        sizes = tuple(
            tuple(size * stride * 2 ** (third / 3) for third in range(3)) for stride in strides
        )
        return cls(sizes, strides, height, width)

    @lru_cache(maxsize=8)  # noqa: B019 — a handful of anchors for as long as the program runs
    def levels(self) -> tuple[Tensor, ...]:
        """For each level [anchors, 4]: left, top, right, bottom."""
        generator = AnchorGenerator(self.sizes, (ASPECTS,) * len(self.sizes))
        maps = [
            torch.empty(1, 1, math.ceil(self.height / s), math.ceil(self.width / s))
            for s in self.strides
        ]
        image = ImageList(torch.empty(1, 3, self.height, self.width), [(self.height, self.width)])
        (boxes,) = generator(image, maps)
        counts = [
            places.numel() * len(ASPECTS) * len(sizes)
            for places, sizes in zip(maps, self.sizes, strict=True)
        ]
        return boxes.split(counts)

    def boxes(self) -> Tensor:
        """[anchors, 4] of all levels."""
        return torch.cat(self.levels())


@dataclass(frozen=True)
class Detections:
    """What is found in one image, the surest first."""

    boxes: Tensor  # [n, 4] pixels
    scores: Tensor  # [n] in 0…1
    classes: Tensor  # [n]


class DetectionLoss:
    """Focal loss of the classes plus smooth L1 loss of the boxes (Lin et al. 2017, sec. 4).

    Each image's loss is divided by the number of anchors matched to its objects, so that the mean
    over images is a mean over images. The plain L1 loss that torchvision trains with has no
    curvature: a network's box outputs would seem insensitive to any rounding.

    Args:
        anchors: Of the network's outputs.
        beta: Box errors below it, in units of the box coder, are punished by their square.
    """

    elementwise = True  # each output's share depends on that output alone: S is diagonal

    def __init__(self, anchors: Anchors, beta: float = BETA) -> None:
        if not beta > 0:
            raise ValueError(
                f"beta must be above 0, got {beta}: without a quadratic part the loss of the "
                f"boxes has no curvature; {BETA:.3f} is usual."
            )
        self.anchors, self.beta = anchors, beta
        self.matcher = Matcher(MATCHED, UNMATCHED, allow_low_quality_matches=True)
        self.coder = BoxCoder(weights=(1.0, 1.0, 1.0, 1.0))
        self.last: tuple[Tensor, tuple[Tensor, Tensor]] | None = None

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of outputs [N, anchors, classes + 4] for targets [N, boxes, 5]."""
        return self.each(outputs, targets).mean()

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each image, [N].

        Raises:
            ValueError: If outputs and anchors, or targets and classes, do not fit.
        """
        classes = outputs.shape[-1] - 4
        boxes = self.anchors.boxes()
        if outputs.dim() != 3 or outputs.shape[1] != len(boxes) or classes < 1:
            raise ValueError(
                f"outputs must be [images, {len(boxes)} anchors, classes + 4], "
                f"got {list(outputs.shape)}: take anchors of the images' size."
            )
        if targets.dim() != 3 or targets.shape[2] != 5 or len(targets) != len(outputs):
            raise ValueError(
                f"targets must be [{len(outputs)} images, boxes, 5], got {list(targets.shape)}."
            )
        if targets.numel() and int(targets[..., 0].max()) >= classes:
            raise ValueError(
                f"targets must be classes in 0…{classes - 1}, or −1 for none, "
                f"got {int(targets[..., 0].max())}: take data and model of the same task."
            )
        kinds, places = self._matched(targets)
        logits, found = outputs[..., :-4], outputs[..., -4:]
        foreground = kinds >= 0
        wanted = F.one_hot(kinds.clamp(min=0), classes) * foreground[..., None]
        focal = sigmoid_focal_loss(logits, wanted.to(logits), ALPHA, GAMMA)
        focal = (focal * (kinds >= NOT_MATCHED)[..., None]).sum((1, 2))
        apart = F.smooth_l1_loss(found, places.to(found), reduction="none", beta=self.beta)
        beside = (apart * foreground[..., None]).sum((1, 2))
        return (focal + beside) / foreground.sum(1).clamp(min=1)

    def detections(self, outputs: Tensor) -> list[Detections]:
        """What outputs [N, anchors, classes + 4] say is in each image, at most 100 objects."""
        return [self._detected(one) for one in outputs.detach()]

    def _matched(self, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Class of each anchor [N, anchors], −1 background, −2 neither; and where its object lies.

        Matched once for a tensor of targets, however often the loss of it is asked for.
        """
        if self.last is None or self.last[0] is not targets:
            pairs = [self._match(rows[rows[:, 0] >= 0]) for rows in targets]
            kinds, places = (torch.stack(x) for x in zip(*pairs, strict=True))
            self.last = targets, (kinds, places)
        return self.last[1]

    def _match(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        anchors = self.anchors.boxes()
        if not len(rows):
            return torch.full((len(anchors),), NOT_MATCHED), torch.zeros(len(anchors), 4)
        index = self.matcher(box_iou(rows[:, 1:], anchors))
        object_of = rows[index.clamp(min=0)]
        kinds = torch.where(index >= 0, object_of[:, 0].long(), index)
        return kinds, self.coder.encode_single(object_of[:, 1:], anchors)

    def _detected(self, outputs: Tensor) -> Detections:
        kept = []
        start = 0
        for anchors in self.anchors.levels():
            level = outputs[start : start + len(anchors)]
            start += len(anchors)
            scores = level[:, :-4].sigmoid()
            sure = (scores > LEAST_SCORE).nonzero()
            values, order = scores[sure[:, 0], sure[:, 1]].sort(descending=True, stable=True)
            at, kind = sure[order[:CANDIDATES]].unbind(1)
            boxes = self.coder.decode_single(level[at, -4:], anchors[at])
            kept.append((clip_boxes_to_image(boxes, self.image_size), values[:CANDIDATES], kind))
        boxes, scores, kinds = (torch.cat(x) for x in zip(*kept, strict=True))
        first = batched_nms(boxes, scores, kinds, SAME_OBJECT)[:DETECTIONS]
        return Detections(boxes[first], scores[first], kinds[first])

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return self.anchors.height, self.anchors.width


def mean_average_precision(found: Sequence[Detections], targets: Sequence[Tensor]) -> float:
    """COCO's mAP in 0…1: over classes and overlaps of 0.5, 0.55 … 0.95.

    Args:
        found: What a detector finds in each image.
        targets: What is there, [boxes, 5] each.
    """
    from faster_coco_eval import COCO, COCOeval_faster

    truths: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image, (one, rows) in enumerate(zip(found, targets, strict=True)):
        for kind, *box in rows[rows[:, 0] >= 0].tolist():
            truths.append(_annotation(len(truths) + 1, image, int(kind), box))
        for box, score, kind in zip(
            one.boxes.tolist(), one.scores.tolist(), one.classes.tolist(), strict=True
        ):
            annotation = _annotation(len(results) + 1, image, kind, box)
            results.append({**annotation, "score": score})
    if not results or not truths:
        return 0.0
    kinds = sorted({x["category_id"] for x in truths})
    truth = COCO(
        {
            "images": [{"id": image} for image in range(len(found))],
            "annotations": truths,
            "categories": [{"id": kind, "name": str(kind)} for kind in kinds],
        }
    )
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[..., 0, -1]  # all sizes, 100 an image
    return float(precision[precision > -1].mean())


def _annotation(number: int, image: int, kind: int, box: list[float]) -> dict[str, Any]:
    left, top, right, bottom = box
    width, height = right - left, bottom - top
    return {
        "id": number,
        "image_id": image,
        "category_id": kind,
        "bbox": [left, top, width, height],
        "area": width * height,
        "iscrowd": 0,
    }
