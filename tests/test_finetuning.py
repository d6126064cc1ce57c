"""Fine-tuning against a loop written out, cut at every step, told wrong things, and run away."""

import copy
import math
import os
import re
import time
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves
from torch.utils.data import Dataset, TensorDataset

from engine import (
    Analysis,
    BitPlan,
    FormatError,
    Recipe,
    Workload,
    evaluate,
    finetune,
    load_workload,
    quantize,
)
from engine.batches import training_batches
from engine.finetuning import Checkpoint, Finished, Measurement, Reference, Step
from engine.workloads import stored_analysis

CLASSES = 3


class Shaken(Dataset):
    """Images that are changed at random when read; unchanged ones beside them."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.plain = TensorDataset(images, labels)

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, index: int):
        image, label = self.plain[index]
        return image + 0.05 * torch.randn(image.shape), label


def made_data(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes of images that a small network tells apart, mostly."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    means = torch.randn(CLASSES, 2, 5, 5, generator=torch.Generator().manual_seed(99))
    return 0.5 * means[labels] + torch.randn(count, 2, 5, 5, generator=generator), labels


@pytest.fixture(scope="module")
def trained() -> Workload:
    """A float network that has learned its task."""
    train, test = made_data(320, 0), made_data(200, 1)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(2, 8, 3, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(72, CLASSES),
        )
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        for _ in range(30):
            optimizer.zero_grad()
            F.cross_entropy(model(train[0]), train[1]).backward()
            optimizer.step()
        optimizer.zero_grad()
    return Workload(
        name="small",
        model=model.eval(),
        calibration=TensorDataset(*train),
        train=Shaken(*train),
        test=TensorDataset(*test),
    )


PLAN = BitPlan("small", {"0": 1, "5": 1}, 0.0, 0.0)
QUICK = Recipe(epochs=1, batch_size=16, optimizer="sgd", learning_rate=0.03, evaluate_every=4)


def last(events) -> Finished:
    *_, end = events
    assert isinstance(end, Finished)
    return end


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


# What it tells


def test_events_come_in_order(trained, tmp_path):
    events = list(finetune(trained, PLAN, QUICK, checkpoint=tmp_path / "c.pt", checkpoint_every=5))
    kinds = [type(event) for event in events]
    assert kinds[:3] == [Reference, Measurement, Checkpoint]
    assert kinds[-3:] == [Measurement, Checkpoint, Finished]
    steps = [event for event in events if isinstance(event, Step)]
    assert [event.step for event in steps] == list(range(1, 33))
    assert steps[-1].step == steps[-1].steps == len(steps)
    assert steps[-1].epoch == pytest.approx(1)
    measured = [event.step for event in events if isinstance(event, Measurement)]
    assert measured == sorted({*range(0, len(steps), 4), len(steps)})
    kept = [event.step for event in events if isinstance(event, Checkpoint)]
    assert kept == sorted({*range(0, len(steps), 5), len(steps)})
    rates = [event.learning_rate for event in steps]
    assert max(rates) == QUICK.peak_rate
    assert rates[-1] < 0.02 * QUICK.peak_rate


def test_step_0_is_the_network_rounded_after_training(trained):
    events = finetune(trained, PLAN, QUICK)
    reference, start = next(events), next(events)
    float_network, rounded = (
        evaluate(m, trained) for m in (trained.model, quantize(trained, PLAN))
    )
    assert (reference.test.value, reference.test.loss) == (float_network.value, float_network.loss)
    assert (start.test.value, start.test.loss) == (rounded.value, rounded.loss)
    assert start.best
    assert "32 held back of" in start.held_out.provenance.data


def test_it_makes_up_for_the_rounding(trained):
    lost = evaluate(quantize(trained, PLAN), trained).value
    end = last(finetune(trained, PLAN, Recipe(epochs=5, batch_size=16, learning_rate=0.01)))
    assert evaluate(trained.model, trained).value > 0.9
    assert evaluate(end.model, trained).value > lost + 0.05
    assert end.stopped_because == "steps"


def test_about_twenty_measurements_by_default(trained):
    events = list(finetune(trained, PLAN, Recipe(epochs=2.5, batch_size=16)))
    assert 18 <= sum(isinstance(event, Measurement) for event in events) <= 22


# What it does


def test_a_training_is_the_loop_written_out():
    """SGD with Nesterov momentum on one linear layer, every line of it by hand."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 2, bias=False))
    float_weight = torch.randn(2, 4, generator=generator)
    model[0].weight = nn.Parameter(float_weight.clone())
    images = torch.randn(240, 4, generator=generator)
    data = TensorDataset(images, images @ torch.randn(4, 2, generator=generator))
    workload = Workload("line", model, data, data, data, loss="mse")
    plan = BitPlan("line", {"0": 3}, 0.0, 0.0)
    recipe = Recipe(
        epochs=1,
        batch_size=6,
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=0.01,
        distillation=0.25,
    )
    events = list(finetune(workload, plan, recipe, seed=5))
    losses = [event.loss for event in events if isinstance(event, Step)]

    order = torch.randperm(240, generator=torch.Generator().manual_seed(0))
    others = sorted(order[24:].tolist())
    steps = len(others) // 6
    weight = float_weight.clone()
    scale = quantize(workload, plan)[0].parametrizations["weight"][0].grid.scale.clone()
    momentum = torch.zeros(2, 4), torch.zeros(2, 1)
    pace = (4 * 4) ** -0.5
    expected = []
    batches = training_batches(data, others, 6, seed=5, steps=range(steps))
    for step, (x, y) in enumerate(batches):
        w, s = weight.clone().requires_grad_(), scale.clone().requires_grad_()
        position = w / s
        codes = position.round().clamp(-4, 3).detach()
        inside = codes == position.round()
        rounded = torch.where(inside, position + (codes - position).detach(), codes) * s
        taught = x @ float_weight.T
        out = x @ rounded.T
        loss = 0.75 * F.mse_loss(out, y) + 0.25 * F.mse_loss(out, taught)
        expected.append(loss.item())
        loss.backward()
        gradients = [w.grad, s.grad * pace]
        length = math.sqrt(sum(float(g.square().sum()) for g in gradients))
        gradients = [g * min(1.0, 5.0 / (length + 1e-6)) for g in gradients]
        gradients[0] = gradients[0] + 0.01 * weight
        warm_up = math.ceil(0.05 * steps)
        rate = 0.1 * (
            (step + 1) / warm_up
            if step < warm_up
            else 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))
        )
        values = [weight, scale]
        for i, gradient in enumerate(gradients):
            momentum[i].mul_(0.9 if step else 0).add_(gradient)
            values[i] = values[i] - rate * (gradient + 0.9 * momentum[i])
        weight, scale = values
    assert losses == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("batch_norm", ["frozen", "live"])
@pytest.mark.parametrize("step_sizes", ["learned", "fixed"])
def test_resuming_equals_no_interruption(trained, tmp_path, optimizer, batch_norm, step_sizes):
    recipe = replace(QUICK, optimizer=optimizer, batch_norm=batch_norm, step_sizes=step_sizes)
    whole_file, told = tmp_path / "whole.pt", {}
    whole = list(finetune(trained, PLAN, recipe, seed=3, checkpoint=whole_file))
    steps = [event for event in whole if isinstance(event, Step)]
    for cut in range(1, len(steps), 7):
        file = tmp_path / f"{cut}.pt"
        settings = {"seed": 3, "checkpoint": file, "checkpoint_every": 3}
        for event in finetune(trained, PLAN, recipe, **settings):
            if isinstance(event, Step):
                told[event.step] = event
                if event.step == cut:
                    break
        torch.manual_seed(cut)  # whatever happens in between
        resumed = list(finetune(trained, PLAN, recipe, **settings))
        told |= {event.step: event for event in resumed if isinstance(event, Step)}
        assert list(told.values()) == steps
        assert same(resumed[-1].model, whole[-1].model)
        assert resumed[-1].best_step == whole[-1].best_step
        states = [torch.load(path, weights_only=True) for path in (whole_file, file)]
        leaves = [tree_leaves(state) for state in states]
        assert len(leaves[0]) == len(leaves[1]) > 10
        for ours, theirs in zip(*leaves, strict=True):
            assert torch.equal(ours, theirs) if isinstance(ours, Tensor) else ours == theirs


def test_a_finished_training_resumes_to_its_end(trained, tmp_path):
    first = last(finetune(trained, PLAN, QUICK, checkpoint=tmp_path / "c.pt"))
    (again,) = finetune(trained, PLAN, QUICK, checkpoint=tmp_path / "c.pt")
    assert same(first.model, again.model)


def test_a_seed_is_repeated_and_another_is_another(trained):
    models = [last(finetune(trained, PLAN, QUICK, seed=seed)).model for seed in (1, 1, 2)]
    assert same(models[0], models[1])
    assert not same(models[0], models[2])


@pytest.mark.parametrize("batch_norm", ["frozen", "live"])
def test_the_callers_network_and_generators_come_back(trained, batch_norm):
    trained.model.train()
    before = copy.deepcopy(trained.model.state_dict())
    random = torch.random.get_rng_state()
    last(finetune(trained, PLAN, QUICK, batch_norm=batch_norm))
    after = trained.model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(p.grad is None and p.requires_grad for p in trained.model.parameters())
    assert trained.model.training
    assert torch.equal(torch.random.get_rng_state(), random)
    trained.model.eval()


class Scaled(nn.Module):
    """A parameter of the network's own by the name that a grid's step size has."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(-1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale


def test_a_parameter_that_is_called_scale_may_stay_negative(trained):
    scaled = replace(trained, model=nn.Sequential(*trained.model, Scaled(), Scaled()).eval())
    end = last(finetune(scaled, PLAN, QUICK))
    assert end.best_step > 0
    for module in end.model[6:]:
        assert module.scale.item() == pytest.approx(-1, abs=0.5)


def test_a_layer_that_the_plan_leaves_float_keeps_its_norm_folded(trained):
    plan = replace(PLAN, weight_bits={"5": 2})
    end = last(finetune(trained, plan, QUICK, batch_norm="live"))
    assert list(end.model.state_dict()) == list(quantize(trained, plan).state_dict())


def test_test_images_choose_nothing(trained):
    images, labels = trained.test.tensors
    wrong = replace(trained, test=TensorDataset(images, (labels + 1) % CLASSES))
    ends = [last(finetune(w, PLAN, QUICK)) for w in (trained, wrong)]
    assert same(ends[0].model, ends[1].model)
    assert ends[0].best_step == ends[1].best_step


def test_images_held_back_are_not_trained_on(trained):
    seen = []

    class Watched(Shaken):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    watched = replace(trained, train=Watched(*trained.train.plain.tensors))
    held_back = next(iter(finetune(watched, PLAN, QUICK))).held_out
    last(finetune(watched, PLAN, QUICK))
    order = torch.randperm(320, generator=torch.Generator().manual_seed(0))[: held_back.samples]
    assert held_back.samples == 32
    assert not set(seen) & set(order.tolist())
    assert len(set(seen)) == 288


def test_the_best_is_the_latest_within_an_error_of_the_highest(trained):
    events = list(finetune(trained, PLAN, replace(QUICK, evaluate_every=1)))
    highest, best = (0.0, 0.0), 0
    for event in events:
        if isinstance(event, Measurement):
            low, high = event.held_out.interval
            highest = max(highest, (event.held_out.value, (high - low) / 2 / 1.959964))
            if event.held_out.value >= highest[0] - highest[1]:
                best = event.step
            assert event.best == (best == event.step)
    assert events[-1].best_step == best
    held = [e for e in events if isinstance(e, Measurement) and e.step == best]
    plain = replace(trained, test=torch.utils.data.Subset(trained.train.plain, held_indices()))
    assert evaluate(events[-1].model, plain).value == held[0].held_out.value


def held_indices() -> list[int]:
    order = torch.randperm(320, generator=torch.Generator().manual_seed(0))
    return sorted(order[:32].tolist())


def test_images_that_are_slow_to_read_are_read_by_other_processes(trained, tmp_path):
    class Slow(Shaken):
        def __getitem__(self, index):
            (tmp_path / str(os.getpid())).touch()
            time.sleep(0.02)
            return super().__getitem__(index)

    recipe = Recipe(epochs=0.2, batch_size=16, evaluate_every=100)
    expected = last(finetune(trained, PLAN, recipe))
    watched = replace(trained, train=Slow(*trained.train.plain.tensors))
    assert same(last(finetune(watched, PLAN, recipe)).model, expected.model)
    assert len(list(tmp_path.iterdir())) == 1 + min(4, os.cpu_count())


def test_distillation_alone_needs_no_right_labels(trained):
    images, labels = trained.train.plain.tensors
    wrong = replace(trained, train=Shaken(images, (labels + 1) % CLASSES))
    steps = [
        [
            event.loss
            for event in finetune(w, PLAN, QUICK, distillation=1)
            if isinstance(event, Step)
        ]
        for w in (trained, wrong)
    ]
    assert steps[0] == steps[1]


# Where it goes wrong


def test_a_training_that_runs_away_stops_and_keeps_the_best(trained):
    events = list(
        finetune(
            trained, PLAN, Recipe(epochs=20, batch_size=16), learning_rate=100.0, clip_norm=1e9
        )
    )
    steps = [event for event in events if isinstance(event, Step)]
    assert events[-1].stopped_because == "diverged"
    assert steps[-1].step < steps[-1].steps
    rounded = evaluate(quantize(trained, PLAN), trained)
    assert evaluate(events[-1].model, trained).value >= rounded.value - 0.05


def test_a_divergence_outlives_a_cut(trained, tmp_path):
    wild = {"learning_rate": 100.0, "clip_norm": 1e9, "epochs": 20, "checkpoint": tmp_path / "c.pt"}
    first = last(finetune(trained, PLAN, QUICK, **wild))
    (again,) = finetune(trained, PLAN, QUICK, **wild)
    assert again.stopped_because == first.stopped_because == "diverged"
    assert same(first.model, again.model)


def test_a_loss_that_is_no_number_stops_it(trained):
    images, labels = trained.train.plain.tensors
    nan = replace(trained, train=TensorDataset(images.clone().fill_(math.nan), labels))
    held = Shaken(images, labels).plain
    nan.train.plain = held
    end = last(finetune(nan, PLAN, QUICK))
    assert (end.stopped_because, end.step, end.best_step) == ("diverged", 1, 0)
    assert same(end.model, quantize(trained, PLAN))


def test_a_checkpoint_of_another_training_is_refused(trained, tmp_path):
    file = tmp_path / "c.pt"
    last(finetune(trained, PLAN, QUICK, checkpoint=file))
    with pytest.raises(
        FormatError,
        match=r"c.pt must be a checkpoint of this training, but its seed is 0, not 1: delete",
    ):
        last(finetune(trained, PLAN, QUICK, checkpoint=file, seed=1))
    with pytest.raises(FormatError, match="but its plan is"):
        last(finetune(trained, replace(PLAN, weight_bits={"0": 3, "5": 2}), QUICK, checkpoint=file))
    with pytest.raises(FormatError, match="but its recipe is"):
        last(finetune(trained, PLAN, QUICK, checkpoint=file, epochs=2))


def test_a_damaged_checkpoint_is_refused(trained, tmp_path):
    file = tmp_path / "c.pt"
    last(finetune(trained, PLAN, QUICK, checkpoint=file))
    whole = file.read_bytes()
    for content in (whole[: len(whole) // 2], b"", b"garbage" * 100):
        file.write_bytes(content)
        with pytest.raises(
            FormatError, match=r"c.pt must be a checkpoint of a fine-tuning, but cannot be read"
        ):
            last(finetune(trained, PLAN, QUICK, checkpoint=file))
    torch.save({"step": 3}, file)
    with pytest.raises(FormatError, match="cannot be read"):
        last(finetune(trained, PLAN, QUICK, checkpoint=file))


def test_a_checkpoint_that_cannot_be_written_leaves_the_last_one(trained, tmp_path, monkeypatch):
    file = tmp_path / "c.pt"
    events = finetune(trained, PLAN, QUICK, checkpoint=file, checkpoint_every=1)
    for event in events:
        if isinstance(event, Checkpoint) and event.step == 2:
            break
    whole = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("engine.finetuning.torch.save", full)
    with pytest.raises(OSError, match="No space left"):
        list(events)
    assert file.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["c.pt"]


def test_wrong_settings_are_named(trained):
    with pytest.raises(ValueError, match=r"settings must be among epochs, .*, got 'epoch'"):
        finetune(trained, PLAN, epoch=3)
    with pytest.raises(ValueError, match="learning_rate must be above 0, got 0"):
        finetune(trained, PLAN, learning_rate=0)
    with pytest.raises(ValueError, match="checkpoint_every must be at least 1, got 0"):
        finetune(trained, PLAN, checkpoint_every=0)
    own = replace(trained, loss=lambda outputs, targets: F.cross_entropy(outputs, targets))
    sentence = (
        "distillation must be 0 for a loss of your own, got 0.5: give it a method "
        "distance(outputs, taught) that says how far outputs are from the float network's."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        finetune(own, PLAN, distillation=0.5)
    assert isinstance(last(finetune(own, PLAN, QUICK)), Finished)
    per_tensor = replace(PLAN, quantizer={"weight_granularity": "tensor"})
    with pytest.raises(ValueError, match=r'batch_norm must be "frozen" with one scale a tensor'):
        finetune(trained, per_tensor, batch_norm="live")


@pytest.mark.parametrize(
    ("count", "sentence"),
    [(0, "at least one image"), (1, "train must hold at least 2 images, to hold one back, got 1")],
)
def test_too_few_training_images(trained, count, sentence):
    images, labels = trained.train.plain.tensors
    few = replace(trained, train=TensorDataset(images[:count], labels[:count]))
    with pytest.raises(ValueError, match=sentence):
        finetune(few, PLAN)


def test_a_plan_of_another_network_is_refused(trained):
    other = BitPlan("small", {"0": 2, "7": 2}, 0.0, 0.0)
    with pytest.raises(ValueError, match="'7'"):
        finetune(trained, other)


# The real network


def test_the_sample_network_climbs_back():
    workload = load_workload("resnet20-cifar10")
    plan = Analysis.load(stored_analysis("resnet20-cifar10")).uniform(3)
    events = list(finetune(workload, plan, evaluation_images=200, evaluate_every=100))
    first = next(event for event in events if isinstance(event, Measurement))
    assert first.test.value < 0.75
    assert evaluate(events[-1].model, workload, max_images=200).value > first.test.value + 0.08
