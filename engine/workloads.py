"""A network, its data, loss and metric under one name.

Names can be listed without torch; loading imports it.
"""

import hashlib
import importlib.util
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.results import FormatError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    Loss = str | Callable[[Tensor, Tensor], Tensor]  # a name, or (outputs, targets) → mean loss

SAMPLE_MODELS = Path(__file__).parents[1] / "sample_models"
DATA = ("sample", "full")
FINGERPRINTED_IMAGES = 64  # of a dataset that brings no fingerprint of its own


@dataclass(frozen=True, eq=False)
class Workload:
    """What is analyzed, quantized and measured.

    The datasets give (image, target) pairs. Where a dataset has them, its `name` (which data,
    in words) and `fingerprint` go into every result.
    """

    name: str
    model: "nn.Module"
    calibration: "Dataset[Any]"  # images the traces are estimated on, as in evaluation
    train: "Dataset[Any]"  # images for fine-tuning; if it changes them at random, its attribute
    # `plain` gives the same images unchanged, to hold some back
    test: "Dataset[Any]"  # images the metric is measured on, and nothing else
    loss: "Loss" = "cross_entropy"
    metric: str = "top-1"
    origin: str = ""  # command-line arguments that load it again; empty if made in Python

    def command(self, verb: str, **options: Any) -> str:
        """The command line, or the Python call, that makes a result of this workload again."""
        if not self.origin:
            given = "".join(f", {key}={value!r}" for key, value in options.items())
            return f"{verb}(Workload(name={self.name!r}, …){given})"
        words = ["hawq-viz", verb, *shlex.split(self.origin)]
        for key, value in options.items():
            words.append(f"--{key.replace('_', '-')}")
            words += map(str, value) if isinstance(value, tuple) else [str(value)]
        return shlex.join(words)


def workload_names() -> tuple[str, ...]:
    """Names that `load_workload` knows."""
    return tuple(_REGISTRY)


def check_workload_name(name: str) -> str:
    """Take the name of a known workload.

    Raises:
        ValueError: If it is unknown; names the nearest and all known ones.
    """
    if name not in _REGISTRY:
        near = get_close_matches(name, _REGISTRY, n=1, cutoff=0) or list(_REGISTRY)
        known = [near[0], *(other for other in _REGISTRY if other != near[0])]
        raise ValueError(f"workload must be one of {', '.join(known)}, got {name!r}.")
    return name


def load_workload(name: str, data: str = "sample") -> Workload:
    """Load a workload by name.

    Args:
        name: One of `workload_names()`.
        data: "sample", the images that come with the project, or "full": fetched on demand, or
            for ImageNet read from the folder that `HAWQ_VIZ_IMAGENET` names. The sample of an
            ImageNet network is CIFAR-10's, enlarged, with the network's own answers as labels.

    Raises:
        ValueError: If the name or the data are unknown.
        FormatError: If weights or images cannot be read.
    """
    check_workload_name(name)
    if data not in DATA:
        raise ValueError(f"data must be one of {', '.join(DATA)}, got {data!r}.")
    return _REGISTRY[name](name, data)


def load_workload_file(spec: str) -> Workload:
    """Load the user's own workload: `my.py:make_workload`, a function that returns a Workload.

    The file is run as Python, with the rights of whoever asks: only ever name a file of your own.

    Raises:
        ValueError: If the spec has no such form or the function returns something else.
        FormatError: If the file or the function cannot be loaded.
    """
    path, _, function = spec.rpartition(":")
    if not path or not function:
        raise ValueError(f"workload file must be given as FILE.py:FUNCTION, got {spec!r}.")
    file = Path(path).resolve()
    module_spec = importlib.util.spec_from_file_location(f"workload_file_{file.stem}", file)
    if module_spec is None or module_spec.loader is None or not file.is_file():
        raise FormatError(f"{path} must be a Python file with {function}(), but is none.")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module.__name__] = module  # what the file pickles for data loading is found again
    try:
        module_spec.loader.exec_module(module)
    except Exception as error:  # whatever the user's code raises
        raise FormatError(f"{path} must run as Python, but {error!r}.") from error
    if not hasattr(module, function):
        raise FormatError(f"{path} must define {function}(), but does not.")
    workload = getattr(module, function)()
    if not isinstance(workload, Workload):
        raise ValueError(
            f"{function}() of {path} must return an engine.Workload, got {type(workload).__name__}."
        )
    return workload


def stored_analysis(name: str) -> Path:
    """Where the analysis that comes with a workload lies."""
    return SAMPLE_MODELS / f"{check_workload_name(name)}.analysis.json"


def describe_data(dataset: Any) -> tuple[str, str]:
    """Name and fingerprint of a dataset: its own, else its class and a hash of some images.

    Raises:
        ValueError: If it holds no images.
    """
    _check_not_empty(dataset)
    name = getattr(dataset, "name", f"{type(dataset).__name__}, {len(dataset)} images")
    fingerprint = getattr(dataset, "fingerprint", None)
    if fingerprint is None:
        digest = hashlib.sha256(str(len(dataset)).encode())
        for i in range(0, len(dataset), -(-len(dataset) // FINGERPRINTED_IMAGES)):
            image, target = dataset[i]
            digest.update(image.numpy().tobytes() + repr(target).encode())
        fingerprint = digest.hexdigest()[:16]
    return str(name), str(fingerprint)


def example_image(dataset: Any) -> "Tensor":
    """The first image of a dataset as a batch of one, to run a network once.

    Raises:
        ValueError: If it holds no images.
    """
    _check_not_empty(dataset)
    image: Tensor = dataset[0][0]
    return image.unsqueeze(0)


def _check_not_empty(dataset: Any) -> None:
    if len(dataset) == 0:
        raise ValueError("dataset must hold at least one image, got 0 images.")


def _resnet20_cifar10(name: str, data: str) -> Workload:
    from engine.datasets.cifar10 import full_cifar10, sample_cifar10
    from engine.datasets.images import AugmentedImages
    from engine.models.resnet_cifar import resnet20
    from engine.weights import load_weights

    train, test = sample_cifar10() if data == "sample" else full_cifar10()
    model = resnet20()
    load_weights(model, SAMPLE_MODELS / f"{name}.safetensors")
    return Workload(
        name=name,
        model=model.eval(),
        calibration=train,
        train=AugmentedImages(train),
        test=test,
        origin=f"{name} --data {data}",
    )


def _imagenet(name: str, data: str) -> Workload:
    from engine.datasets.imagenet import full_imagenet, sample_imagenet
    from engine.models.imagenet import NETWORKS
    from engine.weights import load_weights, weights_file

    network = NETWORKS[name]
    parts: tuple[Dataset[Any], ...] = ()
    if data == "full":  # before weights are fetched, for the folder may be missing
        parts = full_imagenet(network.preprocessing)
    model = network.build()
    path = network.file() if network.file else weights_file(name, network.fits, network.url)
    load_weights(model, Path(path), ignored=network.ignored)
    model.eval()
    if not parts:
        calibration, test = sample_imagenet(model, network.preprocessing)
        parts = calibration, calibration, test
    return Workload(
        name=name,
        model=model,
        calibration=parts[0],
        train=parts[1],
        test=parts[2],
        origin=f"{name} --data {data}",
    )


_REGISTRY: dict[str, Callable[[str, str], Workload]] = {
    "resnet20-cifar10": _resnet20_cifar10,
    "efficientnet-lite0-imagenet": _imagenet,
    "resnet50-imagenet": _imagenet,
    "inception-v3-imagenet": _imagenet,
    "squeezenext-imagenet": _imagenet,
}
