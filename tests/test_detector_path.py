"""A small detector from its analysis to fine-tuned integers: what is measured, how it learns."""

import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from tiny_detector import BOXES, SIDE, detection_workload, trained_detector
from torch import Tensor
from torch.utils.data import Dataset, TensorDataset

from engine.detection import mean_average_precision, precision_of
from engine.evaluation import evaluate, measured_precision
from engine.finetuning import Finished, Measurement, Reference, Step, finetune
from engine.layers import find_layers
from engine.perturbation import analyze
from engine.quantized import load_quantized, quantize, save_quantized
from engine.recipe import Recipe
from engine.results import BitPlan
from engine.workloads import Workload, example_image

QUICK = Recipe(epochs=2, batch_size=16, evaluation_images=32, learning_rate=1e-3)


@pytest.fixture(scope="module")
def squares() -> Workload:
    return detection_workload(trained_detector())


@pytest.fixture(scope="module")
def plan(squares) -> BitPlan:
    names = [layer.name for layer in find_layers(squares.model, example_image(squares.test))]
    return BitPlan("squares", dict.fromkeys(names, 3), 0.0, 0.0)


def last(events) -> Finished:
    *_, end = events
    assert isinstance(end, Finished)
    return end


def losses(events) -> list[float]:
    return [event.loss for event in events if isinstance(event, Step)]


# --- what is measured


def test_map_and_loss_are_those_of_one_image_after_the_other(squares):
    found, losses, targets = [], [], []
    with torch.no_grad():
        for image, target in squares.test:
            outputs = squares.model(image[None])
            found += squares.loss.detections(outputs)
            losses.append(float(squares.loss(outputs, target[None])))
            targets.append(target)
    slow = mean_average_precision(found, targets)
    assert 0.1 < slow < 0.9  # neither of no use nor without fault
    for batch_size in (7, None):
        measured = evaluate(squares.model, squares, batch_size=batch_size)
        assert (measured.metric, measured.samples) == ("mAP", 80)
        assert measured.value == pytest.approx(slow, abs=1e-6)
        low, high = measured.interval
        assert 0 <= low < slow < high <= 1
        assert measured.loss == pytest.approx(sum(losses) / 80, rel=1e-5)
        spread = torch.tensor(losses).std().item() / 80**0.5
        assert measured.loss_sem == pytest.approx(spread, rel=1e-3)
    precision = measured_precision(squares.model, squares)
    assert precision.value == measured.value
    assert precision.interval == measured.interval
    assert precision.without == pytest.approx(precision_of(found, targets).without, abs=1e-6)
    some = evaluate(squares.model, squares, max_images=9)
    assert some.value == pytest.approx(mean_average_precision(found[:9], targets[:9]), abs=1e-6)


@pytest.mark.parametrize("measure", [evaluate, measured_precision])
@pytest.mark.parametrize(
    ("targets", "sentence"),
    [
        (torch.zeros(4, 5), "targets must be [4 images, boxes, 5], got [4, 5]."),
        (
            torch.full((4, BOXES, 5), 3.0),
            "targets must be classes in 0…1, or −1 for none, got 3: "
            "take data and model of the same task.",
        ),
    ],
)
def test_targets_that_are_no_boxes_are_refused(squares, measure, targets, sentence):
    wrong = replace(squares, test=TensorDataset(torch.zeros(4, 3, SIDE, SIDE), targets))
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        measure(squares.model, wrong)


class Changed(Dataset):
    """A dataset with `change` made to each (index, image, target): an image and a target."""

    def __init__(self, data: Dataset, change: Callable[[int, Tensor, Tensor], object]) -> None:
        self.data, self.change = data, change

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int):
        return self.change(index, *self.data[index])


def test_targets_of_different_lengths_are_refused_everywhere(squares, plan):
    sentence = (
        r"targets must have one shape, got \[[12], 5\] and \[[12], 5\]: fill up with class −1\."
    )
    ragged = Changed(squares.test, lambda i, image, target: (image, target[: 1 + i % 2]))
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        evaluate(squares.model, replace(squares, test=ragged))
    for activations in (False, True):
        with pytest.raises(ValueError, match=f"^{sentence}$"):
            analyze(replace(squares, calibration=ragged), activations=activations, batch_size=8)
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        last(finetune(replace(squares, train=ragged), plan, QUICK))


def test_images_of_different_sizes_are_refused(squares):
    sized = Changed(squares.test, lambda i, image, target: (image[:, : SIDE - i % 2], target))
    sentence = (
        "images must have one shape, got [3, 16, 16] and [3, 15, 16]: bring images to one size."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        evaluate(squares.model, replace(squares, test=sized))


# --- the whole path


def test_from_the_analysis_to_a_network_of_integers(squares, tmp_path):
    analysis = analyze(squares, bit_widths=(2, 4, 8), batch_size=8)
    assert analysis.exact
    assert not analysis.skipped
    assert not analysis.skipped_activations
    names = [layer.name for layer in analysis.layers]
    assert names == ["stem", "down", "lateral", "tower", "kinds", "places"]
    assert [a.readers for a in analysis.activations] == [
        ("stem",),
        ("down", "lateral"),
        ("tower",),
        ("kinds", "places"),
    ]
    assert analysis.loss == "focal loss and smooth L1 loss (β = 0.111)"
    size = sum(layer.parameters for layer in analysis.layers) / 2  # 4 bits
    plan = analysis.frontier(activations=8).within(size)
    whole = evaluate(squares.model, squares)
    for sums in ("float", "integer"):
        model = quantize(squares, plan, sums=sums)
        rounded = evaluate(model, squares)
        assert rounded.value > 0.5 * whole.value
        save_quantized(model, tmp_path / sums)
        again = load_quantized(squares, tmp_path / sums)
        images = torch.stack([image for image, _ in squares.test])
        assert torch.equal(again(images), model(images))


# --- fine-tuning


def test_it_makes_up_for_the_rounding(squares, plan):
    events = list(finetune(squares, plan, QUICK))
    reference = next(event for event in events if isinstance(event, Reference))
    assert reference.test.metric == reference.held_out.metric == "mAP"
    rounded = quantize(squares, plan)
    assert evaluate(events[-1].model, squares).loss < 0.9 * evaluate(rounded, squares).loss


def test_the_best_is_the_latest_within_the_error_of_its_map(squares, plan):
    events = list(finetune(squares, plan, QUICK, evaluate_every=2))
    measured = [event for event in events if isinstance(event, Measurement)]
    highest, best = (0.0, 0.0), 0
    for event in measured:
        found = event.held_out
        low, high = found.interval
        highest = max(highest, (found.value, (high - low) / 2 / 1.959964))
        if found.value >= highest[0] - highest[1]:
            best = event.step
        assert event.best == (best == event.step)
    assert events[-1].best_step == best
    assert all(a.step < b.step for a, b in pairwise(measured))


def test_a_float_detector_teaches_without_targets(squares, plan):
    nothing = Changed(squares.train, lambda _, image, target: (image, torch.full_like(target, -1)))
    untold = replace(squares, train=nothing)
    taught = [losses(finetune(data, plan, QUICK, distillation=1.0)) for data in (squares, untold)]
    assert taught[0] == taught[1]
    first, end = sum(taught[0][:4]), sum(taught[0][-4:])
    assert end < 0.8 * first
    told = losses(finetune(squares, plan, QUICK))
    assert told[0] != taught[0][0]  # by default the targets teach


def test_resuming_equals_no_interruption(squares, plan, tmp_path):
    whole = last(finetune(squares, plan, QUICK))
    file = tmp_path / "checkpoint.pt"
    for event in finetune(squares, plan, QUICK, checkpoint=file, checkpoint_every=3):
        if isinstance(event, Step) and event.step == 5:
            break
    again = last(finetune(squares, plan, QUICK, checkpoint=file, checkpoint_every=3))
    assert again.best_step == whole.best_step
    ours, theirs = again.model.state_dict(), whole.model.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_measurements_on_the_way_see_few_images(squares, plan):
    events = finetune(squares, plan, QUICK, evaluation_images=10)
    measured = next(event for event in events if isinstance(event, Measurement))
    assert (measured.held_out.samples, measured.test.samples) == (10, 10)
