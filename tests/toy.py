"""A workload of made-up images around a network of a test's own."""

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from engine.workloads import Workload

SIDE = 6  # of the images, with two channels


def toy_workload(make: type[nn.Module], *, images: int, shift: float = 0.0) -> Workload:
    """Make a network whose batch norms have seen a few images, and data of three classes."""
    torch.manual_seed(0)
    model = make()
    for _ in range(5):
        model(torch.randn(16, 2, SIDE, SIDE))
    data = TensorDataset(torch.randn(images, 2, SIDE, SIDE) + shift, torch.arange(images) % 3)
    return Workload("toy", model.eval(), data, data, data)


class Bent(nn.Linear):
    """A layer whose output is not linear in its weight."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).tanh()
