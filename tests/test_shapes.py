"""The made detection set: every image follows from its number; boxes fit what is drawn."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.datasets.shapes import (
    CLASSES,
    MOST_SHAPES,
    OVERLAP,
    SIDE,
    SMALLEST,
    Shapes,
    TurnedShapes,
    _distance,
    _Place,
    _shared,
    shapes_of,
    turned,
)


def test_an_image_follows_from_split_and_number_alone():
    once, again = Shapes("train", 40), Shapes("train", 8)
    assert torch.equal(once[7][0], again[7][0])
    assert torch.equal(once[7][1], again[7][1])
    assert not torch.equal(once[7][0], Shapes("test", 8)[7][0])


def test_the_sample_is_the_beginning_of_all():
    sample, full = shapes_of("sample"), shapes_of("full")
    for some, every in zip(sample, full, strict=True):
        assert len(some) < len(every)
        assert torch.equal(some[len(some) - 1][1], every[len(some) - 1][1])
        assert some.fingerprint != every.fingerprint
        assert some.name != every.name


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 7999))
def test_boxes_lie_inside_and_apart(index):
    image, target = Shapes("train", 8000)[index]
    assert image.shape == (3, SIDE, SIDE)
    assert bool(torch.isfinite(image).all())
    there = target[target[:, 0] >= 0]
    assert 1 <= len(there) <= MOST_SHAPES
    assert set(there[:, 0].tolist()) <= set(range(len(CLASSES)))
    assert bool((there[:, 1:] > 0).all())
    assert bool((there[:, 1:] < SIDE).all())
    assert bool((there[:, 3:] - there[:, 1:3] >= SMALLEST).all())
    boxes = [tuple(row) for row in there[:, 1:].tolist()]
    pairs = [(a, b) for i, a in enumerate(boxes) for b in boxes[:i]]
    assert all(_shared(a, b) <= OVERLAP for a, b in pairs)


def test_the_data_show_every_class_and_many_sizes():
    targets = torch.cat([Shapes("train", 300)[i][1] for i in range(300)])
    there = targets[targets[:, 0] >= 0]
    counts = torch.bincount(there[:, 0].long(), minlength=len(CLASSES))
    assert bool((counts > len(there) / len(CLASSES) / 2).all())
    sides = (there[:, 3:] - there[:, 1:3]).prod(1).sqrt()
    assert float(sides.quantile(0.1)) < 16
    assert float(sides.quantile(0.9)) > 35


def test_a_box_is_that_of_the_covered_pixels():
    place = _Place(np.random.default_rng(3), 400)  # the whole image
    cover = np.zeros((SIDE, SIDE), dtype=np.float32)
    cover[20:31, 50:90] = 1
    assert place.box(cover) == (50, 20, 90, 31)
    cover[20:31, 50:128] = 1
    assert place.box(cover) is None  # cut off at the right


def test_shapes_are_what_their_names_say():
    """Areas of shapes of radius 1, counted on a fine grid, against closed forms."""
    axis = np.linspace(-1.5, 1.5, 1500, dtype=np.float32)
    u, v = np.meshgrid(axis, axis)
    areas = {kind: float((_distance(kind, u, v) < 0).mean() * 9) for kind in CLASSES}
    side = 2 * 3**0.5 * 0.55  # of an equilateral triangle, from the radius of its inner circle
    expected = {
        "disk": np.pi,
        "square": 1.7**2,
        "triangle": 3**0.5 / 4 * side**2,
        "ring": np.pi * (1 - 0.5**2),
        "cross": 2 * (2 * 0.6) - 0.6**2,
    }
    for kind, area in expected.items():
        assert areas[kind] == pytest.approx(area, rel=0.01), kind
    r = np.hypot(u, v)
    star = _distance("star", u, v) < 0
    assert not star[r > 1].any()
    assert star[r < 0.4].all()


def test_turning_moves_boxes_with_their_pixels():
    image = torch.zeros(3, SIDE, SIDE)
    image[:, 30:50, 10:90] = 1
    target = torch.tensor([[2.0, 10, 30, 90, 50], [-1, 0, 0, 0, 0]])
    seen = set()
    for seed in range(40):
        moved, boxes = turned(image, target, torch.Generator().manual_seed(seed))
        rows, columns = moved[0].any(1).nonzero()[:, 0], moved[0].any(0).nonzero()[:, 0]
        box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        assert boxes[0].tolist() == [2.0, *map(float, box)]
        assert boxes[1].tolist() == [-1, 0, 0, 0, 0]
        seen.add(tuple(map(int, box)))
    assert len(seen) == 8  # every symmetry of the square


def test_turned_shapes_draw_from_torch_and_leave_the_plain_ones():
    plain = Shapes("train", 2)
    before = plain[0][1].clone()
    data = TurnedShapes(plain)
    torch.manual_seed(1)
    first = [data[0][0] for _ in range(6)]
    torch.manual_seed(1)
    again = [data[0][0] for _ in range(6)]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert any(not torch.equal(first[0], other) for other in first)
    assert torch.equal(plain[0][1], before)
    assert (len(data), data.fingerprint) == (2, plain.fingerprint)
    assert data.name == "2 made images of shapes (train), mirrored and turned"


def test_bad_values_are_named():
    with pytest.raises(ValueError, match=r"split must be one of train, test, got 'val'\."):
        Shapes("val", 3)
    with pytest.raises(ValueError, match=r"count must be at least 1, got 0\."):
        Shapes("test", 0)
    with pytest.raises(IndexError, match=r"index must be in 0…2, got 3\."):
        Shapes("test", 3)[3]
