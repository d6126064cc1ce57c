"""ONNX files: what ONNX Runtime makes of them is what the quantized network gives."""

import json
import re
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toy import toy_workload

from engine.onnx_export import export_onnx
from engine.quantized import quantize
from engine.results import BitPlan, OnnxExport, OnnxLayer


class Net(nn.Module):
    """A weight in each container, batch norm, a sum, and one matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.second = nn.Conv2d(4, 4, 3, padding=1)
        self.third = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.third(F.relu(self.second(x)) + x))
        return self.fc(x.mean((2, 3)))


class Up(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(2, 4, 2, groups=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(x).mean((2, 3))


class Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(72, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.fc(x.flatten(1))
        return y if y.detach().sum() > 0 else -y


BITS = {"first": 8, "second": 1, "third": 3, "fc": 5}


def made(net: type[nn.Module], bits: dict[str, int], **settings: object) -> nn.Module:
    plan = BitPlan("toy", bits, size_bytes=0.0, omega=0.0, activation_bits=settings.pop("a", {}))  # type: ignore[arg-type]
    return quantize(toy_workload(net, images=32), plan, **settings)  # type: ignore[arg-type]


def images() -> Tensor:
    return torch.randn(5, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def test_file_gives_what_the_network_gives(tmp_path: Path) -> None:
    model = made(Net, BITS, a={"first": 8, "second": 4, "third": 6})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = model(images())
    export = export_onnx(model, tmp_path / "net.onnx", images())
    assert export.layers == (
        OnnxLayer("first", 8, "INT8", "first.parametrizations.weight.0.codes"),
        OnnxLayer("second", 1, "INT4", "second.parametrizations.weight.0.codes"),
        OnnxLayer("third", 3, "INT4", "third.parametrizations.weight.0.codes"),
        OnnxLayer("fc", 5, "INT8", "fc.parametrizations.weight.0.codes"),
    )
    assert [layer.padded for layer in export.layers] == [False, True, True, True]
    assert OnnxExport.from_json(json.loads(json.dumps(export.to_json()))) == export
    options = onnxruntime.SessionOptions()  # as written: no kernel is fused, nothing is re-rounded
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx", options)
    for count in (1, 5):  # any number of images
        (outputs,) = session.run(None, {"images": images()[:count].numpy()})
        torch.testing.assert_close(torch.tensor(outputs), expected[:count], atol=1e-5, rtol=1e-5)
    assert torch.equal(model(images()), expected)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_what_no_quantize_made_is_refused(tmp_path: Path) -> None:
    message = "model must be one that quantize returned, got Net without a plan."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        export_onnx(Net(), tmp_path / "net.onnx", images())


def test_transposed_convolution_in_groups_is_refused(tmp_path: Path) -> None:
    message = (
        "weight grid of 'up' must lie along one axis, got a transposed convolution in 2 groups: "
        "quantize with one scale for the whole tensor."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        export_onnx(made(Up, {"up": 4}), tmp_path / "up.onnx", images())


def test_zero_point_between_codes_is_refused(tmp_path: Path) -> None:
    model = made(Net, BITS)
    model.first.parametrizations.weight[0].zero_point[0] = 0.25
    message = (
        "weight grid of 'first' must have a whole zero point in -128…127, got 0.25: "
        "quantize again with the symmetric scheme."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        export_onnx(model, tmp_path / "net.onnx", images())


def test_network_that_torch_cannot_export_is_refused(tmp_path: Path) -> None:
    message = "^model must be one that torch.onnx can export, got Branching: .{10,200}[.]$"
    with pytest.raises(ValueError, match=message):
        export_onnx(made(Branching, {"fc": 4}), tmp_path / "net.onnx", images())
    assert not list(tmp_path.iterdir())
