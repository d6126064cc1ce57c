"""Corrected outputs against the float network's own moments, and against a closed form."""

import copy
import re

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize
from torch.testing import assert_close
from torch.utils.data import Subset, TensorDataset
from toy import Bent, toy_workload

import engine.corrections
from engine.layers import find_layers, fold_batch_norm
from engine.quantized import load_quantized, quantize, save_quantized
from engine.quantizers import Quantizer
from engine.results import BitPlan
from engine.rounding import IMAGES, draw_images
from engine.workloads import Workload, load_workload


class Net(nn.Module):
    """Layers of every kind, and four that cannot be corrected."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 6, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(6)
        self.grouped = nn.Conv2d(6, 4, 3, groups=2, bias=False)
        self.up = nn.ConvTranspose2d(4, 4, 2, groups=2)
        self.kernel = nn.Parameter(torch.randn(4, 4))  # of no module of its own
        self.twice = nn.Linear(4, 4)  # called twice
        self.bent = Bent(4, 4)  # gives another output than weight × input + bias
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.up(F.relu(self.grouped(F.relu(self.norm(self.conv(x)))))))
        x = F.relu(x.mean((2, 3)) @ self.kernel)
        return self.fc(self.bent(F.relu(self.twice(self.twice(x)))))


LONE = ("conv", "grouped", "up", "fc")
OTHERS = ("kernel", "twice", "bent")
CORRECTIONS = ("bias", "batch_norm")


@pytest.fixture
def workload() -> Workload:
    return toy_workload(Net, images=40)


def plan_of(bits: int, names: tuple[str, ...] = LONE + OTHERS) -> BitPlan:
    return BitPlan("toy", dict.fromkeys(names, bits), 0.0, 0.0)


def outputs_of(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What each layer gives, one row a channel."""
    found: dict[str, Tensor] = {}

    def keep(name: str, output: Tensor) -> None:
        found[name] = output.detach().transpose(0, 1).flatten(1).double()

    with torch.no_grad():
        hooks = [
            model.get_submodule(name).register_forward_hook(
                lambda _, __, output, name=name: keep(name, output)
            )
            for name in LONE
        ]
        model(images)
        for hook in hooks:
            hook.remove()
    return found


def codes_of(module: nn.Module) -> Tensor:
    weights = module.parametrizations.weight
    return weights[0].grid.codes(weights[0].channels.rows(weights.original))


@pytest.mark.parametrize("bits", [2, 3, 5])
@pytest.mark.parametrize("correction", CORRECTIONS)
def test_outputs_have_the_float_networks_moments(workload, correction, bits):
    images = workload.test.tensors[0]
    expected = outputs_of(fold_batch_norm(workload.model, images[:1]).eval(), images)
    rounded = outputs_of(quantize(workload, plan_of(bits)), images)
    got = outputs_of(quantize(workload, plan_of(bits), correction=correction), images)
    for name in LONE:
        before, after = (abs(x[name].mean(1) - expected[name].mean(1)) for x in (rounded, got))
        size = float(expected[name].abs().max())
        assert float(after.max()) < 1e-6 * size
        assert float(before.max()) > 1e-5 * size
        if correction == "batch_norm":
            before, after, wanted = (x[name].std(1) for x in (rounded, got, expected))
            assert_close(after, wanted, rtol=1e-3, atol=0)
            assert float(((before - wanted) / wanted).abs().max()) > 1e-3


def test_the_bias_of_a_linear_layer_in_closed_form():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4, bias=False), nn.Linear(4, 3))
    images = torch.randn(30, 5)
    data = TensorDataset(images, torch.arange(30) % 3)
    plan = BitPlan("toy", {"0": 2, "1": 3}, 0.0, 0.0)
    got = quantize(Workload("toy", model, data, data, data), plan, correction="bias")
    # b' = b + mean(W x) − mean(Q x'), as W x + b is what the float network gives
    mean, first, second = images.mean(0), model[0].weight, model[1].weight
    rounded = [Quantizer().fit(w, b).round(w.detach()) for w, b in ((first, 2), (second, 3))]
    assert_close(got[0].bias, (first - rounded[0]) @ mean, rtol=1e-4, atol=1e-6)
    assert_close(
        got[1].bias, model[1].bias + (second - rounded[1]) @ (first @ mean), rtol=1e-4, atol=1e-6
    )
    assert_close(got(images).mean(0), model(images).mean(0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_no_code_changes(workload, correction):
    plain = quantize(workload, plan_of(3))
    corrected = quantize(workload, plan_of(3), correction=correction)
    for name in LONE:
        before, after = plain.get_submodule(name), corrected.get_submodule(name)
        assert torch.equal(codes_of(before), codes_of(after))
        scales = [x.parametrizations.weight[0].scale for x in (before, after)]
        assert torch.equal(*scales) == (correction == "bias")
        # what lies behind the rounding moves along with the grid
        ratio = scales[1] / scales[0]
        channels = before.parametrizations.weight[0].channels
        rows = [
            channels.rows(module.parametrizations.weight.original) for module in (before, after)
        ]
        assert_close(rows[1], rows[0] * ratio, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_what_is_no_plain_layer_called_once_is_left_alone(workload, correction):
    plain = quantize(workload, plan_of(2))
    corrected = quantize(workload, plan_of(2), correction=correction)
    assert torch.equal(plain.kernel, corrected.kernel)
    for name in ("twice", "bent"):
        before, after = plain.get_submodule(name), corrected.get_submodule(name)
        assert torch.equal(before.weight, after.weight)
        assert torch.equal(before.bias, after.bias)
    for name in LONE:
        assert corrected.get_submodule(name).bias is not None


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_layers_that_stay_float_are_left_alone(workload, correction):
    corrected = quantize(workload, plan_of(2, ("conv",)), correction=correction)
    folded = fold_batch_norm(workload.model, workload.test[0][0][None])
    assert torch.equal(corrected.fc.weight, folded.fc.weight)
    assert torch.equal(corrected.fc.bias, folded.fc.bias)
    assert corrected.grouped.bias is None
    assert not torch.equal(corrected.conv.bias, folded.conv.bias)


class Spare(nn.Module):
    """Two modules own a weight that one of them reads."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.spare = nn.Linear(4, 4), nn.Linear(4, 4)
        self.spare.weight = self.used.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.used(x)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_weight_that_two_modules_own_is_left_alone(correction):
    torch.manual_seed(0)
    data = TensorDataset(torch.randn(9, 4), torch.arange(9) % 4)
    workload = Workload("toy", Spare(), data, data, data)
    corrected = quantize(workload, plan_of(2, ("used",)), correction=correction)
    assert torch.equal(corrected.used.bias, workload.model.used.bias)
    assert torch.equal(corrected.used.weight, corrected.spare.weight)


def test_a_channel_that_does_not_vary_keeps_its_scale():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 3))
    with torch.no_grad():
        model[0].weight[1] = 0.0
        model[0].bias[1] = 0.7
        model[3].weight[2, 1:] = 1e-4  # rounds to 0 …
        model[3].weight[2, 0] = 0.0
        model[3].weight[2, 4:8] = 1.0  # … but for what meets the constant channel
    data = TensorDataset(torch.randn(20, 1, 4, 4), torch.arange(20) % 3)
    workload = Workload("toy", model, data, data, data)
    plan = BitPlan("toy", {"0": 3, "3": 3}, 0.0, 0.0)
    plain, corrected = quantize(workload, plan), quantize(workload, plan, correction="batch_norm")
    for layer, channel in ((0, 1), (3, 2)):
        before, after = (x[layer].parametrizations.weight[0].scale for x in (plain, corrected))
        assert before[channel] == after[channel]
        assert not torch.equal(before, after)
    assert bool(torch.isfinite(corrected(data.tensors[0])).all())
    assert_close(corrected[0].bias[1], torch.tensor(0.7))
    means = [network(data.tensors[0]).mean(0) for network in (corrected, model)]
    assert_close(*means, rtol=1e-5, atol=1e-6)


def test_one_image_without_places_has_no_deviation_to_restore():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    data = TensorDataset(torch.randn(1, 4), torch.zeros(1, dtype=torch.long))
    workload = Workload("toy", model, data, data, data)
    corrected = quantize(workload, plan_of(2, ("0",)), correction="batch_norm")
    assert_close(corrected(data.tensors[0]), model(data.tensors[0]))


def test_only_as_many_images_are_run_as_the_largest_output_allows(workload, monkeypatch):
    images = draw_images(workload.calibration, IMAGES, 0)
    largest = 6 * 6 * 6 * 4  # of `conv`, in bytes
    monkeypatch.setattr(engine.corrections, "OUTPUT_BYTES", 7 * largest + 1)
    seven = quantize(workload, plan_of(2), correction="bias")
    folded = fold_batch_norm(workload.model, images[:1]).eval()
    means = [outputs_of(network, images[:7])["fc"].mean(1) for network in (seven, folded)]
    assert_close(*means, rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(engine.corrections, "OUTPUT_BYTES", 1)
    one = quantize(workload, plan_of(2), correction="bias")
    assert_close(one(images[:1]), workload.model(images[:1]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_the_original_and_torchs_generator_are_untouched(workload, correction):
    before, drawn = copy.deepcopy(workload.model.state_dict()), torch.get_rng_state()
    first = quantize(workload, plan_of(3), correction=correction)
    assert torch.equal(torch.get_rng_state(), drawn)
    state = workload.model.state_dict()
    assert list(state) == list(before)
    assert all(torch.equal(state[name], before[name]) for name in state)
    assert not any(module._forward_hooks for module in workload.model.modules())
    assert not any(module._forward_hooks for module in first.modules())
    again = quantize(workload, plan_of(3), correction=correction)
    assert all(map(torch.equal, first.state_dict().values(), again.state_dict().values()))


def test_the_seed_draws_the_images(workload, monkeypatch):
    monkeypatch.setattr("engine.quantized.IMAGES", 8)
    biases = [
        quantize(workload, plan_of(2), correction="bias", seed=seed).fc.bias for seed in (1, 1, 2)
    ]
    assert torch.equal(biases[0], biases[1])
    assert not torch.equal(biases[0], biases[2])


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_a_corrected_network_comes_back_bit_for_bit(workload, tmp_path, correction, monkeypatch):
    corrected = quantize(workload, plan_of(3), correction=correction, seed=5)
    save_quantized(corrected, tmp_path)
    monkeypatch.setattr("engine.quantized.correct", None)  # nothing is measured again
    again = load_quantized(workload, tmp_path)
    images = workload.test.tensors[0]
    assert torch.equal(again(images), corrected(images))
    assert again.plan == corrected.plan
    assert again.plan.quantizer["correction"] == correction
    assert again.plan.quantizer["seed"] == "5"


def test_an_empty_plan_changes_nothing(workload):
    images = workload.test.tensors[0]
    corrected = quantize(workload, plan_of(3, ()), correction="batch_norm")
    assert torch.equal(corrected(images), fold_batch_norm(workload.model, images[:1])(images))


def test_a_layers_own_layout_is_no_matter():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5))
    data = TensorDataset(torch.randn(12, 7, 4), torch.arange(12) % 5)  # 7 places an image
    workload = Workload("toy", model, data, data, data)
    corrected = quantize(workload, plan_of(2, ("0", "2")), correction="batch_norm")
    expected, got = model(data.tensors[0]).flatten(0, 1), corrected(data.tensors[0]).flatten(0, 1)
    assert_close(got.mean(0), expected.mean(0), rtol=1e-5, atol=1e-6)
    assert_close(got.std(0), expected.std(0), rtol=1e-4, atol=0)


def test_the_sample_network_keeps_most_of_its_accuracy_at_3_bits():
    workload = load_workload("resnet20-cifar10")
    layers = find_layers(workload.model, workload.test[0][0][None])
    plan = BitPlan(workload.name, {layer.name: 3 for layer in layers}, 0.0, 0.0)
    images, labels = (
        torch.stack([workload.test[i][0] for i in range(300)]),
        torch.tensor([workload.test[i][1] for i in range(300)]),
    )
    accuracy = {}
    for correction in ("none", "batch_norm"):
        model = quantize(workload, plan, correction=correction)
        with torch.no_grad(), parametrize.cached():
            accuracy[correction] = float((model(images).argmax(1) == labels).float().mean())
    assert accuracy["batch_norm"] > accuracy["none"] + 0.1
    assert accuracy["batch_norm"] > 0.8


# --- bad input


def refused(workload: Workload, plan: BitPlan, **settings: object) -> str:
    with pytest.raises(ValueError, match="must") as error:
        quantize(workload, plan, **settings)
    return str(error.value)


def test_an_unknown_correction_is_refused(workload):
    assert refused(workload, plan_of(3), correction="mean") == (
        "correction must be one of none, bias, batch_norm, got 'mean'."
    )


def test_a_scale_for_the_whole_tensor_cannot_follow_each_channel(workload):
    assert refused(workload, plan_of(3), correction="batch_norm", weight_granularity="tensor") == (
        "correction must be none or bias with one scale for the whole tensor, got 'batch_norm', "
        "which changes the scale of each channel: set weight_granularity to 'channel'."
    )
    quantize(workload, plan_of(3), correction="bias", weight_granularity="tensor")


@pytest.mark.parametrize("setting", [{"correction": "bias"}, {"rounding": "learned"}])
def test_a_workload_without_calibration_images_is_refused(workload, setting):
    data = workload.test
    without = Workload("toy", workload.model, Subset(data, []), data, data)
    assert refused(without, plan_of(3), **setting) == (
        "calibration must hold at least one image, got 0 images: "
        "give the workload images to round and correct with."
    )
    quantize(without, plan_of(3))


@pytest.mark.parametrize("seed", ["-1", "many", -1, 1.5, 2**63])
def test_a_seed_that_is_none_is_refused(workload, seed):
    text = f"seed must be a whole number in 0…2^63 − 1, got '{seed}'."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        quantize(workload, plan_of(3), seed=seed)
