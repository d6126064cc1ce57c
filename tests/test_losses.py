"""What is told of losses that are no mean over images."""

import re

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from engine.losses import check_loss_is_mean

OUTPUTS, TARGETS = (
    torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
    torch.arange(4) % 3,
)


def total(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets, reduction="sum")


def test_means_are_taken():
    check_loss_is_mean(F.cross_entropy, OUTPUTS, TARGETS)
    check_loss_is_mean(F.mse_loss, OUTPUTS, OUTPUTS + 1)


def test_targets_may_be_several_tensors():
    def loss(outputs, targets):
        return F.cross_entropy(outputs, targets["class"]) + targets["weight"].mean()

    check_loss_is_mean(loss, OUTPUTS, {"class": TARGETS, "weight": torch.ones(4)})


def test_a_sum_is_told():
    once = float(total(OUTPUTS, TARGETS))
    text = (
        f"loss must be a mean over images, got a sum ({once:.4g} for 4 images, {2 * once:.4g} "
        "where each comes twice): divide by the number of images."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        check_loss_is_mean(total, OUTPUTS, TARGETS)


def test_what_else_grows_with_the_batch_is_told():
    def root(outputs, targets):
        return total(outputs, targets) / len(outputs) ** 0.5

    once = float(root(OUTPUTS, TARGETS))
    text = (
        f"loss must be a mean over images, got {once:.4g} for 4 images and {once * 2**0.5:.4g} "
        "where each comes twice: average the losses of the single images."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        check_loss_is_mean(root, OUTPUTS, TARGETS)


@pytest.mark.parametrize(
    ("value", "got"), [(torch.ones(4), "shape [4]"), (1.5, "float"), (torch.ones(0), "shape [0]")]
)
def test_what_is_not_one_number_is_told(value, got):
    text = f"loss must be one number, the mean over images, got {got}: return its mean."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        check_loss_is_mean(lambda *_: value, OUTPUTS, TARGETS)
