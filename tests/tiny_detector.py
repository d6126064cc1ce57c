"""A detector of two pyramid levels that share a head, small enough for dense Hessians."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from engine.detection import Anchors, DetectionLoss
from engine.workloads import Workload

SIDE, CLASSES, BOXES = 16, 2, 2
ANCHORS = Anchors(sizes=((7.0,), (12.0,)), strides=(4, 8), height=SIDE, width=SIDE)


class TinyDetector(nn.Module):
    """Maps images [N, 3, 16, 16] to [N, 60 anchors, 2 classes + 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 5, 5, 4, 2, bias=False), nn.BatchNorm2d(5)
        self.down, self.lateral = nn.Conv2d(5, 4, 3, 2, 1), nn.Conv2d(5, 4, 1)
        self.tower, self.rectifier = nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(inplace=True)
        self.kinds, self.places = nn.Conv2d(4, 3 * CLASSES, 1), nn.Conv2d(4, 3 * 4, 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = F.relu(self.norm(self.stem(images)))
        coarse = self.down(fine)
        fine = self.lateral(fine) + F.interpolate(coarse, size=fine.shape[-2:], mode="nearest")
        return torch.cat([self.level(fine), self.level(coarse)], 1)

    def level(self, x: Tensor) -> Tensor:
        """What the head says of one level, [N, anchors, classes + 4]."""
        x = self.rectifier(self.tower(x))
        parts = [(self.kinds(x), CLASSES), (self.places(x), 4)]
        rows = [y.unflatten(1, (3, k)).permute(0, 3, 4, 1, 2).flatten(1, 3) for y, k in parts]
        return torch.cat(rows, -1)


def tiny_detector() -> TinyDetector:
    """A detector at random, of outputs so large that its loss is not convex in them."""
    torch.manual_seed(4)
    model = TinyDetector()
    with torch.no_grad():
        model.kinds.weight.mul_(30)
        for _ in range(10):
            model(torch.randn(32, 3, SIDE, SIDE))
    return model.eval()


def squares(count: int, seed: int) -> TensorDataset:
    """Noise with one or two bright squares, those of each class in a channel of its own."""
    generator = torch.Generator().manual_seed(seed)
    images = 0.3 * torch.randn(count, 3, SIDE, SIDE, generator=generator)
    targets = torch.zeros(count, BOXES, 5)
    targets[..., 0] = -1
    for image, rows in zip(images, targets, strict=True):
        for row in rows[: int(torch.randint(1, BOXES + 1, (), generator=generator))]:
            kind, side, left, top = (
                int(torch.randint(least, most, (), generator=generator))
                for least, most in ((0, CLASSES), (5, 10), (0, SIDE - 9), (0, SIDE - 9))
            )
            image[kind, top : top + side, left : left + side] += 1.5
            row.copy_(torch.tensor([kind, left, top, left + side, top + side]))
    return TensorDataset(images, targets)


def detection_workload(model: nn.Module, counts: Sequence[int] = (96, 160, 80)) -> Workload:
    """The workload of a detector; counts are of calibration, training and test images."""
    calibration, train, test = (squares(count, seed) for seed, count in enumerate(counts))
    loss = DetectionLoss(ANCHORS)
    return Workload("squares", model, calibration, train, test, loss=loss, metric="mAP")


def trained_detector(epochs: int = 20) -> TinyDetector:
    """The same after some training: it finds many squares, not all."""
    model, data, loss = tiny_detector(), squares(320, 9), DetectionLoss(ANCHORS)
    with torch.no_grad():
        model.kinds.weight.div_(30)
        model.kinds.bias.fill_(-3)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    generator = torch.Generator().manual_seed(0)
    for _ in range(epochs):
        for part in torch.randperm(len(data), generator=generator).split(32):
            images, targets = data[part]
            optimizer.zero_grad()
            loss(model(images), targets).backward()
            optimizer.step()
    return model.eval()
