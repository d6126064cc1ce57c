"""Packed files: as small as promised, and the network comes back bit for bit."""

import copy
import json
import re
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from branching import branching
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from toy import SIDE, toy_workload

from engine.activations import find_activations
from engine.analysis import Analysis
from engine.finetuning import Finished, finetune
from engine.layers import find_layers
from engine.packed import export_packed, load_packed
from engine.quantized import quantize
from engine.recipe import Recipe
from engine.results import BitPlan, FormatError, PackedFile
from engine.unpacking import packed_sizes
from engine.workloads import (
    Workload,
    build_network,
    load_workload,
    stored_analysis,
    workload_names,
)

DOCS = Path(__file__).parents[1] / "docs"
NAME = "resnet20-cifar10"


class Net(nn.Module):
    """Odd sizes, a folded norm, one that stays, a shared weight, a sum and a vector of weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 5, 3, padding=1, bias=False), nn.BatchNorm2d(5)
        self.second = nn.Conv2d(5, 5, 3, padding=1, groups=5)
        self.last = nn.BatchNorm2d(5)
        self.up = nn.ConvTranspose2d(5, 5, 2, stride=2, groups=5)
        self.fc, self.tied = nn.Linear(5, 5), nn.Linear(5, 5)
        self.tied.weight = self.fc.weight
        self.relu, self.pool = nn.ReLU(), nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.first(x)))
        x = self.last(F.relu(self.second(x) + x))
        x = self.pool(self.relu(self.up(x)))
        return self.tied(self.relu(self.fc(x)))


LAYERS = {"first": 90, "second": 45, "up": 20, "fc": 25}
WORKLOAD = toy_workload(Net, images=32)


def plan_of(bits: dict[str, int], inputs: dict[str, int] | None = None) -> BitPlan:
    return BitPlan("toy", bits, size_bytes=0.0, omega=0.0, activation_bits=inputs or {})


def images() -> Tensor:
    return torch.randn(5, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def same(a: nn.Module, b: nn.Module, given: Tensor) -> bool:
    with torch.no_grad():
        return torch.equal(a(given), b(given)) and torch.equal(a(given), b(given))


def load_by_script(path: Path, model: nn.Module) -> nn.Module:
    """By the script that knows nothing of this project."""
    loaded: nn.Module = runpy.run_path(str(DOCS / "load_packed.py"))["load_packed"](path, model)
    return loaded


@pytest.mark.parametrize(
    ("bits", "inputs", "options"),
    [
        ({"first": 3, "second": 1, "up": 5, "fc": 7}, {}, {}),
        ({"first": 8, "fc": 2}, {}, {}),  # the others stay float
        ({"first": 4, "second": 4, "up": 4, "fc": 4}, {"first": 8, "second": 3, "fc": 6}, {}),
        ({"first": 3, "second": 1, "up": 5, "fc": 6}, {"second": 5}, {"scheme": "asymmetric"}),
        ({"first": 3, "second": 1, "up": 5, "fc": 6}, {}, {"weight_granularity": "tensor"}),
        ({"first": 8, "second": 8}, {"second": 8, "fc": 8}, {"sums": "integer"}),
        ({"first": 4, "second": 4}, {}, {"correction": "bias"}),
        ({"first": 4, "second": 4}, {}, {"correction": "batch_norm", "scheme": "asymmetric"}),
    ],
)
def test_network_comes_back_bit_for_bit(
    bits: dict[str, int], inputs: dict[str, int], options: dict[str, Any], tmp_path: Path
) -> None:
    model = quantize(WORKLOAD, plan_of(bits, inputs), **options)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    said = export_packed(model, tmp_path / "net.safetensors")
    assert said.file_bytes == (tmp_path / "net.safetensors").stat().st_size
    assert packed_sizes(tmp_path / "net.safetensors") == said
    assert PackedFile.from_json(json.loads(json.dumps(said.to_json()))) == said
    loaded = load_packed(tmp_path / "net.safetensors", WORKLOAD.model)
    assert same(model, loaded, images())
    assert loaded.plan == model.plan
    assert not loaded.training
    state = loaded.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(before[name], x) for name, x in model.state_dict().items())
    assert same(model, load_by_script(tmp_path / "net.safetensors", WORKLOAD.model), images())
    again = export_packed(loaded, tmp_path / "again.safetensors")
    assert again == said
    assert (tmp_path / "again.safetensors").read_bytes() == (
        tmp_path / "net.safetensors"
    ).read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.fixed_dictionaries({}, optional={name: st.integers(1, 8) for name in LAYERS}))
def test_weights_take_the_bytes_that_were_promised(
    tmp_path_factory: pytest.TempPathFactory, bits: dict[str, int]
) -> None:
    path = tmp_path_factory.mktemp("packed") / "net.safetensors"
    model = quantize(WORKLOAD, plan_of(bits))
    said = export_packed(model, path)
    assert said.weight_bytes == sum(-(-LAYERS[name] * b // 8) for name, b in bits.items())
    assert said.promised_bytes == sum(LAYERS[name] * b for name, b in bits.items()) / 8
    assert said.file_bytes == path.stat().st_size
    assert sum(said.by_kind.values()) == said.file_bytes
    assert same(model, load_packed(path, WORKLOAD.model), images())


def test_every_byte_has_its_line(tmp_path: Path) -> None:
    model = quantize(WORKLOAD, plan_of({"first": 3, "fc": 4}, {"fc": 8}), scheme="asymmetric")
    said = export_packed(model, tmp_path / "net.safetensors")
    lines = {item.name: (item.kind, item.bytes) for item in said.items}
    assert lines == {
        "first.weight": ("packed weights", 34),
        "fc.weight": ("packed weights", 13),
        ".scales": ("scales", 40),
        ".zero_points": ("zero points", 40),
        ".activation_scales": ("scales", 4),
        ".activation_zero_points": ("zero points", 4),
        "first.bias": ("biases", 20),
        "fc.bias": ("biases", 20),
        "tied.bias": ("other tensors", 20),
        "second.weight": ("other tensors", 180),
        "second.bias": ("other tensors", 20),
        "up.weight": ("other tensors", 80),
        "up.bias": ("other tensors", 20),
        **{
            f"last.{name}": ("other tensors", 20)
            for name in ("weight", "bias", "running_mean", "running_var")
        },
        "last.num_batches_tracked": ("other tensors", 8),
        "plan": ("plan", lines["plan"][1]),
        "names, shapes, places and checksums": (
            "layout",
            lines["names, shapes, places and checksums"][1],
        ),
        "length and padding of the header": (
            "container",
            lines["length and padding of the header"][1],
        ),
    }
    with safe_open(tmp_path / "net.safetensors", "pt") as file:
        assert set(file.keys()) == {name for name in lines if "." in name}
        plan = json.loads(file.metadata()["plan"])
    assert BitPlan(**plan) == model.plan


class Sum(nn.Module):
    """An activation that several calls read, and one that no module hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.fc = nn.Conv2d(2, 2, 1), nn.Linear(2, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(F.relu(self.head(F.relu(self.head(x)))))
        return self.fc(F.relu(x).mean((2, 3)))


@pytest.mark.parametrize("make", [Sum, lambda: branching(3)])
@pytest.mark.parametrize("sums", ["float", "integer"])
def test_activations_are_rounded_where_they_were(
    make: Callable[[], nn.Module], sums: str, tmp_path: Path
) -> None:
    workload = toy_workload(make, images=32)  # type: ignore[arg-type]
    found = find_activations(workload.model, images())
    inputs = {a.name: 2 + i for i, a in enumerate(reversed(found.found))}
    bits = {layer.name: 4 for layer in find_layers(workload.model, images())}
    model = quantize(workload, plan_of(bits, inputs), sums=sums)
    export_packed(model, tmp_path / "net.safetensors")
    assert same(model, load_packed(tmp_path / "net.safetensors", workload.model), images())
    assert same(model, load_by_script(tmp_path / "net.safetensors", workload.model), images())


@pytest.mark.parametrize("batch_norm", ["frozen", "live"])
def test_a_trained_network_comes_back_too(batch_norm: str, tmp_path: Path) -> None:
    workload = toy_workload(Net, images=64)
    plan = plan_of({"first": 3, "second": 2, "fc": 4}, {"fc": 4})
    recipe = Recipe(epochs=1, batch_size=16, batch_norm=batch_norm, learning_rate=0.01)
    *_, end = finetune(workload, plan, recipe)
    assert isinstance(end, Finished)
    export_packed(end.model, tmp_path / "net.safetensors")
    assert same(end.model, load_packed(tmp_path / "net.safetensors", workload.model), images())


def test_the_given_network_is_not_changed(tmp_path: Path) -> None:
    export_packed(quantize(WORKLOAD, plan_of({"first": 3})), tmp_path / "net.safetensors")
    float_network = copy.deepcopy(WORKLOAD.model).train()
    before = {name: tensor.clone() for name, tensor in float_network.state_dict().items()}
    load_packed(tmp_path / "net.safetensors", float_network)
    assert float_network.training
    assert before.keys() == float_network.state_dict().keys()
    assert all(torch.equal(before[name], x) for name, x in float_network.state_dict().items())


@pytest.fixture(scope="module")
def resnet20() -> tuple[Workload, Analysis]:
    return load_workload(NAME), Analysis.load(stored_analysis(NAME))


@pytest.mark.parametrize("inputs", [False, True])
def test_resnet20_takes_what_its_plan_says_and_little_more(
    resnet20: tuple[Workload, Analysis], inputs: bool, tmp_path: Path
) -> None:
    workload, analysis = resnet20
    plan = analysis.frontier().within(0.12 * 2**20)
    if inputs:
        plan = analysis.plan_of(plan.weight_bits, {x.name: 8 for x in analysis.activations})
    model = quantize(workload, plan)
    said = export_packed(model, tmp_path / "net.safetensors")
    assert said.promised_bytes == plan.size_bytes
    assert said.weight_bytes == sum(
        -(-layer.parameters * plan.weight_bits[layer.name] // 8) for layer in analysis.layers
    )
    channels = sum(layer.shape[0] for layer in analysis.layers)
    assert said.file_bytes <= said.weight_bytes + 8 * channels + 8 * 1024
    given = torch.stack([workload.test[i][0] for i in range(8)])
    assert same(model, load_packed(tmp_path / "net.safetensors"), given)  # it knows its network
    assert same(model, load_by_script(tmp_path / "net.safetensors", workload.model), given)


def test_resnet50_at_four_bits_is_within_two_percent_of_its_plan(tmp_path: Path) -> None:
    name = "torchvision/resnet50"
    data = TensorDataset(torch.randn(2, 3, 32, 32), torch.arange(2))
    workload = Workload(name, build_network(name).eval(), data, data, data)
    layers = find_layers(workload.model, data.tensors[0])
    size = sum(layer.parameters for layer in layers) / 2
    plan = BitPlan(name, {layer.name: 4 for layer in layers}, size_bytes=size, omega=0.0)
    model = quantize(workload, plan, weight_range="min_max")  # it is quicker
    said = export_packed(model, tmp_path / "net.safetensors")
    assert said.weight_bytes == size
    assert said.file_bytes <= 1.02 * size
    assert same(model, load_packed(tmp_path / "net.safetensors"), data.tensors[0])


def test_every_known_network_can_be_built() -> None:
    for name in (*workload_names(), "torchvision/resnet18"):
        with torch.device("meta"):
            assert sum(p.numel() for p in build_network(name).parameters()) > 1e5


def test_a_network_that_sets_its_weights_by_value_is_built_too(tmp_path: Path) -> None:
    name = "torchvision/regnet_y_400mf"  # it cannot be built without values
    data = TensorDataset(torch.randn(2, 3, 32, 32), torch.arange(2))
    workload = Workload(name, build_network(name).eval(), data, data, data)
    model = quantize(workload, BitPlan(name, {"fc": 4}, size_bytes=0.0, omega=0.0))
    export_packed(model, tmp_path / "net.safetensors")
    assert same(model, load_packed(tmp_path / "net.safetensors"), torch.randn(2, 3, 32, 32))


def test_what_no_quantize_made_is_refused(tmp_path: Path) -> None:
    message = "model must be one that quantize returned, got Net without a plan."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        export_packed(Net(), tmp_path / "net.safetensors")


def test_codes_that_lie_too_close_are_refused(tmp_path: Path) -> None:
    model = quantize(WORKLOAD, plan_of({"first": 8}))
    model.first.parametrizations.weight[0].zero_point[0] = 1e10  # type: ignore[union-attr, index]
    message = (
        "model must hold its codes apart, got a weight 'first.weight' of type torch.float32 whose "
        "values of 8 bits lie too close: take a wider type or fewer bits."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        export_packed(model, tmp_path / "net.safetensors")


def test_half_precision_comes_back(tmp_path: Path) -> None:
    float_network = copy.deepcopy(WORKLOAD.model).half()
    model = quantize(WORKLOAD, plan_of({"first": 8, "fc": 3})).half()
    export_packed(model, tmp_path / "net.safetensors")
    loaded = load_packed(tmp_path / "net.safetensors", float_network)
    assert same(model, loaded, images().half())


class Wider(Net):
    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Conv2d(5, 5, 1, groups=5)


class Longer(Net):
    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(2, 2)


class Renamed(Net):
    def __init__(self) -> None:
        super().__init__()
        self.bend = self.relu
        del self.relu


class Normless(Net):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.InstanceNorm2d(5, affine=True, track_running_stats=True)  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("make", "differs"),
    [
        (Wider, "second.weight has shape [5, 1, 3, 3], not [5, 1, 1, 1]"),
        (Longer, "2 names are missing (more.weight, more.bias)"),
        (Renamed, "there is no module 'relu'"),
        (Normless, "last is no batch norm"),
        (lambda: Net().double(), "fc.bias is of type float32, not torch.float64"),
    ],
)
def test_a_file_of_another_network_is_refused(
    make: Callable[[], nn.Module], differs: str, tmp_path: Path
) -> None:
    model = quantize(WORKLOAD, plan_of({"first": 3, "second": 4}, {"second": 8}))
    if make is Normless:
        model.last.eps = 0.0  # type: ignore[union-attr, assignment]
    path = tmp_path / "net.safetensors"
    export_packed(model, path)
    other = make()
    message = f"{path} must hold the weights of {type(other).__name__}, but {differs}."
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        load_packed(path, other)


def test_a_network_of_ones_own_must_be_given(tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    export_packed(quantize(WORKLOAD, plan_of({"first": 3})), path)
    message = (
        f"{path} must be loaded with its float network as model, for 'toy' is no network that "
        "comes along."
    )
    with pytest.raises(FormatError, match=f"^{re.escape(message)}$"):
        load_packed(path)
