"""RetinaNet: Lin et al., "Focal Loss for Dense Object Detection", 2017.

A backbone with a feature pyramid, and two heads that every level of the pyramid shares. The network
ends at the heads' raw outputs: which anchor means which box is `engine.detection`'s.
"""

import re
from collections import OrderedDict
from functools import partial

import torch
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

from engine.detection import Anchors
from engine.models.resnet_cifar import BasicBlock

ANCHORS_A_PLACE = 9  # three sizes in three shapes
SHAPES_ANCHORS = Anchors.of((8, 16, 32), height=128, width=128, size=2.0)
COCO_STRIDES = (8, 16, 32, 64, 128)
COCO_CLASSES = 91  # COCO's 80, at their numbers from 1 to 90, between some that were left out
COCO_SIDE = 320  # pixels of an image
COCO_ANCHORS = Anchors(  # torchvision's, which are cut to whole pixels
    tuple(tuple(int(4 * s * 2 ** (third / 3)) for third in range(3)) for s in COCO_STRIDES),
    COCO_STRIDES,
    height=COCO_SIDE,
    width=COCO_SIDE,
)
PYRAMID = 256  # channels
SMALL_CHANNELS = (32, 64, 128, 128)  # of the small backbone's stages
SMALL_PYRAMID = 48  # channels of its pyramid


class RetinaNet(nn.Module):
    """A detector without its anchors.

    Args:
        backbone: Maps images to a dictionary of features, the finest level first.
        head: Maps a list of features to "cls_logits" and "bbox_regression".
    """

    def __init__(self, backbone: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, images: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to [N, anchors, classes + 4]: logits, then box coordinates."""
        outputs = self.head(list(self.backbone(images).values()))
        return torch.cat([outputs["cls_logits"], outputs["bbox_regression"]], -1)


class SmallBackbone(nn.Module):
    """A residual network of 17 convolutions with stages at 1/4, 1/8, 1/16 and 1/32 of the image."""

    def __init__(self) -> None:
        super().__init__()
        first = SMALL_CHANNELS[0]
        self.conv1 = nn.Conv2d(3, first, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = self._stage(first, first, 1)
        self.layer2 = self._stage(first, SMALL_CHANNELS[1], 2)
        self.layer3 = self._stage(SMALL_CHANNELS[1], SMALL_CHANNELS[2], 2)
        self.layer4 = self._stage(SMALL_CHANNELS[2], SMALL_CHANNELS[3], 2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
        return nn.Sequential(
            BasicBlock(in_channels, out_channels, stride), BasicBlock(out_channels, out_channels, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W] to [N, 128, H / 32, W / 32]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))


def retinanet_shapes(classes: int = 6) -> RetinaNet:
    """Build a small RetinaNet for images of 128×128, with pyramid levels at 1/8, 1/16 and 1/32."""
    backbone = OrderedDict(
        body=IntermediateLayerGetter(SmallBackbone(), {f"layer{i}": str(i - 2) for i in (2, 3, 4)}),
        fpn=FeaturePyramidNetwork(list(SMALL_CHANNELS[1:]), SMALL_PYRAMID),
    )
    head = RetinaNetHead(SMALL_PYRAMID, ANCHORS_A_PLACE, classes)
    return RetinaNet(nn.Sequential(backbone), head)


def retinanet_resnet50(classes: int = COCO_CLASSES) -> RetinaNet:
    """Build the network of torchvision's `retinanet_resnet50_fpn`; its weights have the same names.

    Its batch norms are frozen, and their ε is 0 once COCO's weights are loaded. Here they are plain
    ones, which compute the same in eval mode and fold into the layers before them. Their ε is the
    least number there is, which changes no sum: a training pass takes no 0.
    """
    backbone = BackboneWithFPN(
        resnet50(norm_layer=partial(nn.BatchNorm2d, eps=torch.finfo(torch.float32).tiny)),
        {f"layer{i}": str(i - 2) for i in (2, 3, 4)},
        [512, 1024, 2048],
        PYRAMID,
        extra_blocks=LastLevelP6P7(PYRAMID, PYRAMID),
    )
    return RetinaNet(backbone, RetinaNetHead(PYRAMID, ANCHORS_A_PLACE, classes))


def published_name(name: str) -> str:
    """Where a weight of torchvision's published file belongs.

    The file was written when a head was convolutions and ReLUs in turn; by now each pair is one.
    """
    return re.sub(
        r"(_head\.conv)\.([0246])\.(weight|bias)$",
        lambda found: f"{found[1]}.{int(found[2]) // 2}.0.{found[3]}",
        name,
    )
