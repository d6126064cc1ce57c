"""Boxes: what a detector's raw outputs mean, the loss they are trained with, and how good they are.

A detector gives [images, anchors, classes + 4]: for each anchor, a box that stands at its place of
the image whatever that shows, a logit for each class and where the object's box lies beside the
anchor. Targets are [images, most boxes, 5]: rows (class, left, top, right, bottom) in pixels, with
class −1 where there is no object.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection._utils import BoxCoder, Matcher
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import batched_nms, box_iou, clip_boxes_to_image, sigmoid_focal_loss

from engine.results import jackknife_interval

ASPECTS = (0.5, 1.0, 2.0)
MATCHED, UNMATCHED = 0.5, 0.4  # overlap with an object's box from which, and below which
NOT_MATCHED = -1  # Matcher: background; below it, neither
ALPHA, GAMMA = 0.25, 2.0  # focal loss, as published
BETA = 1 / 9  # of the smooth L1 loss: quadratic for errors below it
LEAST_SCORE, SAME_OBJECT = 0.05, 0.5  # of a detection; overlap from which two are one
CANDIDATES, DETECTIONS = 1000, 100  # a pyramid level; an image
GROUPS = 30  # of images, for the error of a mAP


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

    @cached_property
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

    @cached_property
    def boxes(self) -> Tensor:
        """[anchors, 4] of all levels."""
        return torch.cat(self.levels)


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

    def __repr__(self) -> str:
        return f"focal loss and smooth L1 loss (β = {self.beta:.3g})"

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Mean loss of outputs [N, anchors, classes + 4] for targets [N, boxes, 5]."""
        return self.each(outputs, targets).mean()

    def each(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Loss of each image, [N].

        Raises:
            ValueError: If outputs and anchors, or targets and classes, do not fit.
        """
        classes = outputs.shape[-1] - 4
        boxes = self.anchors.boxes
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

    def distance(self, outputs: Tensor, taught: Tensor) -> Tensor:
        """How far outputs are from those of a teacher, mean over images; 0 where they agree.

        Σ KL(teacher's ‖ own probability of each class), plus the smooth L1 distance of the boxes,
        each weighed by how sure the teacher is of an object there, both divided by the sum of
        these weights, the number of anchors with an object as the teacher sees it.
        """
        (logits, boxes), (wanted, places) = (
            (x[..., :-4], x[..., -4:]) for x in (outputs, taught.detach())
        )
        probability = wanted.sigmoid()
        sure = probability.amax(2)
        entropy, least = (
            F.binary_cross_entropy_with_logits(x, probability, reduction="none").sum((1, 2))
            for x in (logits, wanted)
        )
        apart = F.smooth_l1_loss(boxes, places, reduction="none", beta=self.beta).sum(2)
        return ((entropy - least + (sure * apart).sum(1)) / sure.sum(1).clamp(min=1)).mean()

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
        anchors = self.anchors.boxes
        if not len(rows):
            return torch.full((len(anchors),), NOT_MATCHED), torch.zeros(len(anchors), 4)
        index = self.matcher(box_iou(rows[:, 1:], anchors))
        object_of = rows[index.clamp(min=0)]
        kinds = torch.where(index >= 0, object_of[:, 0].long(), index)
        return kinds, self.coder.encode_single(object_of[:, 1:], anchors)

    def _detected(self, outputs: Tensor) -> Detections:
        kept = []
        start = 0
        for anchors in self.anchors.levels:
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


@dataclass(frozen=True)
class Precision:
    """COCO's mAP: over classes and overlaps of 0.5, 0.55 … 0.95."""

    value: float  # 0…1
    without: tuple[float, ...]  # what it would be without each of some groups of the images
    images: int

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval over images, within 0…1; see `results.jackknife_interval`."""
        low, high = jackknife_interval(self.value, self.without)
        return max(0.0, low), min(1.0, high)


def precision_of(found: Sequence[Detections], targets: Sequence[Tensor]) -> Precision:
    """COCO's mAP, with what it would be without each of `GROUPS` groups of images.

    The groups are drawn once and for all, so two networks on the same images have the same ones.
    Each image's boxes are matched once.

    Args:
        found: What a detector finds in each image.
        targets: What is there, [boxes, 5] each.
    """
    count = len(found)
    groups = np.array_split(np.random.default_rng(0).permutation(count), min(GROUPS, count))
    evaluation = _evaluated(found, targets)
    if evaluation is None:
        return Precision(0.0, (0.0,) * len(groups), count)
    value = _accumulated(evaluation)
    matched = np.array(evaluation._evalImgs_cpp, dtype=object).reshape(-1, count)  # [classes, ..]
    without = []
    for group in groups:
        left = np.delete(np.arange(count), group)
        evaluation._paramsEval.imgIds = left.tolist()
        evaluation._evalImgs_cpp = matched[:, left].ravel().tolist()
        without.append(_accumulated(evaluation) if len(left) else 0.0)
    return Precision(value, tuple(without), count)


def precision_difference(
    ours: Sequence[Precision], theirs: Sequence[Precision]
) -> tuple[float, tuple[float, float]]:
    """How much higher one way to make a network gets the mAP than another, with its 95 % interval.

    What is common to both on an image, how hard it is above all, cancels: the jackknife leaves the
    same images out on both sides, of the difference of the means over each way's networks.

    Args:
        ours: Of the networks of one way, several seeds say, on the same images.
        theirs: Of the other's, on these images too.

    Raises:
        ValueError: If there are none, or they are not of equally many images, two or more.
    """
    counts = sorted({one.images for one in (*ours, *theirs)})
    if not ours or not theirs or len(counts) > 1 or counts[0] < 2:
        raise ValueError(
            "ours and theirs must hold a network each, on the same images, two or more, "
            f"got {len(ours)} and {len(theirs)} networks on {' or '.join(map(str, counts))} images."
        )
    value, *without = (
        np.mean([(x.value, *x.without) for x in ours], 0)
        - np.mean([(x.value, *x.without) for x in theirs], 0)
    ).tolist()
    return value, jackknife_interval(value, without)


def mean_average_precision(found: Sequence[Detections], targets: Sequence[Tensor]) -> float:
    """COCO's mAP in 0…1, see `precision_of`."""
    evaluation = _evaluated(found, targets)
    return 0.0 if evaluation is None else _accumulated(evaluation)


def _evaluated(found: Sequence[Detections], targets: Sequence[Tensor]) -> Any:
    """COCO's evaluation with every image's boxes matched; None where there are none."""
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
        return None
    kinds = sorted({x["category_id"] for x in truths})
    truth = COCO(
        {
            "images": [{"id": image} for image in range(len(found))],
            "annotations": truths,
            "categories": [{"id": kind, "name": str(kind)} for kind in kinds],
        }
    )
    evaluation = COCOeval_faster(truth, truth.loadRes(results), "bbox", separate_eval=True)
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [DETECTIONS]
    evaluation.evaluate()
    return evaluation


def _accumulated(evaluation: Any) -> float:
    """The mean precision of an evaluation; 0 where no object is left."""
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])
    known = precision[precision > -1]  # of classes that there are
    return float(known.mean()) if known.size else 0.0


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
