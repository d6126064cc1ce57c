"""Activations rounded in a network against its forward pass written out; sums on one scale."""

import copy
import itertools
import re
from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset
from toy import toy_workload

from engine.activations import Activation, attached, find_activations, tapped
from engine.calibration import Range, calibrate
from engine.layers import fold_batch_norm
from engine.perturbation import analyze
from engine.placements import OPERANDS, SUMS, Placement, fitted, place
from engine.quantized import WEIGHTS_FILE, load_quantized, quantize, save_quantized
from engine.quantizers import RANGES, QuantizedActivation
from engine.results import BitPlan
from engine.rounding import IMAGES, draw_images
from engine.workloads import Workload


class Net(nn.Module):
    """A residual block, one with a shortcut of its own, and branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(2, 4, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.act0, self.act1, self.act2 = nn.ReLU(), nn.ReLU(), nn.ReLU()
        self.a = nn.Conv2d(4, 4, 3, padding=1)
        self.b = nn.Conv2d(4, 4, 1)
        self.short = nn.Conv2d(4, 4, 1)
        self.branch = nn.Conv2d(4, 2, 1)
        self.last = nn.Conv2d(2, 2, 1)
        self.bent = nn.LeakyReLU(0.2)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x0 = self.act0(self.norm(self.stem(x)))
        x1 = self.act1(self.a(x0) + x0)
        x2 = self.act2(self.b(x1) + self.short(x1))
        left = self.bent(self.branch(x2))
        right = self.last(left)
        return self.fc(torch.cat([left, right], 1).mean((2, 3)))


BITS = {"stem": 8, "a": 4, "b": 3, "branch": 2, "last": 5}
WEIGHTS = dict.fromkeys(("stem", "a", "b", "short", "branch", "last", "fc"), 4)
SETTINGS = [
    dict(zip(("activation_range", "sums"), x, strict=True)) for x in itertools.product(RANGES, SUMS)
]


@pytest.fixture
def workload() -> Workload:
    return toy_workload(Net, images=40)


def images() -> Tensor:
    return torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(1))


def plan_of(activations: dict[str, int], weights: dict[str, int] | None = None) -> BitPlan:
    return BitPlan("toy", weights or {}, 0.0, 0.0, activation_bits=activations)


def by_hand(model: nn.Module, rounded: dict[str, QuantizedActivation], x: Tensor) -> Tensor:
    """The forward pass with every rounding written where the tensor is made."""
    x0 = rounded["a"](model.act0(model.norm(model.stem(rounded["stem"](x)))))
    x1 = rounded["b"](model.act1(model.a(x0) + x0))
    x2 = rounded["branch"](model.act2(model.b(x1) + model.short(x1)))
    left = rounded["last"](model.bent(model.branch(x2)))
    right = model.last(left)
    return model.fc(torch.cat([left, right], 1).mean((2, 3)))


@pytest.mark.parametrize("weights", [{}, WEIGHTS], ids=["activations alone", "weights too"])
def test_every_reader_sees_rounded_values(workload, weights):
    model = quantize(workload, plan_of(BITS, weights))
    rounded = attached(model)
    assert {name: module.bits for name, module in rounded.items()} == BITS
    plain = quantize(workload, plan_of({}, weights))
    assert attached(plain) == {}
    assert torch.equal(model(images()), by_hand(plain, rounded, images()))
    assert not torch.allclose(model(images()), plain(images()))


@pytest.mark.parametrize("activation_range", RANGES)
def test_grids_are_fitted_to_the_float_network(workload, activation_range):
    plan = plan_of({"a": 3, "last": 2}, WEIGHTS)
    model = quantize(workload, plan, activation_range=activation_range, seed=5)
    folded = fold_batch_norm(workload.model, images()[:1]).eval()
    drawn = draw_images(workload.calibration, IMAGES, 5)
    found = find_activations(folded, images()[:1]).found
    ranges = calibrate(folded, found, drawn, activation_range=activation_range, seed=5)
    for name, bits in plan.activation_bits.items():
        grid, made = ranges[name].grid(bits), attached(model)[name].grid
        assert made.scale == grid.scale
        assert made.zero_point == grid.zero_point
        assert (made.low, made.high) == (grid.low, grid.high) == (0, 2**bits - 1)


def test_grids_are_those_of_the_analysis(workload):
    analysis = analyze(workload, bit_widths=(3,), max_images=20, seed=7)
    names = [one.name for one in analysis.activations]
    plan = replace(plan_of(dict.fromkeys(names, 3)), quantizer=analysis.quantizer)
    rounded = attached(quantize(workload, plan))
    folded = fold_batch_norm(workload.model, images()[:1]).eval()
    seen: dict[str, list[float]] = {name: [] for name in names}

    def measure(name: str, tensor: Tensor) -> Tensor:
        seen[name] += (rounded[name](tensor) - tensor).square().flatten(1).sum(1).tolist()
        return tensor

    found = find_activations(folded, images()[:1]).found
    functions = {name: partial(measure, name) for name in names}
    with torch.no_grad(), tapped(folded, functions, found):
        folded(draw_images(workload.calibration, 20, 7))
    for one in analysis.activations:
        assert one.perturbation[3] == pytest.approx(sum(seen[one.name]) / 20, rel=1e-5)


def test_what_follows_a_rectifier_is_unsigned(workload):
    rounded = attached(quantize(workload, plan_of(BITS)))
    assert all(rounded[name].zero_point == 0 for name in ("a", "b", "branch"))
    assert rounded["stem"].zero_point > 0


def test_the_original_is_untouched(workload):
    before, expected = copy.deepcopy(workload.model), workload.model(images())
    quantize(workload, plan_of(BITS), sums="integer")
    assert str(workload.model) == str(before)
    assert torch.equal(workload.model(images()), expected)


def test_more_bits_change_less(workload):
    expected = workload.model(images())
    apart = [
        (quantize(workload, plan_of(dict.fromkeys(BITS, b)))(images()) - expected).norm()
        for b in (2, 4, 8)
    ]
    assert apart[0] > 2 * apart[1] > 4 * apart[2]


def test_the_settings_are_the_plans_unless_given(workload):
    plan = replace(plan_of(BITS), quantizer={"activation_range": "min_max", "sums": "integer"})
    brought, given = quantize(workload, plan), quantize(workload, plan, sums="float", seed=3)
    assert brought.plan.quantizer["activation_range"] == "min_max"
    assert brought.plan.quantizer["sums"] == "integer"
    assert given.plan.quantizer["sums"] == "float"
    assert given.plan.quantizer["seed"] == "3"


# --- sums


def test_what_is_added_is_on_one_scale(workload):
    model = quantize(workload, plan_of(BITS), sums="integer")
    rounded, operands = attached(model), list(model.stem.get_submodule(OPERANDS))
    assert [one.bits for one in operands] == [8, 8, 8]  # what a, b and short give
    assert [(one.low, one.high, one.zero_point.item()) for one in operands] == [(-128, 127, 0)] * 3
    assert operands[0].scale == rounded["a"].scale
    assert operands[1].scale == operands[2].scale
    sums = []
    hooks = [
        module.register_forward_pre_hook(lambda _, inputs: sums.append(inputs[0]))
        for module in (model.act1, model.act2)
    ]
    model(images())
    for hook in hooks:
        hook.remove()
    for added, one in zip(sums, operands[:2], strict=True):
        codes = added / one.scale
        torch.testing.assert_close(codes, codes.round(), rtol=0, atol=1e-4)
    assert [one.group for one in operands] == [rounded["a"].group, *[operands[1].group] * 2]


def test_a_shared_scale_clips_no_operand_more_than_its_own(workload):
    bits = dict.fromkeys(BITS, 8)  # at 8 bits the unsigned operand alone would set too fine a scale
    alone = attached(quantize(workload, plan_of(bits), sums="float"))["a"]
    model = quantize(workload, plan_of(bits), sums="integer")
    shared, other = attached(model)["a"], model.stem.get_submodule(OPERANDS)[0]
    values = []
    workload.model.a.register_forward_hook(lambda _, __, output: values.append(output))
    for image in draw_images(workload.calibration, IMAGES, 0):
        workload.model(image[None])
    reached = torch.cat(values).abs().max() / shared.scale
    assert shared.scale == other.scale >= alone.scale
    assert reached < 1.2 * 128
    coarse = attached(quantize(workload, plan_of(BITS), sums="integer"))["a"]
    fine = attached(quantize(workload, plan_of(BITS)))["a"]
    assert coarse.grid == fine.grid  # with 4 bits it is the coarser one anyway


def test_a_larger_scale_leaves_the_least_value_where_it_was():
    own = Activation("own", ("own",), (), (), 0, image=False)
    placed = [Placement(own, 8, True, 0), Placement(replace(own, name="other"), 8, False, 0)]
    ends = {"own": torch.tensor([-1.0, 3.0]), "other": torch.tensor([-16.0, 2.0])}
    ranges = {name: Range(*x.tolist(), x, "min_max") for name, x in ends.items()}
    grid, other = fitted(placed, ranges)
    assert grid.scale == other.scale == pytest.approx(16 / 128, rel=1e-2)
    assert (grid.zero_point, other.zero_point) == (8, 0)  # 8 steps of ⅛ down to −1
    (alone,) = fitted([replace(placed[0], group=None)], ranges)
    assert alone == ranges["own"].grid(8)


def test_an_operand_that_the_plan_leaves_float_gets_8_bits_for_the_sum(workload):
    model = quantize(workload, plan_of({"fc": 4, "stem": 8}), sums="integer")
    operands = model.stem.get_submodule(OPERANDS)
    assert len(operands) == 4
    assert operands[0].scale == operands[1].scale


def test_what_is_put_side_by_side_shares_a_scale_where_it_is_quantized():
    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.left, self.right, self.fc = (nn.Linear(4, 4) for _ in range(5))
            self.acts = nn.ModuleList(nn.ReLU() for _ in range(3))
            self.head = nn.Linear(12, 2)

        def forward(self, x: Tensor) -> Tensor:
            one, two = self.acts[0](self.one(x)), self.acts[1](3 * self.two(x))
            read = self.left(one) + self.right(two)
            return self.head(torch.cat([one, two, self.acts[2](self.fc(x))], 1)) + read.sum()

    torch.manual_seed(0)
    data = TensorDataset(torch.randn(30, 4), torch.arange(30) % 2)
    workload = Workload("cat", Branches().eval(), data, data, data)
    plan = BitPlan("cat", {}, 0.0, 0.0, activation_bits={"left": 4, "right": 3})
    for sums in SUMS:
        rounded = attached(quantize(workload, plan, sums=sums))
        scales = [rounded[name].scale for name in ("left", "right")]
        assert (scales[0] == scales[1]) == (sums == "integer")
        assert rounded["left"].bits, rounded["right"].bits == (4, 3)


def test_sums_that_have_an_operand_in_common_have_one_scale():
    class Chain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.three, self.four = (nn.Linear(4, 4) for _ in range(4))
            self.add, self.over = nn.Identity(), nn.Identity()

        def forward(self, x: Tensor) -> Tensor:
            first = self.one(x)
            kept = self.add(first + self.two(first))
            return self.over(first + self.three(kept)) + self.four(kept)

    placed = place(find_activations(Chain(), torch.randn(1, 4)), {"two": 4}, "integer")
    groups = {one.activation.name: one.group for one in placed}
    assert list(groups) == ["two", "two.output", "three.output", "over.output", "four.output"]
    assert groups["two"] == groups["two.output"] == groups["three.output"]
    assert groups["over.output"] == groups["four.output"] != groups["two"]


# --- files


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "-".join(settings.values()))
def test_what_was_saved_computes_the_same_bit_for_bit(workload, tmp_path, settings):
    model = quantize(workload, plan_of(BITS, WEIGHTS), **settings)
    save_quantized(model, tmp_path)
    again = load_quantized(workload, tmp_path)
    assert again.plan == model.plan
    assert torch.equal(again(images()), model(images()))
    state = load_file(tmp_path / WEIGHTS_FILE)
    assert state["a.input_quantizer.scale"].shape == ()


@pytest.mark.parametrize("sums", SUMS)
def test_a_copy_rounds_with_its_own_quantizers(workload, sums):
    model = quantize(workload, plan_of(BITS, WEIGHTS), sums=sums)
    twin, expected = copy.deepcopy(model), model(images())
    for module in twin.modules():
        if isinstance(module, QuantizedActivation):
            module.get_buffer("scale").mul_(2)
    assert torch.equal(model(images()), expected)
    assert not torch.equal(twin(images()), expected)


# --- bad input


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("head", "which is none (the plan is of 'toy'): take a plan of this network"),
        ("short", "which reads the activation of 'b': give that one its bits"),
    ],
)
def test_an_activation_that_is_none_is_refused(workload, name, why):
    text = (
        "plan must name activations of 'toy', each by the first layer that reads it "
        f"(stem, a, b, branch, last, fc), got {name!r}, {why}."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        quantize(workload, plan_of({"a": 4, name: 4}))


def test_an_activation_that_cannot_be_reached_is_refused():
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(4, 3))

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return (x * y) @ self.kernel

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.product = nn.Linear(4, 4), Product()

        def forward(self, x: Tensor) -> Tensor:
            return self.product(self.first(x), x)

    data = TensorDataset(torch.randn(8, 4), torch.arange(8) % 3)
    workload = Workload("hidden", Hidden().eval(), data, data, data)
    text = (
        r"^plan must name activations of 'hidden', .* \(first\), got 'product.kernel', which reads "
        r"float, as .*: leave it out\.$"
    )
    with pytest.raises(ValueError, match=text):
        quantize(workload, BitPlan("hidden", {}, 0.0, 0.0, activation_bits={"product.kernel": 4}))


@pytest.mark.parametrize(
    ("setting", "known"),
    [("activation_range", "mse, min_max, percentile"), ("sums", "float, integer")],
)
def test_an_unknown_setting_is_refused(workload, setting, known):
    text = f"{setting} must be one of {known}, got 'log'."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        quantize(workload, plan_of(BITS), **{setting: "log"})


@pytest.mark.parametrize("count", ["0", "many", "-3"])
def test_a_number_of_calibration_images_that_is_none_is_refused(workload, count):
    plan = replace(plan_of(BITS), quantizer={"calibration_images": count})
    text = f"calibration_images must be a whole number from 1 on, got '{count}': 512 is usual."
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        quantize(workload, plan)


def test_images_to_calibrate_with_are_needed(workload):
    empty = TensorDataset(torch.zeros(0, 2, 6, 6), torch.zeros(0))
    workload = replace(workload, calibration=empty)
    with pytest.raises(ValueError, match=r"^calibration must hold at least one image, got 0"):
        quantize(workload, plan_of(BITS))
    quantize(workload, plan_of({}, WEIGHTS))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda model: model.stem.weight.data.fill_(torch.inf), "must be finite, got"),
        (lambda model: model.norm.bias.data.fill_(-1e3), "must vary, got only 0"),
    ],
)
def test_an_activation_without_a_range_is_named(workload, spoil, said):
    spoil(workload.model)
    with pytest.raises(ValueError, match=f"'a' {said}"):
        quantize(workload, plan_of(BITS))
