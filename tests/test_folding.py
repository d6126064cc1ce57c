"""A folded network is refused for what it computes, not for how float32 rounds it."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import FrozenBatchNorm2d

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


class Detector(nn.Module):
    """A frozen norm after a layer, and one after none."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 3, bias=False), FrozenBatchNorm2d(4, eps=1e-3)
        self.again, self.after_none = nn.Conv2d(4, 4, 1), FrozenBatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        return self.again(self.after_none(torch.relu(self.norm(self.first(x)))))


def test_frozen_batch_norms_are_folded_and_the_others_stay_frozen():
    torch.manual_seed(0)
    model, images = Detector().eval(), torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        for norm in (model.norm, model.after_none):
            norm.weight.uniform_(0.5, 2), norm.bias.normal_()
            norm.running_mean.normal_(), norm.running_var.uniform_(0.5, 2)
    before = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model, images)
    assert isinstance(folded.norm, nn.Identity)
    assert isinstance(folded.after_none, FrozenBatchNorm2d)
    factor = before["norm.weight"] * (before["norm.running_var"] + 1e-3).rsqrt()
    expected = before["first.weight"] * factor[:, None, None, None]
    assert torch.allclose(folded.first.weight, expected, rtol=1e-6)
    assert torch.allclose(folded(images), model(images), atol=1e-5)
    assert isinstance(model.norm, FrozenBatchNorm2d)
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
