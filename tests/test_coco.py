"""COCO from a made-up folder: a few images, and annotations right and wrong."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import engine.datasets.coco as coco
from engine.datasets.coco import CATEGORIES, Fitting, Objects, full_coco
from engine.models.imagenet import MEAN, STD
from engine.results import FormatError
from engine.workloads import describe_data

NAMES = [{"id": i, "name": name} for i, name in enumerate(CATEGORIES) if i and name != "N/A"]


def picture(seed: int, size: tuple[int, int]) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def annotation(image: int, category: int, *bbox: float, crowd: int = 0) -> dict[str, Any]:
    return {
        "id": 100 * image + category,
        "image_id": image,
        "category_id": category,
        "bbox": list(bbox),
        "iscrowd": crowd,
        "segmentation": [[1.0, 2.0, 3.0]],
    }


class Part:
    """One part of a set, written anew whenever changed."""

    def __init__(self, root: Path, name: str, images: int) -> None:
        self.file = root / "annotations" / f"instances_{name}2017.json"
        self.folder = root / f"{name}2017"
        self.folder.mkdir()
        self.file.parent.mkdir(exist_ok=True)
        sizes = [(64, 48), (30, 60), (40, 40), (50, 20)]
        self.content: Any = {"images": [], "annotations": [], "categories": NAMES}
        for i in range(images):
            width, height = sizes[i % 4]
            picture(i, (width, height)).save(self.folder / f"{i:012}.jpg")
            self.content["images"].append(
                {"id": 10 * i, "file_name": f"{i:012}.jpg", "width": width, "height": height}
            )
            self.add(annotation(10 * i, 1 + i, 5, 4, 20, 10))
        self.add(annotation(0, 90, 0, 0, 64, 48))

    def add(self, *annotations: dict[str, Any]) -> None:
        self.content["annotations"] += annotations
        self.write(json.dumps(self.content))

    def write(self, text: str) -> None:
        self.file.write_text(text)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HAWQ_VIZ_COCO", str(tmp_path))
    return tmp_path


@pytest.fixture
def val(root: Path) -> Part:
    return Part(root, "val", 6)


def every(parts: tuple[coco.CocoImages, ...]) -> dict[str, torch.Tensor]:
    """Targets of all images to calibrate with and to measure on, by file."""
    return {
        file: part[i][1][: len(objects.rows)]
        for part in (parts[0], parts[2])
        for i, (file, objects) in enumerate(part.files)
    }


# --- what is read


def test_images_come_from_where_they_belong(root, val, monkeypatch):
    monkeypatch.setattr(coco, "CALIBRATION_IMAGES", 5)
    Part(root, "train", 9)
    calibration, train, test = full_coco(64)
    assert [len(part) for part in (calibration, train, test)] == [5, 9, 6]
    assert calibration.name == "COCO, 5 of 9 training images at 64×64"
    assert train.name == "COCO, 9 training images at 64×64, mirrored at random"
    assert train.plain is not None
    assert train.plain.name == "COCO, 9 training images at 64×64"
    assert test.name == "COCO, 6 validation images at 64×64"
    assert [part.root.name for part in (calibration, train, test)] == ["train2017"] * 2 + [
        val.folder.name
    ]
    assert [file for file, _ in full_coco(64)[0].files] == [file for file, _ in calibration.files]
    assert {file for file, _ in calibration.files} < {file for file, _ in train.files}


@pytest.mark.parametrize("annotated", [False, True])
def test_without_training_images_none_are_used_twice(root, val, annotated):
    if annotated:  # COCO's annotations of all parts come in one archive
        part = Part(root, "train", 4)
        for file in part.folder.iterdir():
            file.unlink()
        part.folder.rmdir()
    calibration, train, test = full_coco(64)
    named = [{file for file, _ in part.files} for part in (calibration, train, test)]
    assert named[0] == named[1]
    assert not named[0] & named[2]
    assert len(named[0] | named[2]) == len(list(val.folder.iterdir()))
    said = "COCO, 3 of 6 validation images at 64×64, for there is no train2017/"
    assert (calibration.name, train.name) == (said, f"{said}, mirrored at random")
    assert test.name == "COCO, 3 validation images at 64×64 that nothing else was done with"


def test_an_image_fits_into_the_square_and_its_boxes_with_it(val):
    """The first, 64 × 48 into 32 × 32: halved, and eight rows below it are of the mean colour."""
    parts = full_coco(32)
    part, i = next((p, i) for p in parts for i, (f, _) in enumerate(p.files) if f == f"{0:012}.jpg")
    image, target = part[i]
    assert image.shape == (3, 32, 32)
    assert image.dtype == target.dtype == torch.float32
    assert not image[:, 24:].any()
    with Image.open(val.folder / f"{0:012}.jpg") as stored:
        halved = np.asarray(stored.resize((32, 24), Image.Resampling.BILINEAR)) / 255
    expected = (halved - MEAN) / STD
    np.testing.assert_allclose(image[:, :24], expected.transpose(2, 0, 1), atol=1e-5)
    assert target.tolist()[:2] == [[1, 2.5, 2, 12.5, 7], [90, 0, 0, 32, 24]]
    assert all(row == [-1, 0, 0, 0, 0] for row in target.tolist()[2:])


@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 70), st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_is_in_a_box_stays_in_it(width, height, side, mirrored):
    """A white image with a black box: what is black in the square is what the target says."""
    pixels = np.full((height, width, 3), 255, np.uint8)
    left, top = width // 4, height // 3
    right, bottom = max(left + 1, width // 2), max(top + 1, height // 2)
    pixels[top:bottom, left:right] = 0
    rows = np.array([[7, left, top, right, bottom]], np.float32)
    fitting = Fitting(side, most=3, mirrored=mirrored)
    image, target = fitting(Image.fromarray(pixels), Objects(width, height, rows))
    kind, *box = target[0].tolist()
    assert (kind, target[1:, 0].tolist()) == (7, [-1, -1])
    scale = side / max(width, height)
    seen = [max(1, round(x * scale)) for x in (width, height)]
    assert 0 <= box[0] < box[2] <= seen[0] + 1e-4
    assert 0 <= box[1] < box[3] <= seen[1] + 1e-4
    assert not image[:, seen[1] :].any()
    assert not image[:, :, seen[0] :].any()
    if scale == 1:
        black = (image[0, : seen[1], : seen[0]] < 0).nonzero()
        found = [*black.min(0).values.flip(0).tolist(), *(black.max(0).values + 1).flip(0).tolist()]
        assert found == box


@pytest.mark.usefixtures("val")
def test_training_images_are_mirrored_by_torchs_generator(root):
    """The second is half as wide as the square: it is mirrored where it stands."""
    Part(root, "train", 4)
    _, train, _ = full_coco(64)
    plain, target = train.plain[1]
    width = 32
    assert not plain[:, :, width:].any()
    torch.manual_seed(0)
    seen = [train[1] for _ in range(8)]
    torch.manual_seed(0)
    assert all(torch.equal(a, b) for one in seen for a, b in zip(one, train[1], strict=True))
    kept = [one for one in seen if torch.equal(one[0], plain)]
    mirrored = [one for one in seen if not torch.equal(one[0], plain)]
    assert kept
    assert mirrored
    assert torch.equal(mirrored[0][0][:, :, :width], plain[:, :, :width].flip(2))
    assert torch.equal(mirrored[0][1][0, [1, 3]], width - target[0, [3, 1]])
    assert torch.equal(mirrored[0][1][0, [0, 2, 4]], target[0, [0, 2, 4]])
    assert torch.equal(kept[0][1], target)


def test_targets_are_of_one_length(val):
    val.add(*(annotation(10, 3, i, i, 5, 5) for i in range(20)))
    for part in full_coco(64):
        most = max(len(objects.rows) for _, objects in part.files)
        assert {part[i][1].shape for i in range(len(part))} == {(most, 5)}


def test_an_image_without_boxes_stays(val):
    val.content["annotations"] = [annotation(0, 1, 5, 5, 9, 9)]
    val.write(json.dumps(val.content))
    found = every(full_coco(64))
    assert sorted(map(len, found.values())) == [0, 0, 0, 0, 0, 1]


def test_crowds_are_left_out_and_counted(val):
    val.add(annotation(10, 1, 0, 0, 9, 9, crowd=1), annotation(20, 2, 0, 0, 9, 9, crowd=1))
    parts = full_coco(64)
    assert parts[0].name.endswith("no train2017/, 2 annotations of crowds left out")
    assert parts[2].name.endswith("done with, 2 annotations of crowds left out")
    assert sum(map(len, every(parts).values())) == 7


def test_a_fingerprint_is_of_files_boxes_and_the_square(val):
    calibration, train, test = full_coco(64)
    assert describe_data(test) == (test.name, test.fingerprint)
    assert full_coco(64)[2].fingerprint == test.fingerprint != calibration.fingerprint
    assert train.fingerprint == calibration.fingerprint
    assert full_coco(32)[2].fingerprint != test.fingerprint
    number = int(test.files[0][0][:12])
    val.add(annotation(10 * number, 5, 0, 0, 5, 5))
    assert full_coco(64)[2].fingerprint != test.fingerprint
    assert full_coco(64)[0].fingerprint == calibration.fingerprint


# --- annotations that cannot be used


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (annotation(77, 1, 0, 0, 5, 5), "annotation 7701 is of image 77, which is not listed"),
        (annotation(10, 95, 0, 0, 5, 5), "annotation 1095 has category 95, which is not listed"),
        (annotation(10, 26, 0, 0, 5, 5), "annotation 1026 has category 26, which is not listed"),
        (
            annotation(10, 1, 5, 5, 0, 9),
            "annotation 1001 has a box of no area, [5.0, 5.0, 5.0, 14.0]",
        ),
        (
            annotation(10, 1, 5, 5, 3, -1),
            "annotation 1001 has a box of no area, [5.0, 5.0, 8.0, 4.0]",
        ),
        (
            annotation(10, 1, 5, float("nan"), 3, 1),
            "annotation 1001 has a box of no area, [5.0, nan, 8.0, nan]",
        ),
        (
            annotation(10, 1, 25, 5, 6.5, 5),
            "annotation 1001 has a box outside its image, [25.0, 5.0, 31.5, 10.0] in "
            "000000000001.jpg of 30×60",
        ),
        (
            annotation(10, 1, -0.5, 5, 0.25, 5),
            "annotation 1001 has a box outside its image, [-0.5, 5.0, -0.25, 10.0] in "
            "000000000001.jpg of 30×60",
        ),
    ],
)
def test_annotations_that_cannot_be_used_are_skipped_and_counted(val, wrong, words):
    val.add(wrong, annotation(20, 1, 0, 0, -1, -1))
    parts = full_coco(64)
    assert parts[2].name == (
        "COCO, 3 validation images at 64×64 that nothing else was done with, 2 annotations "
        f"skipped, the first because {words}"
    )
    assert sum(map(len, every(parts).values())) == 7


def test_a_box_a_little_over_the_edge_is_cut_there(val):
    val.add(annotation(20, 1, -0.5, 35, 41, 5.75))
    assert every(full_coco(40))[f"{2:012}.jpg"][1].tolist() == [1, 0, 35, 40, 40]


def test_categories_of_another_set_are_unknown(val):
    val.content["categories"] = [{"id": 1, "name": "{balloon}"}, {"id": 200, "name": "x"}, *NAMES]
    val.add(annotation(10, 200, 0, 0, 5, 5))
    val.content["categories"] = [*NAMES[1:], {"id": 1, "name": "{balloon}"}, {"id": 200}]
    val.add()
    _, _, test = full_coco(64)
    text = "annotation 1 has category 1, '{balloon}', where COCO has 'person'"
    assert test.name.endswith(f"2 annotations skipped, the first because {text}")


# --- images that cannot be read


def test_missing_and_damaged_images_are_named_left_out_and_counted(val):
    gone, damaged = (val.folder / f"{i:012}.jpg" for i in (1, 4))
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-30])
    calibration, train, test = full_coco(64)
    assert len(calibration) + len(test) == 4
    skipped = calibration.skipped | test.skipped
    assert set(skipped) == {gone.name, damaged.name}
    assert "No such file" in skipped[gone.name]
    for part in (calibration, test):
        if part.skipped:
            words = f"({len(part.skipped)} left out that cannot be read, "
            assert f"{words}{next(iter(part.skipped))} first)" in part.name
    assert len(train) == len(calibration)


def test_an_image_of_another_size_is_left_out_when_read(val):
    _, _, test = full_coco(64)
    file = val.folder / test.files[0][0]
    picture(1, (33, 22)).save(file)
    with pytest.warns(RuntimeWarning, match=r"It is left out\.$"):
        assert len(test.__getitems__([0, 1])) == 1
    text = f"{file} must be an image, but cannot be read: it has 33×22 pixels, and its annotations"
    with pytest.raises(FormatError, match=rf"^{re.escape(text)} are for \d+×\d+\.$"):
        test[0]


def test_images_none_of_which_can_be_read_are_refused(val):
    for file in val.folder.iterdir():
        file.write_text("no image")
    text = rf"^{re.escape(str(val.folder))} must hold images that can be read, got none; 0000"
    with pytest.raises(FormatError, match=text):
        full_coco(64)


# --- folders and files that are not COCO's


def refused(text: str, more: str = "$") -> None:
    with pytest.raises(FormatError, match=f"^{re.escape(text)}{more}"):
        full_coco(64)


def test_the_folder_must_be_named(monkeypatch):
    monkeypatch.delenv("HAWQ_VIZ_COCO", raising=False)
    refused(
        "the environment variable HAWQ_VIZ_COCO must name a folder with COCO's val2017/ and "
        "annotations/instances_val2017.json, and perhaps those of train, but is not set."
    )
    monkeypatch.setenv("HAWQ_VIZ_COCO", "/nowhere")
    refused("HAWQ_VIZ_COCO must name a folder, but /nowhere is none.")


def test_what_a_folder_lacks_is_said(root):
    text = f"{root} must hold COCO's val2017/ and annotations/instances_val2017.json, but has no "
    refused(f"{text}val2017/.")
    (root / "val2017").mkdir()
    refused(f"{text}annotations/instances_val2017.json.")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("<html>", "but Expecting value: line 1 column 1 (char 0)."),
        ("[" * 200_000, "but maximum recursion depth exceeded"),
        ("[]", "got no images: take COCO's instances_val2017.json, which comes in "),
        ('{"images": [1]}', "got no images: take COCO's"),
        ('{"images": [], "categories": []}', "got no annotations: take COCO's"),
        ('{"images": [], "annotations": []}', "got no categories: take COCO's"),
    ],
)
def test_a_file_that_holds_no_instances_is_refused(val, content, words):
    val.write(content)
    kind = "a COCO instances file, with lists of images, annotations and categories"
    refused(f"{val.file} must be {kind}, {words}", "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"id": 3, "image_id": 10, "caption": "a cat"},
        {"image_id": 10, "category_id": 1, "bbox": [1, 2, 3]},
        {"image_id": 10, "category_id": 1, "bbox": [1, 2, 3, "wide"]},
        {"image_id": [10], "category_id": 1, "bbox": [1, 2, 3, 4]},
        {"image_id": 10, "category_id": [1], "bbox": [1, 2, 3, 4]},
    ],
)
def test_annotations_of_another_kind_are_refused(val, wrong):
    val.add(wrong)
    refused(
        f"{val.file} must give every annotation an image_id, a category_id and a bbox of four "
        f"numbers, got {wrong}: take COCO's instances_val2017.json."
    )


@pytest.mark.parametrize("lacking", ["id", "file_name", "width", "height"])
def test_images_must_be_described(val, lacking):
    del val.content["images"][2][lacking]
    val.add()
    refused(
        f"{val.file} must give every image an id, a file_name, a width and a height, got "
        f"{val.content['images'][2]}."
    )


def test_too_few_images_or_none_with_boxes_are_refused(val):
    text = f"{val.file} must hold 4 images or more with boxes in them, got "
    val.content["annotations"] = [annotation(10, 1, 0, 0, 5, 5, crowd=1)]
    val.add()
    refused(f"{text}6 images and 0 boxes, 1 annotations of crowds left out.")
    val.content["annotations"] = [annotation(0, 1, 0, 0, 5, 5)]
    val.content["images"] = val.content["images"][:3]
    val.add()
    refused(f"{text}3 images and 1 boxes.")


def test_a_square_of_no_size_is_refused():
    with pytest.raises(ValueError, match=r"^side must be at least 1 pixel, got 0: 320 is usual\.$"):
        full_coco(0)
