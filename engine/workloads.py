"""A network, its data, loss and metric under one name.

Names can be listed without torch; loading imports it.
"""

import hashlib
import importlib.util
import re
import shlex
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.models import torchvision_names
from engine.results import FormatError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.utils.data import Dataset

    Loss = str | Callable[[Tensor, Tensor], Tensor]  # a name, or (outputs, targets) → mean loss

SAMPLE_MODELS = Path(__file__).parents[1] / "sample_models"
DATA = ("sample", "full")
OWN_WEIGHTS = "@"  # in a name: between the network and the fingerprint of weights of one's own
FINGERPRINT = re.compile("[0-9a-f]{12}")
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
    """Names that `load_workload` lists; it knows those of `torchvision_names.WORKLOADS` too."""
    return tuple(_REGISTRY)


def check_workload_name(name: str) -> str:
    """Take the name of a known workload, alone or with "@" and the fingerprint of weights.

    Raises:
        ValueError: If it is unknown; names the nearest and all known ones.
    """
    network, mark, digest = name.partition(OWN_WEIGHTS)
    if network.startswith(torchvision_names.PREFIX):
        if network not in torchvision_names.WORKLOADS:
            near = get_close_matches(network, torchvision_names.WORKLOADS, n=3, cutoff=0)
            raise ValueError(
                "workload must name one of torchvision's classification networks, "
                f"got {name!r}: the nearest are {', '.join(near)}."
            )
    elif network not in _REGISTRY:
        near = get_close_matches(network, _REGISTRY, n=1, cutoff=0) or list(_REGISTRY)
        known = [near[0], *(other for other in _REGISTRY if other != near[0])]
        raise ValueError(f"workload must be one of {', '.join(known)}, got {name!r}.")
    if mark and not FINGERPRINT.fullmatch(digest):
        raise ValueError(
            f"workload must have 12 hexadecimal digits after {OWN_WEIGHTS}, the fingerprint of its "
            f"weights, got {name!r}."
        )
    return name


def name_with(name: str, weights: str | Path | None) -> str:
    """The name of a known workload with weights from a file: "NAME@FINGERPRINT".

    Results of one network with different weights are told apart by it.

    Raises:
        ValueError: If the name is unknown, or is of weights that are not given.
        FormatError: If the file cannot be read, or is another than the name says.
    """
    network, mark, _ = check_workload_name(name).partition(OWN_WEIGHTS)
    if weights is None:
        if mark:
            raise ValueError(
                f"weights must be given for {name}, got none: name the file of that fingerprint."
            )
        return name
    try:
        with Path(weights).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    except OSError as error:
        raise FormatError(f"{weights} must be a file of weights, but {error.strerror}.") from error
    found = f"{network}{OWN_WEIGHTS}{digest}"
    if mark and found != name:
        raise FormatError(
            f"{weights} must be the weights of {name}, but has changed since: its fingerprint is "
            f"{digest}."
        )
    return found


def load_workload(name: str, data: str = "sample", weights: str | Path | None = None) -> Workload:
    """Load a workload by name.

    Args:
        name: One of `workload_names()`, or "torchvision/" and the name of one of torchvision's
            classification networks.
        data: "sample", the images that come with the project, or "full": fetched on demand, or
            for ImageNet read from the folder that `HAWQ_VIZ_IMAGENET` names. The sample of an
            ImageNet network is CIFAR-10's, enlarged, with the network's own answers as labels.
        weights: A file to take in place of the published weights: safetensors, or a state dict of
            tensors alone. The workload's name then tells its fingerprint, see `name_with`.

    Raises:
        ValueError: If the name or the data are unknown.
        FormatError: If weights or images cannot be read, or weights do not fit.
    """
    full_name = name_with(name, weights)
    if data not in DATA:
        raise ValueError(f"data must be one of {', '.join(DATA)}, got {data!r}.")
    network = full_name.partition(OWN_WEIGHTS)[0]
    make = _REGISTRY.get(network, _imagenet)
    if weights is None:
        return make(network, data, None)
    path = Path(weights).resolve()
    loaded = make(network, data, path)
    origin = f"{network} --data {data} --weights {shlex.quote(str(path))}"
    return replace(loaded, name=full_name, origin=origin)


def build_network(name: str) -> "nn.Module":
    """The network of a known workload, with random weights.

    Raises:
        ValueError: If the name is unknown.
        FormatError: If a package that it needs is not installed.
    """
    network = check_workload_name(name).partition(OWN_WEIGHTS)[0]
    if network in _BUILDERS:
        module, _, function = _BUILDERS[network].partition(":")
        built: nn.Module = getattr(import_module(f"engine.models.{module}"), function)()
        return built
    from engine.models.imagenet import network_of

    return network_of(network).build()


def split_workload_file(spec: str) -> tuple[Path, str]:
    """The file and the function of FILE.py:FUNCTION.

    Raises:
        ValueError: If it has no such form.
        FormatError: If there is no such file.
    """
    path, _, function = spec.rpartition(":")
    if not path or not function:
        raise ValueError(f"workload file must be given as FILE.py:FUNCTION, got {spec!r}.")
    file = Path(path)
    if file.suffix != ".py" or not file.is_file():
        raise FormatError(f"{path} must be a Python file with {function}(), but is none.")
    return file, function


def load_workload_file(spec: str) -> Workload:
    """Load the user's own workload: `my.py:make_workload`, a function that returns a Workload.

    The file is run as Python, with the rights of whoever asks: only ever name a file of your own.

    Raises:
        ValueError: If the spec has no such form or the function returns something else.
        FormatError: If the file or the function cannot be loaded, or does not run.
    """
    path, function = split_workload_file(spec)
    file = path.resolve()
    module_spec = importlib.util.spec_from_file_location(f"workload_file_{file.stem}", file)
    assert module_spec is not None
    assert module_spec.loader is not None
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module.__name__] = module  # what the file pickles for data loading is found again
    try:
        module_spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # whatever the user's code raises
        raise FormatError(f"{path} must run as Python, but {error!r}.") from error
    if not hasattr(module, function):
        raise FormatError(f"{path} must define {function}(), but does not.")
    try:
        workload = getattr(module, function)()
    except (Exception, SystemExit) as error:  # likewise
        raise FormatError(
            f"{function}() of {path} must return an engine.Workload, but {error!r}."
        ) from error
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
            whole = target.numpy().tobytes() if hasattr(target, "numpy") else repr(target).encode()
            digest.update(image.numpy().tobytes() + whole)
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


def _made(
    name: str, data: str, model: "nn.Module", parts: "tuple[Dataset[Any], ...]", **task: Any
) -> Workload:
    """A known workload; its parts are the images to calibrate with, to train on, to measure on."""
    calibration, train, test = parts
    origin = f"{name} --data {data}"
    return Workload(name, model.eval(), calibration, train, test, origin=origin, **task)


def _cifar10(name: str, data: str, weights: Path | None) -> Workload:
    from engine.datasets.cifar10 import full_cifar10, sample_cifar10
    from engine.datasets.images import AugmentedImages
    from engine.weights import load_weights

    train, test = sample_cifar10() if data == "sample" else full_cifar10()
    model = build_network(name)
    load_weights(model, weights or SAMPLE_MODELS / f"{name}.safetensors")
    return _made(name, data, model, (train, AugmentedImages(train), test))


def _shapes(name: str, data: str, weights: Path | None) -> Workload:
    from engine.datasets.shapes import TurnedShapes, shapes_of
    from engine.detection import DetectionLoss
    from engine.models.retinanet import SHAPES_ANCHORS
    from engine.weights import load_weights

    train, test = shapes_of(data)
    model = build_network(name)
    load_weights(model, weights or SAMPLE_MODELS / f"{name}.safetensors")
    loss, parts = DetectionLoss(SHAPES_ANCHORS), (train, TurnedShapes(train), test)
    return _made(name, data, model, parts, loss=loss, metric="mAP")


def _coco(name: str, data: str, weights: Path | None) -> Workload:
    from torchvision.models.detection import RetinaNet_ResNet50_FPN_Weights

    from engine.datasets.coco import full_coco, sample_coco
    from engine.detection import DetectionLoss
    from engine.models.retinanet import COCO_ANCHORS, published_name
    from engine.weights import load_weights, weights_file

    parts: tuple[Dataset[Any], ...] = ()
    if data == "full":  # before weights are fetched, for the folder may be missing
        parts = full_coco()
    model, loss = build_network(name), DetectionLoss(COCO_ANCHORS)
    url = RetinaNet_ResNet50_FPN_Weights.COCO_V1.url
    path = weights or weights_file(name, "torchvision's retinanet_resnet50_fpn", url)
    load_weights(model, path, renamed=published_name)
    model.eval()
    if not parts:
        calibration, test = sample_coco(lambda images: loss.detections(model(images)))
        parts = calibration, calibration, test
    return _made(name, data, model, parts, loss=loss, metric="mAP")


def _imagenet(name: str, data: str, weights: Path | None) -> Workload:
    from engine.datasets.imagenet import full_imagenet, sample_imagenet
    from engine.models.imagenet import network_of
    from engine.weights import load_weights, weights_file

    network = network_of(name)
    parts: tuple[Dataset[Any], ...] = ()
    if data == "full":  # before weights are fetched, for the folder may be missing
        parts = full_imagenet(network.preprocessing)
    model = build_network(name)
    if weights is None:
        found = network.file() if network.file else weights_file(name, network.fits, network.url)
        weights = Path(found)
    load_weights(model, weights, ignored=network.ignored)
    model.eval()
    if not parts:
        calibration, test = sample_imagenet(model, network.preprocessing)
        parts = calibration, calibration, test
    return _made(name, data, model, parts)


_BUILDERS = {  # in `engine.models`; the others are in its table of ImageNet networks
    "resnet20-cifar10": "resnet_cifar:resnet20",
    "squeezenext-cifar10": "squeezenext:squeezenext_cifar",
    "inception-cifar10": "inception_cifar:inception_cifar",
    "retinanet-shapes": "retinanet:retinanet_shapes",
    "retinanet-resnet50-coco": "retinanet:retinanet_resnet50",
}
_REGISTRY: dict[str, Callable[[str, str, Path | None], Workload]] = {
    "resnet20-cifar10": _cifar10,
    "squeezenext-cifar10": _cifar10,
    "inception-cifar10": _cifar10,
    "retinanet-shapes": _shapes,
    "efficientnet-lite0-imagenet": _imagenet,
    "resnet50-imagenet": _imagenet,
    "inception-v3-imagenet": _imagenet,
    "squeezenext-imagenet": _imagenet,
    "retinanet-resnet50-coco": _coco,
}
