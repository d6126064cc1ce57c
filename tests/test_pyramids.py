"""A feature pyramid: layers that its levels share, sums of sums, and images enlarged on the way."""

from collections import OrderedDict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import TensorDataset
from torchvision.ops import Conv2dNormActivation, FeaturePyramidNetwork

from engine.activations import Activations, Site, find_activations
from engine.layers import find_layers, fold_batch_norm
from engine.placements import OPERANDS
from engine.quantized import quantize
from engine.results import BitPlan
from engine.workloads import Workload

aten = torch.ops.aten
WIDTHS = (4, 5, 6)


class Pyramid(nn.Module):
    """Three levels of torchvision's pyramid, and a head with an in-place rectifier on all three."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(before, width, 3, 2, 1), nn.BatchNorm2d(width), nn.ReLU())
            for before, width in zip((3, *WIDTHS), WIDTHS, strict=False)
        )
        self.fpn = FeaturePyramidNetwork(list(WIDTHS), 4)
        self.tower = Conv2dNormActivation(4, 4, norm_layer=None)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        features = OrderedDict()
        for i, stage in enumerate(self.stages):
            features[str(i)] = x = stage(x)
        levels = self.fpn(features).values()
        return torch.cat([self.last(self.tower(x)).flatten(1) for x in levels], 1)


@pytest.fixture(scope="module")
def workload() -> Workload:
    torch.manual_seed(0)
    model = Pyramid()
    images = torch.randn(48, 3, 16, 16)
    for _ in range(5):
        model(images)
    data = TensorDataset(images, torch.zeros(48, 168))
    return Workload("pyramid", model.eval(), data, data, data, loss="mse")


def found_in(workload: Workload) -> Activations:
    return find_activations(workload.model, workload.test[0][0][None])


def test_levels_share_the_heads_inputs_and_nothing_is_skipped(workload):
    layers = {layer.name: layer for layer in find_layers(workload.model, torch.zeros(1, 3, 16, 16))}
    assert (layers["tower.0"].calls, layers["last"].calls) == (3, 3)
    found = found_in(workload)
    assert found.skipped == {}
    by_name = {a.name: a for a in found.found}
    elements = 4 * (8**2 + 4**2 + 2**2)
    assert (by_name["tower.0"].elements, by_name["last"].elements) == (elements, elements)
    assert len(by_name["tower.0"].sites) == 3
    read = {name for a in found.found for name in a.readers}
    assert read == layers.keys()


def test_sums_of_sums_are_on_one_scale(workload):
    adds = [one for one in found_in(workload).sums if one.kind == "add"]
    first, second = (Site(f"fpn.inner_blocks.{i}", "output", 0) for i in (1, 0))
    coarsest = "fpn.layer_blocks.2.0"  # reads what is enlarged for the first sum
    assert [one.operands for one in adds] == [(first, coarsest), (second, first, coarsest)]
    assert all(one.complete for one in adds)


class Adds(TorchDispatchMode):
    """Notes what is added."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[Tensor, Tensor]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.overloadpacket in (aten.add, aten.add_) and isinstance(args[1], Tensor):
            self.seen.append((args[0].clone(), args[1].clone()))
        return func(*args, **(kwargs or {}))


def test_integer_sums_add_multiples_of_one_scale(workload):
    layers = find_layers(workload.model, workload.test[0][0][None])
    activations = {a.name: 6 for a in found_in(workload).found}
    plan = BitPlan("pyramid", {x.name: 8 for x in layers}, 0, 0, activation_bits=activations)
    model = quantize(workload, plan, sums="integer")
    operands = next(m for name, m in model.named_modules() if name.endswith(OPERANDS))
    scale = operands[0].scale
    with torch.no_grad(), Adds() as adds:
        model(workload.test.tensors[0])
    pairs = [pair for pair in adds.seen if pair[0].shape == pair[1].shape]  # not zero points
    assert [tuple(one.shape[2:]) for one, _ in pairs] == [(4, 4), (8, 8)]
    for pair in pairs:
        for added in pair:
            codes = added / scale
            torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-3)
    folded = fold_batch_norm(workload.model, workload.test[0][0][None])
    images = workload.test.tensors[0]
    apart = (model(images) - folded(images)).norm() / folded(images).norm()
    assert apart < 0.1
