"""A small network with a residual sum and branches, whose activations can be set from outside."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# activation → the layers that read it, as they are called
READERS = {
    "stem": ("stem",),
    "first": ("first",),
    "second": ("second",),
    "left": ("left", "right"),
    "pooled": ("pooled",),
    "head": ("head",),
}


class Branching(nn.Module):
    """Shared inputs, an identity shortcut, a concatenation, and rectifiers without a module."""

    def __init__(self, outputs: int, bend: type[nn.Module] = nn.ReLU) -> None:
        super().__init__()
        self.stem, self.bend = nn.Conv2d(2, 3, 3, padding=1), bend()
        self.first, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 3, 1)
        self.left, self.right = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 2, 3, padding=1)
        self.pooled = nn.Conv2d(3, 2, 1)
        self.head = nn.Linear(6, outputs)

    def forward(self, x: Tensor, given: Mapping[str, Tensor] | None = None) -> Tensor:
        """Map [N, 2, 4, 4] to [N, outputs]; a given activation takes the place of its own."""
        given = given or {}
        x = given.get("stem", x)
        a = given.get("first", self.bend(self.stem(x)))
        b = given.get("second", self.bend(self.norm(self.first(a))))
        c = given.get("left", self.bend(self.second(b) + a))
        d = given.get("pooled", F.max_pool2d(c, 2))
        e = torch.cat([self.left(c), F.relu(self.right(c)), self.pooled(d).repeat(1, 1, 2, 2)], 1)
        return self.head(given.get("head", F.adaptive_avg_pool2d(e, 1).flatten(1)))

    def activations(self, x: Tensor) -> dict[str, Tensor]:
        """What each activation is for these images."""
        seen: dict[str, Tensor] = {}

        class Noting(dict[str, Tensor]):
            def get(self, name: str, own: Tensor) -> Tensor:  # type: ignore[override]
                seen[name] = own
                return own

        noting = Noting(some=x)
        self(x, noting)
        return seen


def branching(outputs: int, bend: type[nn.Module] = nn.ReLU) -> Branching:
    torch.manual_seed(3)
    net = Branching(outputs, bend)
    for _ in range(10):
        net(torch.randn(16, 2, 4, 4))
    return net.eval()
