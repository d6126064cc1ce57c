"""ImageNet from a made-up folder, and the pictures that stand in its place."""

import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader
from torchvision.models import Inception_V3_Weights, ResNet50_Weights

import engine.datasets.imagenet as imagenet
from engine.datasets.cifar10 import sample_cifar10
from engine.datasets.imagenet import full_imagenet, sample_imagenet
from engine.evaluation import correct_images, evaluate
from engine.models.imagenet import NETWORKS, Preprocessing
from engine.results import FormatError
from engine.workloads import Workload, describe_data

CLASSES = 60  # in place of 1 000, whose folders take long to make
SMALL = Preprocessing(resize=12, crop=8, mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 1.0))


def picture(seed: int, size: tuple[int, int] = (17, 13)) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def fill(folder: Path, images: int) -> None:
    """Make classes, and images in turn in the 10th, 20th … of them."""
    for label in range(CLASSES):
        (folder / f"n{label:08}").mkdir(parents=True)
    for i in range(images):
        picture(i).save(folder / f"n{10 * (i % 5 + 1):08}" / f"{i}.JPEG")


@pytest.fixture(autouse=True)
def _few_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imagenet, "CLASSES", CLASSES)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with 30 images to train on and 20 to measure on."""
    root = tmp_path_factory.mktemp("imagenet")
    fill(root / "train", 30)
    fill(root / "val", 20)
    return root


@pytest.fixture
def chosen(monkeypatch: pytest.MonkeyPatch, whole: Path) -> Path:
    monkeypatch.setenv("HAWQ_VIZ_IMAGENET", str(whole))
    monkeypatch.setattr(imagenet, "CALIBRATION_IMAGES", 12)
    return whole


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is taken for ImageNet's."""
    monkeypatch.setenv("HAWQ_VIZ_IMAGENET", str(tmp_path))
    return tmp_path


class Stubborn(nn.Module):
    """Says class 10 of everything."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(1000)[[10] * len(x)]


class Labels(nn.Module):
    """Gives a class by the sum of an image."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.eye(1000)[(x.sum((1, 2, 3)).abs() * 10).long() % 51]


# --- the folder


@pytest.mark.usefixtures("chosen")
def test_images_come_from_where_they_belong():
    calibration, train, test = full_imagenet(SMALL)
    assert [len(part) for part in (calibration, train, test)] == [12, 30, 20]
    assert calibration.name == "ImageNet, 12 of 30 training images"
    assert train.name == "ImageNet, 30 training images, cut out and mirrored"
    assert train.plain is not None
    assert (len(train.plain), train.plain.name) == (30, "ImageNet, 30 training images")
    assert test.name == "ImageNet, 20 validation images"
    assert [part.root.name for part in (calibration, train, test)] == ["train", "train", "val"]
    assert full_imagenet(SMALL)[0].files == calibration.files  # the same whenever drawn
    assert sorted(label for _, label in test.files) == sorted([10, 20, 30, 40, 50] * 4)
    assert set(calibration.files) < set(train.files)


@pytest.mark.usefixtures("own")
def test_without_training_images_none_are_used_twice(own):
    fill(own / "val", 9)
    calibration, train, test = full_imagenet(SMALL)
    assert (len(calibration), len(test)) == (4, 5)
    assert not set(calibration.files) & set(test.files)
    assert train.files == calibration.files
    said = "ImageNet, 4 of 9 validation images, for there is no train/"
    assert (calibration.name, train.name) == (said, f"{said}, cut out and mirrored")
    assert test.name == "ImageNet, 5 validation images that nothing else was done with"


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("resnet50-imagenet", ResNet50_Weights.IMAGENET1K_V1),
        ("inception-v3-imagenet", Inception_V3_Weights.IMAGENET1K_V1),
    ],
)
def test_images_are_seen_as_torchvisions_networks_were_trained(own, name, weights):
    fill(own / "val", 4)
    picture(7, (500, 375)).save(own / "val/n00000010/0.JPEG")
    preprocessing = NETWORKS[name].preprocessing
    _, _, test = full_imagenet(preprocessing)
    calibration, _, _ = full_imagenet(preprocessing)
    for part in (calibration, test):
        for i, (file, label) in enumerate(part.files):
            image, found = part[i]
            with Image.open(part.root / file) as stored:
                expected = weights.transforms()(stored)
            if name.startswith("inception"):  # its network scales once more
                mean, std = torch.tensor(weights.transforms().mean), weights.transforms().std
                pixels = expected * torch.tensor(std)[:, None, None] + mean[:, None, None]
                expected = (pixels - 0.5) / 0.5
            torch.testing.assert_close(image, expected)
            assert found == label == int(Path(file).parent.name[1:])


def test_efficientnet_sees_the_pixels_less_127_by_128(own):
    fill(own / "val", 0)
    for label in range(4):
        picture(3, (512, 256)).save(own / f"val/n{label:08}/0.png")
    _, _, test = full_imagenet(NETWORKS["efficientnet-lite0-imagenet"].preprocessing)
    image, _ = test[0]
    pixels = np.asarray(picture(3, (512, 256)))[16:-16, 144:-144]  # no change of size
    expected = (pixels.astype(np.float32) - 127) / 128
    np.testing.assert_allclose(image.numpy(), expected.transpose(2, 0, 1), atol=1e-5)


@pytest.mark.usefixtures("chosen")
def test_training_images_are_changed_by_torchs_generator():
    _, train, _ = full_imagenet(SMALL)
    torch.manual_seed(0)
    once = [train[0][0], train[0][0]]
    torch.manual_seed(0)
    assert torch.equal(train[0][0], once[0])
    assert not torch.equal(once[0], once[1])
    assert torch.equal(train.plain[0][0], train.plain[0][0])
    assert once[0].shape == train.plain[0][0].shape == (3, 8, 8)


def test_grey_images_and_those_with_an_alpha_channel_are_read(own):
    fill(own / "val", 3)
    picture(1).convert("L").save(own / "val/n00000010/0.JPEG")
    picture(2).convert("CMYK").save(own / "val/n00000020/1.JPEG")
    picture(2).convert("RGBA").save(own / "val/n00000020/2.png")
    parts = full_imagenet(SMALL)
    assert all(part[i][0].shape == (3, 8, 8) for part in parts for i in range(len(part)))


def test_a_fingerprint_is_of_names_and_sizes(own):
    fill(own / "val", 9)
    calibration, _, test = full_imagenet(SMALL)
    before = test.fingerprint
    assert describe_data(test) == (test.name, before)
    assert full_imagenet(SMALL)[2].fingerprint == before != calibration.fingerprint
    file = own / "val" / test.files[2][0]
    picture(50, (40, 30)).save(file)
    assert full_imagenet(SMALL)[2].fingerprint != before
    file.rename(file.with_name("other.JPEG"))
    assert full_imagenet(SMALL)[2].fingerprint != before


@pytest.mark.usefixtures("chosen")
def test_images_are_read_when_asked(monkeypatch):
    opened = []
    real = Image.open
    monkeypatch.setattr(Image, "open", lambda file: opened.append(file) or real(file))
    _, train, test = full_imagenet(SMALL)
    assert opened == []
    test.__getitems__([3, 5])
    train[2]
    assert len(opened) == 3


# --- images that cannot be read


@pytest.fixture
def damaged(own):
    """20 images to measure on, of which three are damaged, and a file that is no image."""
    fill(own / "train", 4)
    fill(own / "val", 20)
    cut = own / "val/n00000010/0.JPEG"
    cut.write_bytes(cut.read_bytes()[:-30])
    (own / "val/n00000010/5.JPEG").write_text("<html>not found</html>")
    (own / "val/n00000020/1.JPEG").write_bytes(b"")
    (own / "val/n00000020/thumbs.db").touch()
    return own


def test_damaged_images_are_named_left_out_and_counted(damaged):
    assert damaged.is_dir()
    _, _, test = full_imagenet(SMALL)
    assert len(test) == 17
    wrong = ["n00000010/0.JPEG", "n00000010/5.JPEG", "n00000020/1.JPEG"]
    assert list(test.skipped) == wrong
    assert "truncated" in test.skipped[wrong[0]]
    assert test.name == (
        "ImageNet, 17 validation images (3 left out that cannot be read, n00000010/0.JPEG first)"
    )


def test_damage_that_shows_when_read_is_left_out_too(damaged):
    found = Workload("net", Stubborn(), *full_imagenet(SMALL))
    whole = evaluate(found.model, found)
    file = damaged / "val" / found.test.files[4][0]
    file.write_bytes(b"\xff\xd8\xff damage \xff\xd9")
    text = re.escape(f"{file} must be an image, but cannot be read: ")
    with pytest.raises(FormatError, match=f"^{text}"):
        found.test[4]
    with pytest.warns(RuntimeWarning, match=text):
        left = evaluate(found.model, found, batch_size=8)
    tens = [label for _, label in found.test.files].count(10)
    assert (whole.samples, whole.value) == (17, tens / 17)
    assert (left.samples, left.value) == (16, tens / 16)
    assert found.test.files[4][1] != 10
    with pytest.warns(RuntimeWarning, match="It is left out"):
        right = correct_images(found.model, found)
    assert (len(right), right.mean()) == (16, left.value)
    with pytest.warns(RuntimeWarning, match=text), pytest.raises(FormatError, match=f"^{text}"):
        found.test.__getitems__([4])


def test_slow_reading_is_left_to_other_processes(chosen, monkeypatch):
    assert chosen.is_dir()
    found = Workload("net", Labels(), *full_imagenet(SMALL))
    asked = []

    def watched(*given, num_workers, **others):
        asked.append(num_workers)
        return DataLoader(*given, num_workers=num_workers, **others)

    monkeypatch.setattr("engine.evaluation.DataLoader", watched)
    monkeypatch.setattr("engine.evaluation.SLOW_SECONDS", 1000)
    here = evaluate(found.model, found, batch_size=8)
    monkeypatch.setattr("engine.evaluation.SLOW_SECONDS", -1)
    there = evaluate(found.model, found, batch_size=8)
    assert (there.value, there.loss, there.samples) == (here.value, here.loss, 20)
    assert asked[0] == 0 < asked[1] <= 4


def test_images_none_of_which_can_be_read_are_refused(own):
    fill(own / "val", 4)
    for file in (own / "val").glob("*/*.JPEG"):
        file.write_text("no image")
    text = f"{own / 'val'} must hold images that can be read, got none; n000000"
    with pytest.raises(FormatError, match=f"^{re.escape(text)}.* cannot: cannot identify image"):
        full_imagenet(SMALL)


# --- folders that are not ImageNet's


def refused(text: str) -> None:
    with pytest.raises(FormatError, match=f"^{re.escape(text)}$"):
        full_imagenet(SMALL)


def test_the_folder_must_be_named(monkeypatch):
    monkeypatch.delenv("HAWQ_VIZ_IMAGENET", raising=False)
    refused(
        "the environment variable HAWQ_VIZ_IMAGENET must name a folder with ImageNet's val/ and "
        "train/ (val/ alone will do), each with a folder a class, but is not set."
    )
    monkeypatch.setenv("HAWQ_VIZ_IMAGENET", "/nowhere")
    refused("HAWQ_VIZ_IMAGENET must name a folder, but /nowhere is none.")


def test_a_folder_without_classes_is_refused(own, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setenv("HAWQ_VIZ_IMAGENET", str(own))
    refused(f"{own} must hold val/, with a folder a class, but does not.")
    (own / "val").mkdir()
    text = f"{own / 'val'} must hold 1000 folders, one a class in the order of their names, got "
    refused(f"{text}0: folders of classes without images may be empty.")
    for label in range(10):
        (own / "val" / f"n{label:08}").mkdir()
    refused(f"{text}10: folders of classes without images may be empty.")


def test_classes_without_images_are_refused(own):
    fill(own / "val", 3)
    (own / "val/n00000001/notes.txt").touch()
    refused(
        f"{own / 'val'} must hold 4 images or more (.jpeg, .jpg, .png, .bmp, .webp) in its "
        "folders of classes, got 3."
    )


# --- pictures in their place


def test_the_sample_is_cifar_10_enlarged_and_says_so():
    calibration, test = sample_imagenet(Labels(), SMALL)
    assert (len(calibration), len(test)) == (1000, 1000)
    assert test.name == (
        "CIFAR-10 sample, 1000 test images enlarged to 8×8, which are not ImageNet; their labels "
        "are the float network's own answers"
    )
    assert test.fingerprint != calibration.fingerprint
    assert sample_imagenet(Labels(), SMALL)[1].fingerprint == test.fingerprint
    side = Preprocessing(resize=36, crop=32, mean=SMALL.mean, std=SMALL.std)
    same = sample_imagenet(Labels(), side)[1]
    assert same.fingerprint != test.fingerprint
    pixels = sample_cifar10()[1].images[3] / 255  # as large as they are
    expected = (pixels - torch.tensor(SMALL.mean)[:, None, None]) / torch.tensor(SMALL.std)[
        :, None, None
    ]
    torch.testing.assert_close(same[3][0], expected)


def test_enlarged_images_stay_within_what_pixels_can_be():
    (data, _) = sample_imagenet(Labels(), Preprocessing(40, 40, (0.0,) * 3, (1.0,) * 3))
    images = torch.stack([image for image, _ in data.__getitems__(list(range(20)))])
    assert images.shape == (20, 3, 40, 40)
    assert (float(images.min()), float(images.max())) == (0, 1)
    small = torch.nn.functional.avg_pool2d(images, 10)
    before = torch.nn.functional.avg_pool2d(data.pictures.images[:20] / 255, 8)
    assert float((small - before).abs().max()) < 0.1


def test_the_sample_is_labelled_by_the_network_once():
    class Counting(Labels):
        images = 0

        def forward(self, x):
            Counting.images += len(x)
            return super().forward(x)

    _, test = sample_imagenet(Counting(), SMALL)
    assert Counting.images == 0
    first = test.__getitems__([*range(40), 7])
    assert Counting.images == 41
    answers = Labels()(torch.stack([image for image, _ in first])).argmax(1)
    assert [label for _, label in first] == answers.tolist()
    assert test[7][1] == first[7][1] == first[40][1]
    assert isinstance(test[7][1], int)
    assert Counting.images == 41
    found = Workload("net", Labels(), test, test, test)
    assert evaluate(found.model, found, max_images=100).value == 1


def test_nothing_is_warned_of_in_whole_folders(chosen):
    assert chosen.is_dir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for part in full_imagenet(SMALL):
            assert part.skipped == {}
            assert len(part.__getitems__([0, 1])) == 2
