"""A folded network is refused for what it computes, not for how float32 rounds it."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.layers import FOLDING_TOLERANCE, fold_batch_norm


class Shaky(nn.Module):
    """Enlarges so much before a sine that the last digits of float32 decide."""

    def __init__(self, more: Callable[[nn.Module, Tensor], Tensor] = lambda _, x: x) -> None:
        super().__init__()
        self.conv, self.norm, self.more = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3), more

    def forward(self, x: Tensor) -> Tensor:
        return self.more(self, torch.sin(1e5 * self.norm(self.conv(x))))


def settled(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(10):
            model.train()(2 * torch.randn(8, 3, 4, 4) + 1)
    return model.eval()


def test_what_rounding_alone_changes_is_no_reason_to_refuse():
    model = settled(Shaky())
    images = torch.randn(2, 3, 4, 4)
    folded = fold_batch_norm(model, images)
    assert isinstance(folded.norm, nn.Identity)
    with torch.no_grad():
        expected, got = model(images), folded(images)
    error = (got - expected).abs().max()
    assert error > FOLDING_TOLERANCE * max(float(expected.abs().max()), 1.0)
    exact = fold_batch_norm(model.double(), images.double())
    torch.testing.assert_close(folded.conv.weight, exact.conv.weight.float())


@pytest.mark.parametrize(
    "more",
    [
        lambda self, x: x + self.conv.weight.sum(),  # wrong in float64 too
        lambda _, x: F.linear(x, torch.eye(2)),  # float64 cannot be asked
    ],
)
def test_what_float64_does_not_excuse_is_refused(more):
    model = settled(Shaky(more))
    with pytest.raises(ValueError, match=r"norms folded, got outputs \S+ of the largest apart: "):
        fold_batch_norm(model, torch.randn(2, 3, 4, 4))
