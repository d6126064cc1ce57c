"""A quantized network: every planned weight on its grid, nothing else touched, back from a file."""

import copy
import itertools
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from toy import toy_workload

from engine.layers import find_layers, fold_batch_norm
from engine.quantized import PLAN_FILE, WEIGHTS_FILE, load_quantized, quantize, save_quantized
from engine.quantizers import GRANULARITIES, RANGES, SCHEMES, Quantizer
from engine.results import BitPlan, FormatError
from engine.workloads import Workload

SETTINGS = [
    {"scheme": scheme, "weight_granularity": granularity, "weight_range": weight_range}
    for scheme, granularity, weight_range in itertools.product(SCHEMES, GRANULARITIES, RANGES)
]


class Net(nn.Module):
    """Every kind of weight: plain, grouped, transposed, shared, of another name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.up = nn.ConvTranspose2d(4, 4, 2, groups=2)  # as many rows as channels, others
        self.kernel = nn.Parameter(torch.randn(4, 4))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(F.relu(self.grouped(F.relu(self.norm(self.conv(x)))))))
        return self.fc(F.relu(x.mean((2, 3)) @ self.kernel))


LAYERS = ("conv", "grouped", "up", "kernel", "fc")


@pytest.fixture
def workload() -> Workload:
    return toy_workload(Net, images=8)


def images() -> Tensor:
    return torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def plan_of(**bits: int) -> BitPlan:
    return BitPlan("toy", bits, size_bytes=0.0, omega=0.0)


def weight_of(model: nn.Module, layer: str) -> Tensor:
    return model.kernel if layer == "kernel" else model.get_submodule(layer).weight


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings.values()))
def test_every_weight_takes_at_most_2_to_the_b_values(workload, settings):
    bits = dict(zip(LAYERS, (1, 2, 3, 4, 8), strict=True))
    model = quantize(workload, plan_of(**bits), **settings)
    folded = fold_batch_norm(workload.model, images()[:1])
    quantizer = Quantizer(*settings.values())
    for layer in find_layers(folded, images()[:1]):
        rows = layer.channels.rows(weight_of(model, layer.name))
        together = [rows.flatten()] if settings["weight_granularity"] == "tensor" else rows
        assert all(len(values.unique()) <= 2 ** bits[layer.name] for values in together)
        before = layer.channels.rows(weight_of(folded, layer.name))
        by_hand = quantizer.fit(before, bits[layer.name]).round(before)
        torch.testing.assert_close(rows, by_hand, rtol=0, atol=0)


def test_the_original_is_untouched(workload):
    before, modes = copy.deepcopy(workload.model), str(workload.model)
    workload.model.train()
    expected = workload.model.eval()(images())
    workload.model.train()
    quantize(workload, plan_of(conv=2, fc=2))
    assert workload.model.training
    assert str(workload.model) == modes
    state, old = workload.model.state_dict(), before.state_dict()
    assert list(state) == list(old)
    assert all(torch.equal(state[name], old[name]) for name in old)
    assert torch.equal(workload.model.eval()(images()), expected)


def test_layers_not_named_stay_float(workload):
    model = quantize(workload, plan_of(fc=2))
    folded = fold_batch_norm(workload.model, images()[:1])
    for name in ("conv", "grouped", "up", "kernel"):
        assert torch.equal(weight_of(model, name), weight_of(folded, name))
    assert len(model.fc.weight.unique(dim=1)[0].unique()) <= 4
    assert torch.equal(model.fc.bias, folded.fc.bias)


def test_an_empty_plan_gives_the_float_network(workload):
    model = quantize(workload, plan_of())
    assert not model.training
    torch.testing.assert_close(model(images()), workload.model(images()), rtol=1e-5, atol=1e-5)


def test_eight_bits_hardly_change_the_outputs(workload):
    expected, apart = workload.model(images()), {}
    for bits in (2, 4, 8):
        model = quantize(workload, plan_of(**dict.fromkeys(LAYERS, bits)))
        apart[bits] = (model(images()) - expected).norm().item()
    assert 4 * apart[8] < apart[4] < apart[2]
    assert apart[8] < 0.02 * expected.norm().item()


def test_the_plan_brings_its_quantizer(workload):
    settings = {"scheme": "asymmetric", "weight_granularity": "tensor", "weight_range": "min_max"}
    brought = BitPlan("toy", {"fc": 3}, 0.0, 0.0, quantizer=settings)
    given = quantize(workload, plan_of(fc=3), **settings)
    assert torch.equal(quantize(workload, brought).fc.weight, given.fc.weight)
    done = {**settings, "rounding": "nearest", "correction": "none", "activation_range": "mse"}
    done |= {"sums": "float", "calibration_images": "512", "seed": "0"}
    assert given.plan == replace(brought, quantizer=done)
    other = quantize(workload, brought, weight_range="mse")
    assert other.plan.quantizer == {**done, "weight_range": "mse"}
    assert not torch.equal(other.fc.weight, given.fc.weight)


def test_gradients_stay_possible_with_respect_to_the_bias(workload):
    model = quantize(workload, plan_of(fc=4))
    model(images()).sum().backward()
    assert model.fc.bias.grad is not None


def test_modules_that_share_a_weight_share_its_grid(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    data = TensorDataset(torch.randn(3, 4), torch.arange(3))
    workload = Workload("shared", model, data, data, data)
    quantized = quantize(workload, BitPlan("shared", {"0": 2}, 0.0, 0.0))
    assert all(len(row.unique()) <= 4 for row in quantized[0].weight)
    assert torch.equal(quantized[0].weight, quantized[2].weight)
    assert sum(p.numel() for p in quantized.parameters()) == 16 + 8
    save_quantized(quantized, tmp_path)
    again = load_quantized(workload, tmp_path)
    assert torch.equal(again(data.tensors[0]), quantized(data.tensors[0]))


# --- files


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings.values()))
def test_what_was_saved_computes_the_same_bit_for_bit(workload, tmp_path, settings):
    model = quantize(workload, plan_of(conv=1, up=3, kernel=4), **settings)
    save_quantized(model, tmp_path / "new" / "folder")
    again = load_quantized(workload, tmp_path / "new" / "folder")
    assert again.plan == model.plan
    assert not again.training
    assert torch.equal(again(images()), model(images()))


def test_what_was_saved_does_not_depend_on_the_weights_now(workload, tmp_path):
    model = quantize(workload, plan_of(conv=3, fc=3))
    expected = model(images())
    save_quantized(model, tmp_path)
    with torch.no_grad():
        for parameter in workload.model.parameters():
            parameter.mul_(-2).add_(0.1)
    assert torch.equal(load_quantized(workload, tmp_path)(images()), expected)


def test_the_folder_holds_a_plan_and_weights(workload, tmp_path):
    save_quantized(quantize(workload, plan_of(fc=3)), tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {PLAN_FILE, WEIGHTS_FILE}
    assert BitPlan.load(tmp_path / PLAN_FILE).weight_bits == {"fc": 3}
    state = load_file(tmp_path / WEIGHTS_FILE)
    assert state["fc.parametrizations.weight.0.scale"].shape == (3, 1)


def test_a_network_in_another_memory_order_is_saved(workload, tmp_path):
    workload.model.to(memory_format=torch.channels_last)
    model = quantize(workload, plan_of(conv=3))
    save_quantized(model, tmp_path)
    again = load_quantized(workload, tmp_path)
    assert torch.equal(again.conv.weight, model.conv.weight)


def refused(workload: Workload, folder: Path) -> str:
    with pytest.raises(FormatError) as error:
        load_quantized(workload, folder)
    text = str(error.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("damage", ["missing", "cut", "text", "too few", "another shape"])
def test_a_wrong_weights_file_is_refused(workload, tmp_path, damage):
    save_quantized(quantize(workload, plan_of(fc=3)), tmp_path)
    file = tmp_path / WEIGHTS_FILE
    state = load_file(file)
    if damage == "missing":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(file.read_bytes()[:-9])
    elif damage == "text":
        file.write_text("no weights")
    elif damage == "too few":
        del state["conv.weight"]
        save_file(state, file)
    else:
        save_file({**state, "conv.weight": torch.zeros(1)}, file)
    assert refused(workload, tmp_path).startswith(f"{file} must hold the quantized toy, but ")


def test_a_wrong_plan_is_refused(workload, tmp_path):
    save_quantized(quantize(workload, plan_of(fc=3)), tmp_path)
    (tmp_path / PLAN_FILE).unlink()
    assert refused(workload, tmp_path).startswith(f"{tmp_path / PLAN_FILE} must be a saved plan, ")


def test_another_networks_folder_is_refused(workload, tmp_path):
    save_quantized(quantize(workload, plan_of(fc=3)), tmp_path)
    data = workload.test
    other = Workload("other", nn.Sequential(nn.Flatten(), nn.Linear(72, 3)), data, data, data)
    assert refused(other, tmp_path) == (
        f"{tmp_path / WEIGHTS_FILE} must hold the quantized other, but plan must name the layers "
        "of 'other', got 'fc' where '1' was expected (the plan is of 'toy'): take a plan of this "
        "network."
    )


# --- bad input


@pytest.mark.parametrize(
    ("of", "layers", "got", "expected"),
    [
        ("toy", "conv head", "'head'", "'grouped'"),
        ("toy", "head", "'head'", "'conv'"),
        ("toy", "conv grouped up kernel fc head", "'head'", "no further layer"),
        ("toy", "conv stem grouped head", "'stem'", "'grouped'"),  # the first of two
        ("another", "conv up kernel fc", "'up'", "'grouped'"),
        ("another", "conv grouped", "no layer", "'up'"),
        ("another", "", "no layer", "'conv'"),
    ],
)
def test_a_plan_of_another_network_is_refused(workload, of, layers, got, expected):
    text = (
        f"plan must name the layers of 'toy', got {got} where {expected} was expected "
        f"(the plan is of '{of}'): take a plan of this network."
    )
    plan = BitPlan(of, dict.fromkeys(layers.split(), 3), 0.0, 0.0)
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        quantize(workload, plan)


def test_a_plan_of_the_same_layers_may_bear_another_name(workload):
    plan = BitPlan("renamed", dict.fromkeys(LAYERS, 8), 0.0, 0.0)
    assert quantize(workload, plan).plan.workload == "renamed"


def test_an_unknown_quantizer_is_refused(workload):
    with pytest.raises(ValueError, match=r"^scheme must be one of .*, got 'log'\.$"):
        quantize(workload, plan_of(fc=3), scheme="log")


def test_a_workload_without_test_images_is_refused(workload):
    empty = TensorDataset(torch.zeros(0, 2, 6, 6), torch.zeros(0))
    workload = Workload("toy", workload.model, empty, empty, empty)
    with pytest.raises(ValueError, match=r"^dataset must hold at least one image, got 0 images\.$"):
        quantize(workload, plan_of(fc=3))


def test_only_a_quantized_network_is_saved(tmp_path):
    text = "model must be one that quantize returned, got Linear without a plan."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        save_quantized(nn.Linear(2, 2), tmp_path)
