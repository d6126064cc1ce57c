"""Anchors, the detection loss, decoding and mAP, against torchvision and slow obvious code."""

import math

import numpy as np
import pytest
import torch
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.retinanet import RetinaNet as TorchvisionRetinaNet
from torchvision.ops import box_iou

from engine.detection import Anchors, DetectionLoss, Detections, mean_average_precision
from engine.models.retinanet import SHAPES_ANCHORS, retinanet_shapes

ANCHORS = Anchors.of((8, 16), height=32, width=48, size=2.0)
CLASSES = 3
TARGETS = torch.tensor(
    [
        [[1.0, 4, 4, 22, 20], [0, 20, 6, 45, 30], [-1, 0, 0, 0, 0]],
        [[2.0, 10, 10, 26, 28], [-1, 0, 0, 0, 0], [-1, 0, 0, 0, 0]],
        [[-1.0, 0, 0, 0, 0], [-1, 0, 0, 0, 0], [-1, 0, 0, 0, 0]],
    ]
)


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    count = len(ANCHORS.boxes)
    return torch.randn(len(TARGETS), count, CLASSES + 4, generator=generator)


def torchvision_retinanet(anchors):
    """Torchvision's detector around a backbone that is never called."""
    backbone = torch.nn.Identity()
    backbone.out_channels = 8
    generator = AnchorGenerator(anchors.sizes, ((0.5, 1.0, 2.0),) * len(anchors.sizes))
    return TorchvisionRetinaNet(backbone, CLASSES, anchor_generator=generator)


def test_anchors_stand_at_every_place_in_three_sizes_and_shapes():
    level = ANCHORS.levels[1]
    assert len(level) == 2 * 3 * 9
    width, height = (level[:, 2:] - level[:, :2]).unbind(1)
    # torchvision rounds the corners around a place to whole pixels
    assert torch.allclose((width * height).sqrt()[3::9], torch.tensor(32.0), atol=1)
    assert torch.allclose(height[3::9] / width[3::9], torch.tensor(1.0), atol=0.1)
    centres = (level[:, :2] + level[:, 2:])[::9] / 2
    assert centres.tolist() == [[16.0 * x, 16.0 * y] for y in range(2) for x in range(3)]


def test_loss_matches_slow_obvious_code(outputs):
    """Anchor by anchor: match by overlap, then the published formulas."""
    loss = DetectionLoss(ANCHORS, beta=0.2)
    anchors = ANCHORS.boxes
    for image, rows in enumerate(TARGETS):
        there = rows[rows[:, 0] >= 0]
        overlap = box_iou(there[:, 1:], anchors)
        focal, beside, matched = 0.0, 0.0, 0
        for a, anchor in enumerate(anchors):
            best = overlap[:, a].max().item() if len(there) else 0.0
            own = int(overlap[:, a].argmax()) if len(there) else -1
            only = any(row[a] == row.max() for row in overlap)  # the best anchor of an object
            if not only and 0.4 <= best < 0.5:
                continue
            kind = int(there[own, 0]) if only or best >= 0.5 else -1
            for c in range(CLASSES):
                p = outputs[image, a, c].sigmoid().item()
                if kind == c:
                    focal -= 0.25 * (1 - p) ** 2 * math.log(p)
                else:
                    focal -= 0.75 * p**2 * math.log(1 - p)
            if kind >= 0:
                matched += 1
                box = there[own, 1:]
                sizes = anchor[2:] - anchor[:2]
                shift = ((box[:2] + box[2:]) / 2 - (anchor[:2] + anchor[2:]) / 2) / sizes
                scale = ((box[2:] - box[:2]) / sizes).log()
                for e in (outputs[image, a, -4:] - torch.cat([shift, scale])).abs().tolist():
                    beside += e * e / 2 / 0.2 if e < 0.2 else e - 0.1
        assert loss.each(outputs, TARGETS)[image].item() == pytest.approx(
            (focal + beside) / max(1, matched), rel=1e-4
        )
    assert loss(outputs, TARGETS) == loss.each(outputs, TARGETS).mean()


def test_loss_matches_torchvisions_but_for_what_it_says_of_boxes(outputs):
    """With a tiny β the smooth L1 loss is the L1 loss that torchvision trains with."""
    theirs = torchvision_retinanet(ANCHORS)
    targets = [
        {"labels": t[t[:, 0] >= 0][:, 0].long(), "boxes": t[t[:, 0] >= 0][:, 1:]} for t in TARGETS
    ]
    head = {"cls_logits": outputs[..., :-4], "bbox_regression": outputs[..., -4:]}
    losses = theirs.compute_loss(targets, head, [ANCHORS.boxes] * len(TARGETS))
    ours = DetectionLoss(ANCHORS, beta=1e-6)(outputs, TARGETS)
    assert float(ours) == pytest.approx(float(sum(losses.values())), rel=1e-5)


def test_loss_is_a_mean_over_images(outputs):
    loss = DetectionLoss(ANCHORS)
    alone = [float(loss(o[None], t[None])) for o, t in zip(outputs, TARGETS, strict=True)]
    assert float(loss(outputs, TARGETS)) == pytest.approx(np.mean(alone), rel=1e-5)


def test_loss_is_a_sum_over_outputs_of_functions_of_one_each(outputs):
    """What `elementwise` says: the dense Hessian in one image's outputs is diagonal."""
    one, target = 4 * outputs[:1, ::9].double(), TARGETS[:1]
    few = DetectionLoss(ANCHORS)
    few.anchors = Anchors(((16.0,),), (16,), 32, 48)  # 18 anchors: a Hessian one can look at
    one = one[:, : len(few.anchors.boxes)]
    hessian = torch.autograd.functional.hessian(lambda z: few(z, target), one)
    dense = hessian.reshape(one.numel(), one.numel())
    diagonal = dense.diagonal()
    assert torch.equal(dense, torch.diag(diagonal))
    assert few.elementwise
    assert bool((diagonal < 0).any())  # the focal loss is not convex
    assert bool((diagonal > 0).any())


def test_detections_are_torchvisions(outputs):
    theirs = torchvision_retinanet(ANCHORS)
    found = DetectionLoss(ANCHORS).detections(outputs)
    counts = [len(level) for level in ANCHORS.levels]
    head = {
        "cls_logits": list(outputs[..., :-4].split(counts, 1)),
        "bbox_regression": list(outputs[..., -4:].split(counts, 1)),
    }
    shapes = [(ANCHORS.height, ANCHORS.width)] * len(outputs)
    expected = theirs.postprocess_detections(head, [list(ANCHORS.levels)] * len(outputs), shapes)
    theirs_kept = [len(one["scores"]) for one in expected]
    assert [len(one.scores) for one in found] == [min(n, 100) for n in theirs_kept]
    for ours, one in zip(found, expected, strict=True):
        assert torch.allclose(ours.scores, one["scores"][:100])
        assert torch.allclose(ours.boxes, one["boxes"][:100])
        assert torch.equal(ours.classes, one["labels"][:100])


def seen(*rows):
    """Detections from rows (class, score, left, top, right, bottom)."""
    table = torch.tensor(rows, dtype=torch.float32).reshape(-1, 6)
    return Detections(table[:, 2:], table[:, 1], table[:, 0].long())


def test_map_of_all_objects_and_of_none():
    perfect = [seen(*[(k, 1.0, *box) for k, *box in t[t[:, 0] >= 0].tolist()]) for t in TARGETS]
    assert mean_average_precision(perfect, list(TARGETS)) == pytest.approx(1)
    assert mean_average_precision([seen()] * 3, list(TARGETS)) == 0
    assert mean_average_precision(perfect, [TARGETS[2]] * 3) == 0


def test_map_by_hand():
    """One object of one class: found surely but loosely, overlap 0.6, after a false one.

    At the thresholds 0.5, 0.55 and 0.6 of ten, precision is ½ at every recall.
    """
    target = torch.tensor([[0.0, 0, 0, 100, 100]])
    found = seen((0, 0.9, 200, 200, 220, 220), (0, 0.8, 0, 0, 100, 60.5))
    assert mean_average_precision([found], [target]) == pytest.approx(0.5 * 3 / 10)


def test_network_and_anchors_fit():
    model = retinanet_shapes().eval()
    with torch.no_grad():
        outputs = model(torch.zeros(2, 3, 128, 128))
    assert outputs.shape == (2, len(SHAPES_ANCHORS.boxes), 6 + 4)


def test_no_curvature_without_a_quadratic_part():
    with pytest.raises(ValueError, match=r"beta must be above 0, got 0: without a quadratic part"):
        DetectionLoss(ANCHORS, beta=0)


def test_outputs_of_other_anchors_are_refused(outputs):
    loss = DetectionLoss(ANCHORS)
    with pytest.raises(
        ValueError, match=r"outputs must be \[images, 270 anchors, classes \+ 4\], got \[3, 5, 7\]"
    ):
        loss(outputs[:, :5], TARGETS)


def test_targets_of_another_shape_are_refused(outputs):
    with pytest.raises(ValueError, match=r"targets must be \[3 images, boxes, 5\], got \[3, 3\]\."):
        DetectionLoss(ANCHORS)(outputs, TARGETS[..., 0])


def test_unknown_classes_are_refused(outputs):
    with pytest.raises(
        ValueError, match=r"targets must be classes in 0…2, or −1 for none, got 7: take data"
    ):
        DetectionLoss(ANCHORS)(outputs, TARGETS + (TARGETS == 2) * 5)


def test_targets_are_matched_once(outputs, monkeypatch):
    loss = DetectionLoss(ANCHORS)
    calls = []
    match = loss._match
    monkeypatch.setattr(loss, "_match", lambda rows: calls.append(1) or match(rows))
    first = loss(outputs, TARGETS)
    assert torch.equal(loss(outputs, TARGETS), first)
    assert len(calls) == len(TARGETS)
