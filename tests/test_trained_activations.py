"""Fine-tuning with rounded activations: there and back, alive norms, cut in between."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torch.utils.data import TensorDataset

from engine import BitPlan, FormatError, Recipe, Workload, evaluate, finetune, quantize
from engine.activations import attached
from engine.finetuning import Finished, Step
from engine.placements import SUMS
from engine.quantized import load_quantized, save_quantized
from engine.quantizers import QuantizedActivation
from engine.recipe import ACTIVATION_RANGES
from engine.trainable import (
    LiveNorm,
    TrainedActivation,
    deployed,
    revive_norms,
    trainable,
)


class Net(nn.Module):
    """A residual block, whose addition reads a batch norm's output, and a linear bottleneck."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm0 = nn.Conv2d(2, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.a, self.norm1 = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.b, self.norm2 = nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.acts = nn.ModuleList(nn.ReLU() for _ in range(2))
        self.fc = nn.Linear(4 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.acts[0](self.norm0(self.stem(x)))
        x = self.acts[1](self.norm1(self.a(x)) + x)
        return self.fc(self.norm2(self.b(x)).flatten(1))


LAYERS = ("stem", "a", "b", "fc")
PLAN = BitPlan(
    "net",
    dict.fromkeys(LAYERS, 3),
    0.0,
    0.0,
    activation_bits={"stem": 8, "a": 2, "b": 3, "fc": 3},
)
QUICK = Recipe(epochs=1, batch_size=10, optimizer="sgd", learning_rate=0.02, evaluate_every=4)


def made_data(count: int, seed: int) -> TensorDataset:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    means = torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(99))
    return TensorDataset(
        0.5 * means[labels] + torch.randn(count, 2, 5, 5, generator=generator), labels
    )


@pytest.fixture(scope="module")
def workload() -> Workload:
    train, test = made_data(320, 0), made_data(200, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Net()
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(30):
            optimizer.zero_grad()
            F.cross_entropy(model(train.tensors[0]), train.tensors[1]).backward()
            optimizer.step()
        optimizer.zero_grad()
    return Workload("net", model.eval(), train, train, test)


def last(events) -> Finished:
    *_, end = events
    assert isinstance(end, Finished)
    return end


def rounders(model: nn.Module) -> list[QuantizedActivation]:
    return [m for m in model.modules() if isinstance(m, QuantizedActivation)]


@pytest.mark.parametrize("sums", SUMS)
@pytest.mark.parametrize("ranges", ACTIVATION_RANGES)
def test_there_and_back_changes_nothing(workload, ranges, sums):
    images = workload.test.tensors[0]
    quantized = quantize(workload, PLAN, sums=sums)
    before, expected = copy.deepcopy(quantized.state_dict()), quantized(images)
    model = trainable(quantized, learned_scales=True, activation_ranges=ranges)
    assert all(isinstance(one, TrainedActivation) for one in rounders(model))
    assert len(rounders(model)) == len(PLAN.activation_bits) + (sums == "integer")
    back = deployed(model.eval())
    assert not any(isinstance(one, TrainedActivation) for one in rounders(back))
    assert torch.equal(model(images), expected)
    assert torch.equal(back(images), expected)
    assert list(back.state_dict()) == list(before)
    assert all(torch.equal(back.state_dict()[name], before[name]) for name in before)
    with torch.no_grad():
        for one in rounders(model):
            one.scale.mul_(2)
    assert not torch.equal(model(images), expected)  # its own quantizers are those that round
    assert torch.equal(back(images), expected)
    assert torch.equal(quantized(images), expected)


def test_scales_of_one_group_are_one_parameter(workload):
    model = trainable(quantize(workload, PLAN, sums="integer"), learned_scales=True)
    added = [one for one in rounders(model) if one.group is not None]
    assert len(added) == 2
    assert added[0].scale is added[1].scale
    assert sum(p is added[0].scale for p in model.parameters()) == 1


@pytest.mark.parametrize("sums", SUMS)
def test_live_norms_keep_the_rounding_at_their_outputs(workload, sums):
    images = workload.test.tensors[0]
    quantized = quantize(workload, PLAN, sums=sums)
    model = trainable(quantized, learned_scales=True)
    revive_norms(model, workload.model, images)
    live = [name for name, module in model.named_modules() if isinstance(module, LiveNorm)]
    assert live == ["norm0", "norm1", "norm2"]
    model.eval()
    # rounded where the norm gave a value just beyond a boundary, else alike
    apart = (model(images) - quantized(images)).abs()
    assert apart.median() < 1e-4
    given = []
    model.fc.register_forward_pre_hook(lambda _, inputs: given.append(inputs[0]))
    model(images)
    assert len(given[0].unique()) <= 8  # what norm2 gives, on 3 bits
    back = deployed(model)
    assert list(back.state_dict()) == list(quantized.state_dict())
    assert (back(images) - model(images)).abs().median() < 1e-4
    with torch.no_grad():
        attached(back)["fc"].get_buffer("scale").mul_(2)
    assert not torch.allclose(back(images), model(images))


@pytest.mark.parametrize("ranges", ACTIVATION_RANGES)
def test_grids_change_as_asked(workload, tmp_path, ranges):
    quantized = quantize(workload, PLAN)
    end = last(finetune(workload, PLAN, QUICK, activation_ranges=ranges))
    assert end.best_step > 0
    moved = [
        not torch.equal(one.scale, other.scale)
        for one, other in zip(rounders(quantized), rounders(end.model), strict=True)
    ]
    assert all(moved) if ranges != "fixed" else not any(moved)
    save_quantized(end.model, tmp_path)
    again, images = load_quantized(workload, tmp_path), workload.test.tensors[0]
    assert torch.equal(again(images), end.model(images))


def test_training_makes_up_for_rounded_activations(workload):
    plan = replace(PLAN, weight_bits={}, activation_bits=dict.fromkeys(LAYERS, 1))
    rounded = evaluate(quantize(workload, plan), workload).loss
    end = last(finetune(workload, plan, QUICK, epochs=4))
    assert evaluate(end.model, workload).loss < 0.8 * rounded


@pytest.mark.parametrize(("sums", "batch_norm"), [("float", "frozen"), ("integer", "live")])
@pytest.mark.parametrize("ranges", ACTIVATION_RANGES)
def test_resuming_equals_no_interruption(workload, tmp_path, ranges, sums, batch_norm):
    plan = replace(PLAN, quantizer={"sums": sums})
    recipe = replace(QUICK, activation_ranges=ranges, batch_norm=batch_norm, epochs=0.4)
    whole_file = tmp_path / "whole.pt"
    whole = list(finetune(workload, plan, recipe, checkpoint=whole_file))
    steps = [event for event in whole if isinstance(event, Step)]
    assert len(steps) > 8
    for cut in (1, 5, 8):
        file = tmp_path / f"{cut}.pt"
        settings = {"checkpoint": file, "checkpoint_every": 3}
        for event in finetune(workload, plan, recipe, **settings):
            if isinstance(event, Step) and event.step == cut:
                break
        *_, resumed = finetune(workload, plan, recipe, **settings)
        ours, theirs = (
            tree_leaves(torch.load(path, weights_only=True)) for path in (whole_file, file)
        )
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert torch.equal(one, other) if isinstance(one, Tensor) else one == other
        assert resumed.best_step == whole[-1].best_step


def test_a_checkpoint_of_other_activations_is_refused(workload, tmp_path):
    file = tmp_path / "c.pt"
    last(finetune(workload, PLAN, QUICK, epochs=0.1, checkpoint=file))
    other = replace(PLAN, activation_bits={"stem": 8})
    text = r"but its activations is \{'stem': 8, 'a': 2, 'b': 3, 'fc': 3\}, not \{'stem': 8\}"
    with pytest.raises(FormatError, match=text):
        last(finetune(workload, other, QUICK, epochs=0.1, checkpoint=file))
