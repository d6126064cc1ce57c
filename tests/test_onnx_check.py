"""What ONNX Runtime makes of an exported file: metric, differences, kernels."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from engine.analysis import Analysis
from engine.evaluation import evaluate
from engine.onnx_check import PROVIDERS, check_onnx, session_options
from engine.onnx_export import export_onnx
from engine.quantized import quantize
from engine.results import BitPlan, FormatError, OnnxCheck, OnnxExport
from engine.workloads import Workload, load_workload, stored_analysis

NAME = "resnet20-cifar10"
IMAGES = 200


@pytest.fixture(scope="module")
def workload() -> Workload:
    return load_workload(NAME)


def exported(
    workload: Workload, folder: Path, weight_bits: int, activation_bits: int, sums: str
) -> tuple[Path, nn.Module, OnnxExport]:
    """ResNet20 of one bit width, its first and last layer of eight bits, and its file."""
    analysis = Analysis.load(stored_analysis(NAME))
    names = [layer.name for layer in analysis.layers]
    bits = dict.fromkeys(names, weight_bits) | {names[0]: 8, names[-1]: 8}
    activations = {x.name: activation_bits for x in analysis.activations if activation_bits}
    plan = BitPlan(NAME, bits, 0.0, 0.0, activation_bits=activations)
    model = quantize(workload, plan, sums=sums)
    path = folder / "net.onnx"
    return path, model, export_onnx(model, path, workload.test[0][0][None])


@pytest.mark.parametrize(
    ("weight_bits", "activation_bits", "sums", "convolutions"),
    [(8, 8, "integer", 21), (8, 8, "float", 10), (4, 8, "integer", 1), (8, 0, "float", 0)],
)
def test_resnet20_is_as_good_in_onnx_runtime(
    workload, tmp_path, weight_bits, activation_bits, sums, convolutions
):
    made = exported(workload, tmp_path, weight_bits, activation_bits, sums)
    path, model, export = made
    check = check_onnx(path, model, workload, export, max_images=IMAGES)
    assert check.pytorch.value == evaluate(model, workload, max_images=IMAGES).value
    assert check.onnx is not None
    assert check.onnx.value == pytest.approx(check.pytorch.value, abs=0.02)
    assert check.onnx.samples == IMAGES
    integer = [name for name, kernel in check.runs_as.items() if kernel == "integer kernel"]
    assert len(integer) == convolutions
    assert check.integer_share == convolutions / 22
    assert set(check.runs_as) == set(model.plan.weight_bits)
    assert (check.refused, check.exact_sums) == ("", True)
    assert OnnxCheck.from_json(json.loads(json.dumps(check.to_json()))) == check
    if not activation_bits:
        assert check.largest_difference < 1e-3


def test_a_detector_with_shared_heads_runs(tmp_path):
    name = "retinanet-shapes"
    detector, analysis = load_workload(name), Analysis.load(stored_analysis(name))
    eight = {x.name: 8 for x in analysis.activations}
    plan = replace(analysis.uniform(8), activation_bits=eight)
    model = quantize(detector, plan, sums="integer")
    path = tmp_path / "net.onnx"
    export = export_onnx(model, path, detector.test[0][0][None])
    check = check_onnx(path, model, detector, export, max_images=8)
    assert check.onnx.value == pytest.approx(check.pytorch.value, abs=0.05)
    assert check.integer_share > 0.9
    assert not check.exact_sums  # its heads read the same weights at every level


def test_largest_difference_is_that_of_the_outputs(workload, tmp_path):
    path, model, export = exported(workload, tmp_path, 8, 8, "integer")
    check = check_onnx(path, model, workload, export, max_images=20, batch_size=7)
    images = torch.stack([workload.test[i][0] for i in range(20)])
    session = onnxruntime.InferenceSession(path, session_options(), providers=PROVIDERS)
    apart = session.run(None, {"images": images.numpy()})[0] - model(images).detach().numpy()
    assert check.largest_difference == pytest.approx(float(np.abs(apart).max()), abs=1e-4)


def test_a_file_that_onnx_runtime_refuses_says_so_of_every_layer(workload, tmp_path):
    path, model, export = exported(workload, tmp_path, 8, 8, "float")
    file = onnx.load(path)
    file.graph.node[0].domain = "nobody"
    file.opset_import.append(onnx.helper.make_opsetid("nobody", 1))
    onnx.save(file, path)
    check = check_onnx(path, model, workload, export, max_images=20)
    assert (check.onnx, check.largest_difference) == (None, None)
    assert set(check.runs_as.values()) == {"not supported"}
    assert "nobody" in check.refused
    assert OnnxCheck.from_json(json.loads(json.dumps(check.to_json()))) == check


@pytest.mark.parametrize("content", [None, b"", b"no ONNX"])
def test_what_is_no_onnx_file_is_named(workload, tmp_path, content):
    path = tmp_path / "net.onnx"
    if content is not None:
        path.write_bytes(content)
    message = (
        f"^{re.escape(str(path))} must be an ONNX file, but ONNX Runtime cannot read it: .+[.]$"
    )
    with pytest.raises(FormatError, match=message):
        check_onnx(path, workload.model, workload, OnnxExport(21, 0, ()), max_images=2)


class Faint(nn.Module):
    """One channel whose weights are next to nothing beside its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 10, 1)
        with torch.no_grad():
            self.first.weight[0] *= 1e-12
            self.first.bias[0] = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu()).mean((2, 3))


def test_a_bias_far_above_its_weights_is_kept_by_integer_kernels(workload, tmp_path):
    torch.manual_seed(0)
    faint = Workload("faint", Faint().eval(), workload.calibration, workload.train, workload.test)
    bits = {"first": 8, "second": 8}
    model = quantize(faint, BitPlan("faint", bits, 0.0, 0.0, activation_bits=bits))
    path = tmp_path / "net.onnx"
    export = export_onnx(model, path, workload.test[0][0][None])
    check = check_onnx(path, model, faint, export, max_images=50)
    assert check.runs_as["first"] == "integer kernel"
    assert check.largest_difference < 0.02
