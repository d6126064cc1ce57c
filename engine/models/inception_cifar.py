"""A compact Inception: Szegedy et al., "Rethinking the Inception Architecture", 2016.

The five kinds of block of Inception-V3 (fig. 5 to 7 and 10), once or twice each, at a fraction of
its channels and for images of 32×32. Every convolution is followed by a batch norm and a rectifier.
"""

import torch
from torch import Tensor, nn

WIDTH = 16  # channels of the narrowest branches


class Convolution(nn.Sequential):
    """A convolution, its norm and its rectifier; keeps the image's size but for the stride."""

    def __init__(
        self, in_channels: int, out_channels: int, size: int | tuple[int, int] = 1, stride: int = 1
    ) -> None:
        height, width = size if isinstance(size, tuple) else (size, size)
        super().__init__(
            nn.Conv2d(
                in_channels,
                out_channels,
                (height, width),
                stride,
                (height // 2, width // 2),
                bias=False,
            ),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(),
        )


class Branches(nn.Module):
    """Branches that read the same image, side by side in the channels of what they give."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to [N, the branches' channels, H, W], or half the height and width."""
        return torch.cat([branch(x) for branch in self.branches], 1)


def _pooled(in_channels: int, out_channels: int) -> nn.Sequential:
    pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return nn.Sequential(pool, Convolution(in_channels, out_channels))


def square_block(channels: int, w: int) -> Branches:
    """1×1, 5×5, two 3×3 and a pooling (fig. 5): 7 w channels."""
    return Branches(
        Convolution(channels, 2 * w),
        nn.Sequential(Convolution(channels, w), Convolution(w, 2 * w, 5)),
        nn.Sequential(
            Convolution(channels, w), Convolution(w, 2 * w, 3), Convolution(2 * w, 2 * w, 3)
        ),
        _pooled(channels, w),
    )


def asymmetric_block(channels: int, w: int) -> Branches:
    """1×1, 1×7 with 7×1, these twice and a pooling (fig. 6): 8 w channels."""
    return Branches(
        Convolution(channels, 2 * w),
        nn.Sequential(
            Convolution(channels, w),
            Convolution(w, w, (1, 7)),
            Convolution(w, 2 * w, (7, 1)),
        ),
        nn.Sequential(
            Convolution(channels, w),
            Convolution(w, w, (7, 1)),
            Convolution(w, w, (1, 7)),
            Convolution(w, w, (7, 1)),
            Convolution(w, 2 * w, (1, 7)),
        ),
        _pooled(channels, 2 * w),
    )


def split_block(channels: int, w: int) -> Branches:
    """1×1, 1×3 beside 3×1, the same after a 3×3, and a pooling (fig. 7): 14 w channels."""

    def split(in_channels: int) -> Branches:
        return Branches(
            Convolution(in_channels, 2 * w, (1, 3)), Convolution(in_channels, 2 * w, (3, 1))
        )

    return Branches(
        Convolution(channels, 4 * w),
        nn.Sequential(Convolution(channels, 2 * w), split(2 * w)),
        nn.Sequential(Convolution(channels, 2 * w), Convolution(2 * w, 2 * w, 3), split(2 * w)),
        _pooled(channels, 2 * w),
    )


def reduction_block(channels: int, w: int) -> Branches:
    """3×3, two 3×3 and a pooling, each halving the image (fig. 10): 4 w channels more."""
    return Branches(
        nn.Sequential(Convolution(channels, w), Convolution(w, 2 * w, 3, 2)),
        nn.Sequential(
            Convolution(channels, w), Convolution(w, 2 * w, 3), Convolution(2 * w, 2 * w, 3, 2)
        ),
        nn.MaxPool2d(3, 2, 1),
    )


class CifarInception(nn.Module):
    """Square blocks on 16×16, asymmetric ones on 8×8, split ones on 4×4.

    Args:
        width: Channels of the narrowest branches.
        classes: Number of outputs.
    """

    def __init__(self, width: int = WIDTH, classes: int = 10) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(Convolution(3, w, 3), Convolution(w, 2 * w, 3))
        self.reduction1 = reduction_block(2 * w, w)  # 6 w
        self.square = nn.Sequential(square_block(6 * w, w), square_block(7 * w, w))
        self.reduction2 = reduction_block(7 * w, 2 * w)  # 15 w
        self.asymmetric = nn.Sequential(
            asymmetric_block(15 * w, 2 * w), asymmetric_block(16 * w, 2 * w)
        )
        self.reduction3 = reduction_block(16 * w, 2 * w)  # 24 w
        self.split = split_block(24 * w, 2 * w)  # 28 w
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(28 * w, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Map images [N, 3, 32, 32] to logits [N, classes]."""
        out = self.square(self.reduction1(self.stem(x)))
        out = self.asymmetric(self.reduction2(out))
        out = self.split(self.reduction3(out))
        return self.fc(torch.flatten(self.pool(out), 1))


def inception_cifar(classes: int = 10) -> CifarInception:
    """Build the compact Inception for CIFAR."""
    return CifarInception(WIDTH, classes)
