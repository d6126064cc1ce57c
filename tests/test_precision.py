"""The error of a mAP and of a difference of two, against the spread over disjoint test sets."""

import re

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.detection import (
    BETA,
    GROUPS,
    Anchors,
    DetectionLoss,
    Detections,
    Precision,
    mean_average_precision,
    precision_difference,
    precision_of,
)
from engine.results import jackknife_interval

CLASSES = 3


def found_in(
    targets: list[Tensor], generator: torch.Generator, noise: float = 3.0
) -> list[Detections]:
    """What a made detector finds: every box about where it is, and some that are not there."""
    found = []
    for rows in targets:
        count, classes = len(rows), rows[:, 0].long()
        # images are hard as a whole: what they show decides how far off the boxes are
        off = noise * (1 + rows[:, 1:].mean() / 40)
        boxes = rows[:, 1:] + off * torch.randn(count, 4, generator=generator)
        wrong = torch.rand(2, 2, generator=generator) * 80
        boxes = torch.cat([boxes, torch.cat([wrong, wrong + 20], 1)])
        scores = torch.rand(len(boxes), generator=generator)
        scores[:count] = 0.3 + 0.7 * scores[:count]
        others = torch.randint(0, CLASSES, (2,), generator=generator)
        order = scores.argsort(descending=True)
        found.append(Detections(boxes[order], scores[order], torch.cat([classes, others])[order]))
    return found


def made_targets(images: int, generator: torch.Generator) -> list[Tensor]:
    targets = []
    for _ in range(images):
        count = int(torch.randint(1, 4, (), generator=generator))
        corner = torch.rand(count, 2, generator=generator) * 80
        size = 12 + 30 * torch.rand(count, 2, generator=generator)
        kinds = torch.randint(0, CLASSES, (count, 1), generator=generator)
        targets.append(torch.cat([kinds.float(), corner, corner + size], 1))
    return targets


def test_it_is_the_evaluators_with_and_without_each_group_of_images():
    generator = torch.Generator().manual_seed(0)
    targets = made_targets(70, generator)
    found = found_in(targets, generator)
    precision = precision_of(found, targets)
    assert precision.value == mean_average_precision(found, targets)
    assert (precision.images, len(precision.without)) == (70, GROUPS)
    groups = np.array_split(np.random.default_rng(0).permutation(70), GROUPS)
    for k in (0, 11, GROUPS - 1):
        left = [i for i in range(70) if i not in groups[k]]
        slow = mean_average_precision([found[i] for i in left], [targets[i] for i in left])
        assert precision.without[k] == pytest.approx(slow, rel=1e-12)


def test_its_interval_is_the_jackknifes():
    precision = Precision(0.5, (0.4, 0.5, 0.6), 9)
    # σ² = 2/3 · 0.02; t of 2 degrees of freedom at 97.5 % is 4.3027
    half = 4.30265273 * (2 / 3 * 0.02) ** 0.5
    ends = pytest.approx((0.5 - half, 0.5 + half), abs=1e-8)
    assert jackknife_interval(0.5, precision.without) == ends
    assert precision.interval == ends
    assert Precision(0.95, precision.without, 9).interval[1] == 1
    assert Precision(0.5, (0.0,), 1).interval == (0, 1)  # one image tells no error


def test_its_error_is_the_spread_over_disjoint_test_sets():
    generator = torch.Generator().manual_seed(1)
    seen = []
    for _ in range(60):
        targets = made_targets(60, generator)
        seen.append(precision_of(found_in(targets, generator), targets))
    spread = np.std([one.value for one in seen], ddof=1)
    count = GROUPS
    claimed = np.sqrt(np.mean([np.var(one.without) * (count - 1) for one in seen]))
    assert 0.8 < claimed / spread < 1.3
    everywhere = np.mean([one.value for one in seen])
    inside = [one.interval[0] <= everywhere <= one.interval[1] for one in seen]
    assert np.mean(inside) >= 0.85


def test_the_error_of_a_difference_is_its_spread_and_less_than_that_of_both():
    generator = torch.Generator().manual_seed(2)
    differences, halves, alone = [], [], []
    for _ in range(40):
        targets = made_targets(60, generator)
        base = found_in(targets, generator)
        ours, theirs = (
            [precision_of([moved(one, step, generator) for one in base], targets) for _ in range(2)]
            for step in (0.2, 1.0)
        )
        difference, (low, high) = precision_difference(ours, theirs)
        assert (low + high) / 2 == pytest.approx(difference)
        differences.append(difference)
        halves.append((high - low) / 2)
        alone.append((ours[0].interval[1] - ours[0].interval[0]) / 2)
    claimed = np.sqrt(np.mean(np.square(halves))) / 2.0452  # t of 29 degrees of freedom
    assert 0.75 < claimed / np.std(differences, ddof=1) < 1.4
    assert np.mean(halves) < 0.7 * np.mean(alone)
    assert np.mean(differences) > 0


def moved(one: Detections, step: float, generator: torch.Generator) -> Detections:
    """The same boxes a little elsewhere."""
    apart = step * torch.randn(one.boxes.shape, generator=generator)
    return Detections(one.boxes + apart, one.scores, one.classes)


def test_of_a_network_with_itself_there_is_no_difference():
    generator = torch.Generator().manual_seed(3)
    targets = made_targets(5, generator)
    one = precision_of(found_in(targets, generator), targets)
    assert len(one.without) == 5  # as many groups as images
    assert precision_difference([one], [one, one]) == (0, (0, 0))


def test_nothing_found_or_nothing_there_is_no_precision():
    nothing = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.int64))
    there = torch.tensor([[0.0, 2, 2, 20, 20]])
    right = Detections(there[:, 1:], torch.tensor([0.9]), torch.tensor([0]))
    assert precision_of([nothing, nothing], [there, there]).value == 0
    assert precision_of([right], [torch.full((2, 5), -1.0)]).value == 0
    lone = precision_of([right, nothing], [there, torch.zeros(0, 5)])
    assert lone.value == 1
    assert sorted(lone.without) == [0, 1]  # without the only object, none is left


@pytest.mark.parametrize(
    ("ours", "theirs", "got"),
    [
        ([], [Precision(0.5, (0.5, 0.5), 9)], "0 and 1 networks on 9 images"),
        (
            [Precision(0.5, (0.5, 0.5), 9)],
            [Precision(0.5, (0.5, 0.5), 8)],
            "1 and 1 networks on 8 or 9 images",
        ),
        (
            [Precision(0.5, (0.5,), 1)],
            [Precision(0.5, (0.5,), 1)],
            "1 and 1 networks on 1 images",
        ),
    ],
)
def test_networks_that_cannot_be_compared_are_refused(ours, theirs, got):
    sentence = (
        f"ours and theirs must hold a network each, on the same images, two or more, got {got}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        precision_difference(ours, theirs)


# --- how far outputs are from a teacher's


ANCHORS = Anchors.of((8,), height=16, width=16, size=2.0)


def test_the_distance_from_a_teacher_is_that_of_slow_obvious_code():
    generator = torch.Generator().manual_seed(4)
    count, loss = len(ANCHORS.boxes), DetectionLoss(ANCHORS)
    student, teacher = (
        torch.randn(2, count, CLASSES + 4, generator=generator, dtype=torch.float64)
        for _ in range(2)
    )
    total = 0.0
    for image in range(2):
        far, weights = 0.0, 0.0
        for own, taught in zip(student[image].tolist(), teacher[image].tolist(), strict=True):
            p, q = ([1 / (1 + np.exp(-logit)) for logit in row[:CLASSES]] for row in (taught, own))
            far += sum(
                a * np.log(a / b) + (1 - a) * np.log((1 - a) / (1 - b))
                for a, b in zip(p, q, strict=True)
            )
            for a, b in zip(taught[CLASSES:], own[CLASSES:], strict=True):
                apart = abs(a - b)
                inside = apart**2 / (2 * BETA) if apart < BETA else apart - BETA / 2
                far += max(p) * inside
            weights += max(p)
        total += far / max(1, weights) / 2
    assert loss.distance(student, teacher).item() == pytest.approx(total, rel=1e-9)


def test_the_distance_is_least_at_the_teacher():
    generator = torch.Generator().manual_seed(5)
    teacher = torch.randn(2, len(ANCHORS.boxes), CLASSES + 4, generator=generator)
    student = teacher.clone().requires_grad_()
    loss = DetectionLoss(ANCHORS)
    (slope,) = torch.autograd.grad(loss.distance(student, teacher), student)
    assert loss.distance(student, teacher).item() == pytest.approx(0, abs=1e-6)
    assert float(slope.abs().max()) < 1e-6
    sure = F.pad(torch.full((2, len(ANCHORS.boxes), CLASSES), 200.0), (0, 4))
    assert torch.isfinite(loss.distance(teacher, sure))  # however sure the teacher is


def test_a_loss_is_named_in_words():
    assert repr(DetectionLoss(ANCHORS)) == "focal loss and smooth L1 loss (β = 0.111)"
