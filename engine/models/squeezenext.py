"""SqueezeNext: Gholami et al., "SqueezeNext: Hardware-Aware Neural Network Design", 2018.

Every convolution is followed by a batch norm and a rectifier. A block squeezes its channels in two
steps with 1×1 convolutions, sees space through a 1×3 and a 3×1 convolution in place of a 3×3, and
widens again (sec. 2); the shortcut around it is a 1×1 projection where the shape changes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

BLOCKS = (6, 6, 8, 1)  # of the four stages of SqNxt-23
SMALL_BLOCKS, SMALL_STEM = (1, 2, 3, 1), 32  # for images of 32×32
CHANNELS = (32, 64, 128, 256)  # of these stages, at width 1
STEM, HEAD = 64, 128  # channels before the first stage and after the last, at width 1


def _convolution(
    in_channels: int, out_channels: int, size: tuple[int, int] = (1, 1), stride: int = 1
) -> nn.Sequential:
    """A convolution that keeps the image's size but for the stride, its norm and its rectifier."""
    padding = (size[0] // 2, size[1] // 2)
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, size, stride, padding, bias=False),
        nn.BatchNorm2d(out_channels),
        nn.ReLU(),
    )


class SqueezeNextBlock(nn.Module):
    """Five convolutions, 1×1, 1×1, 1×3, 3×1 and 1×1, and a shortcut around them.

    The first gives half as many channels as come in; a quarter where the block gives fewer than
    come in, and as many where it halves the image. The second halves them once more.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        squeezed = in_channels // 2
        if stride > 1:
            squeezed = in_channels
        elif in_channels > out_channels:
            squeezed = in_channels // 4
        self.squeeze1 = _convolution(in_channels, squeezed, stride=stride)
        self.squeeze2 = _convolution(squeezed, squeezed // 2)
        self.row = _convolution(squeezed // 2, squeezed, (1, 3))
        self.column = _convolution(squeezed, squeezed, (3, 1))
        self.expand = _convolution(squeezed, out_channels)
        self.shortcut = nn.Sequential()
        if stride > 1 or in_channels != out_channels:
            self.shortcut = _convolution(in_channels, out_channels, stride=stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, in_channels, H, W] to [N, out_channels, H / stride, W / stride]."""
        out = self.column(self.row(self.squeeze2(self.squeeze1(x))))
        return self.relu(self.expand(out) + self.shortcut(x))


class SqueezeNext(nn.Module):
    """SqNxt-23: 21 blocks in four stages, the last three of which halve the image first.

    Args:
        width: Of all channels, 1 or 2.
        classes: Number of outputs.
        blocks: Of each stage.
        small_images: Whether to begin at the image's own size, with a 3×3 convolution, as images of
            32×32 need; else at a quarter of it, with a 7×7 convolution and a pooling.
    """

    def __init__(
        self,
        width: int = 1,
        classes: int = 1000,
        blocks: Sequence[int] = BLOCKS,
        small_images: bool = False,
    ) -> None:
        super().__init__()
        stem = SMALL_STEM if small_images else STEM
        channels = [stem * width, *(width * c for c in CHANNELS)]
        self.stem: nn.Module
        self.pool: nn.Module
        if small_images:
            self.stem, self.pool = _convolution(3, channels[0], (3, 3)), nn.Identity()
        else:
            first = nn.Conv2d(3, channels[0], 7, 2, 1, bias=False)
            self.stem = nn.Sequential(first, nn.BatchNorm2d(channels[0]), nn.ReLU())
            self.pool = nn.MaxPool2d(3, 2, ceil_mode=True)
        self.stages = nn.Sequential(
            *(
                self._stage(channels[i], channels[i + 1], count, stride=1 if i == 0 else 2)
                for i, count in enumerate(blocks)
            )
        )
        self.head = _convolution(channels[-1], HEAD * width)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(HEAD * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    @staticmethod
    def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
        first = SqueezeNextBlock(in_channels, out_channels, stride)
        return nn.Sequential(
            first, *(SqueezeNextBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))
        )

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, H, W], 224×224 as published, to logits [N, classes]."""
        out = self.head(self.stages(self.pool(self.stem(x))))
        return self.fc(torch.flatten(self.average(out), 1))


def squeezenext23(width: int = 2, classes: int = 1000) -> SqueezeNext:
    """Build SqNxt-23; at width 2, that HAWQ-V2 quantizes, 2.5 M weights in 112 layers."""
    return SqueezeNext(width, classes)


def squeezenext_cifar(classes: int = 10) -> SqueezeNext:
    """Build a SqueezeNext for images of 32×32, of fewer blocks and width 2."""
    return SqueezeNext(2, classes, blocks=SMALL_BLOCKS, small_images=True)
