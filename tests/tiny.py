"""A workload file as a user might write one: a network of 63 weights on made-up images."""

TINY = """
import torch
from torch.utils.data import TensorDataset
from engine.workloads import Workload

def make():
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 3, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(12, 3)
    )
    images, labels = torch.randn(64, 1, 4, 4), torch.arange(64) % 3
    data = TensorDataset(images, labels)
    return Workload(name="tiny", model=model.eval(), calibration=data, train=data, test=data)
"""
