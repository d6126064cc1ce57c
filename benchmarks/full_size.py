"""The paper's networks at full size, untrained, on 64 images: what `analyze.py` beside this times.

Weights are drawn at random. Ten forward passes re-estimate the batch norms, without which an
untrained network's answers saturate and every trace is zero.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from torchvision.models import resnet50

from engine import Workload
from engine.datasets.cifar10 import sample_cifar10
from engine.datasets.shapes import SIDE, shapes_of
from engine.detection import DetectionLoss
from engine.models.imagenet import NETWORKS
from engine.models.retinanet import COCO_ANCHORS, COCO_SIDE, retinanet_resnet50

IMAGES = 64
PASSES, SEEN = 10, 8  # forward passes, images in each


def resnet50_224() -> Workload:
    """ResNet50 on enlarged pictures of CIFAR-10."""
    return _classifier("resnet50, 224²", resnet50, 224)


def inception_v3_299() -> Workload:
    """Inception-V3 without its auxiliary head, likewise."""
    return _classifier("inception_v3, 299²", NETWORKS["inception-v3-imagenet"].build, 299)


def retinanet_320() -> Workload:
    """RetinaNet with ResNet50 and COCO's 91 classes on enlarged pictures of shapes."""
    torch.manual_seed(0)
    pictures, scale = shapes_of("sample")[0], COCO_SIDE / SIDE
    pairs = [pictures[i] for i in range(IMAGES)]
    images, targets = (torch.stack(x) for x in zip(*pairs, strict=True))
    images = F.interpolate(images, size=(COCO_SIDE, COCO_SIDE), mode="bilinear")
    targets[..., 1:] *= scale
    loss = DetectionLoss(COCO_ANCHORS)
    return _workload("retinanet, 320²", retinanet_resnet50(), images, targets, loss, "mAP")


def _classifier(name: str, build: type[nn.Module], side: int) -> Workload:
    torch.manual_seed(0)
    pictures = sample_cifar10()[0]
    images = pictures.normalized(pictures.images[:IMAGES])
    images = F.interpolate(images, size=(side, side), mode="bilinear")
    labels = torch.randint(0, 1000, (IMAGES,))
    return _workload(name, build(), images, labels, "cross_entropy", "top-1")


def _workload(
    name: str,
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: "str | DetectionLoss",
    metric: str,
) -> Workload:
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # averages over all passes
    with torch.no_grad():
        for i in range(PASSES):
            first = i * SEEN % IMAGES
            model.train()(images[first : first + SEEN])
    data = TensorDataset(images, targets)
    return Workload(name, model.eval(), data, data, data, loss, metric)
