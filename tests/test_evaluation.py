"""Accuracy and loss against a slow loop over the images, and what is said of wrong input."""

import math
import re
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import Dataset, Subset, TensorDataset

from engine.detection import Anchors, DetectionLoss
from engine.evaluation import correct_images, evaluate
from engine.quantized import quantize
from engine.results import BitPlan, wilson_interval
from engine.workloads import Workload, load_workload

CLASSES = 3


def network(classes: int = CLASSES) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, classes))


def workload(count: int = 23, test: Dataset | None = None, **given: object) -> Workload:
    generator = torch.Generator().manual_seed(2)
    images = torch.randn(count, 4, generator=generator)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    data = TensorDataset(images, labels) if test is None else test
    return Workload("toy", nn.Identity(), data, data, data, **given)


def one_by_one(model: nn.Module, data: Dataset, count: int) -> tuple[int, list[float]]:
    """Right answers and the loss of each image, each alone."""
    model.eval()
    right, losses = 0, []
    for i in range(count):
        image, label = data[i]
        (scores,) = model(image[None]).tolist()
        right += scores.index(max(scores)) == int(label)
        largest = max(scores)
        total = sum(math.exp(score - largest) for score in scores)
        losses.append(math.log(total) + largest - scores[int(label)])
    return right, losses


@given(st.integers(1, 30), st.integers(1, 40), st.none() | st.integers(1, 40))
@settings(max_examples=25)
def test_accuracy_and_loss_are_those_of_a_slow_loop(count, batch_size, max_images):
    model, toy = network(), workload(count)
    seen = min(count, max_images or count)
    right, losses = one_by_one(model, toy.test, seen)
    found = evaluate(model, toy, batch_size=batch_size, max_images=max_images)
    mean = sum(losses) / seen
    spread = math.sqrt(sum((loss - mean) ** 2 for loss in losses) / max(1, seen - 1) / seen)
    assert (found.metric, found.samples, found.value) == ("top-1", seen, right / seen)
    assert found.interval == wilson_interval(right, seen)
    assert found.loss == pytest.approx(mean, rel=1e-5)
    assert found.loss_sem == pytest.approx(spread, rel=1e-4, abs=1e-9)


def test_top_5_counts_a_class_among_the_first_five_guesses():
    images = torch.randn(40, 4, generator=torch.Generator().manual_seed(3))
    toy = workload(test=TensorDataset(images, torch.arange(40) % 7), metric="top-5")
    model, right = network(7).eval(), []
    for image, label in toy.test:
        scores = model(image[None])[0].tolist()
        right.append(int(label) in sorted(range(7), key=lambda k: -scores[k])[:5])
    found = evaluate(model, toy, batch_size=9)
    assert (found.metric, found.value) == ("top-5", sum(right) / 40)
    assert found.value > evaluate(model, replace(toy, metric="top-1")).value
    assert correct_images(model, toy).tolist() == right


def test_of_equal_scores_the_first_are_the_guesses():
    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros(len(x), 40)

    toy = workload(test=TensorDataset(torch.zeros(40, 4), torch.arange(40)), metric="top-5")
    assert correct_images(Undecided(), toy).tolist() == [True] * 5 + [False] * 35


def test_large_images_come_fewer_at_once():
    class Watching(nn.Module):
        seen: ClassVar[list[int]] = []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(len(x))
            return x.flatten(1)[:, :CLASSES]

    for shape in ((3, 4, 4), (3, 700, 1000)):
        images = torch.zeros(1, *shape).expand(501, *shape)
        toy = workload(test=TensorDataset(images, torch.zeros(501, dtype=torch.int64)))
        evaluate(Watching(), toy, max_images=5 if shape[1] > 4 else None)
    assert Watching.seen == [500, 1, 3, 2]


def test_a_callable_loss_is_weighted_by_mini_batch_sizes():
    def sum_of_squares(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - F.one_hot(targets, CLASSES)).square().sum(1).mean()

    model, toy = network(), workload(23, loss=sum_of_squares)
    whole = evaluate(model, toy, batch_size=23)
    parts = evaluate(model, toy, batch_size=5)
    assert parts.loss == pytest.approx(whole.loss, rel=1e-6)
    assert parts.value == whole.value
    images, labels = toy.test.tensors
    by_hand = sum_of_squares(model.eval()(images), labels)
    assert whole.loss == pytest.approx(by_hand.item(), rel=1e-6)
    assert (whole.loss_sem == 0) != (parts.loss_sem == 0)  # one mini-batch has no spread


def test_one_number_an_output_makes_the_largest_the_class():
    images, labels = workload().test.tensors
    spread = F.one_hot(labels, CLASSES).float()
    toy = workload(test=TensorDataset(images, spread), loss="mse")
    model = network()
    found = evaluate(model, toy, batch_size=7)
    outputs = model.eval()(images)
    each = [((outputs[i] - spread[i]) ** 2).sum().item() / CLASSES for i in range(len(images))]
    assert found.loss == pytest.approx(sum(each) / len(each), rel=1e-5)
    assert found.value == evaluate(model, workload()).value


def test_the_record_says_which_images_and_how_to_see_them_again():
    seen = []
    toy = workload(7)
    found = evaluate(network(), toy, batch_size=3, progress=lambda *told: seen.append(told))
    assert seen == [(3, 7, "test images"), (6, 7, "test images"), (7, 7, "test images")]
    assert found.provenance.data == "TensorDataset, 7 images"
    assert found.provenance.command == "evaluate(Workload(name='toy', …))"
    first = evaluate(network(), toy, max_images=5, command="again")
    assert first.samples == 5
    assert first.provenance.data == "the first 5 of TensorDataset, 7 images"
    assert first.provenance.fingerprint == found.provenance.fingerprint
    assert first.provenance.command == "again"
    assert evaluate(network(), toy, max_images=99).samples == 7


def test_a_quantized_network_is_measured_with_its_rounded_weights():
    model, toy = network(), workload()
    with torch.no_grad():
        model(torch.randn(64, 4))
    toy = Workload("toy", model, toy.test, toy.test, toy.test)
    rounded = quantize(toy, BitPlan("toy", {"0": 2, "3": 2}, 0.0, 0.0))
    right, losses = one_by_one(rounded, toy.test, 23)
    found = evaluate(rounded, toy)
    assert found.value == right / 23
    assert found.loss == pytest.approx(sum(losses) / 23, rel=1e-5)
    assert found.loss != pytest.approx(evaluate(model, toy).loss, rel=1e-3)


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_comes_back_as_it_was(fails):
    model = network(2 if fails else CLASSES).requires_grad_(False)
    model.train()
    model[1].eval()
    before = [module.training for module in model.modules()]
    statistics = model[1].running_mean.clone()
    if fails:
        with pytest.raises(ValueError, match="targets must be classes in 0…1"):
            evaluate(model, workload())
    else:
        evaluate(model, workload())
    assert [module.training for module in model.modules()] == before
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(model[1].running_mean, statistics)


def test_no_graph_is_kept():
    class Watching(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            out = super().forward(x)
            assert not out.requires_grad
            return out

    evaluate(Watching(4, CLASSES), workload())
    assert torch.is_grad_enabled()


# --- bad input


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"max_images": 0}, "max_images must be at least 1, got 0."),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0."),
    ],
)
def test_arguments_out_of_range_are_refused(given, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        evaluate(network(), workload(), **given)


@pytest.mark.parametrize(
    ("toy", "text"),
    [
        (workload(metric="F1"), "metric must be one of top-1, top-5, mAP, got 'F1'."),
        (
            workload(metric="mAP"),
            "loss must say what boxes outputs mean, for the metric mAP, got 'cross_entropy': "
            "take one like detection.DetectionLoss, or another metric.",
        ),
        (
            workload(metric="top-5"),
            "metric must be one that can fail, got 'top-5' of 3 outputs: take top-1.",
        ),
        (workload(0), "dataset must hold at least one image, got 0 images."),
        (
            workload(loss="hinge"),
            "loss must be one of cross_entropy, mse or a callable, got 'hinge'.",
        ),
    ],
)
def test_workloads_that_cannot_be_measured_are_refused(toy, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        evaluate(network(), toy)


def test_which_images_are_right_is_not_asked_of_boxes():
    toy = workload(metric="mAP", loss=DetectionLoss(Anchors.of((8,), 16, 16)))
    sentence = (
        "metric must be top-1 or top-5 to tell which images are right, got 'mAP': "
        "take measured_precision."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        correct_images(network(), toy)


@pytest.mark.parametrize(
    ("labels", "text"),
    [
        (
            torch.tensor([0, 1, 2, 3]),
            "targets must be classes in 0…2, as many as the model has outputs, got 3: "
            "take labels and model of the same task.",
        ),
        (
            torch.tensor([0, -1, 2, 0]),
            "targets must be classes in 0…2, as many as the model has outputs, got -1: "
            "take labels and model of the same task.",
        ),
        (
            torch.tensor([0.0, 1.0, 2.0, 0.0]),
            "targets must be class numbers for cross_entropy, got torch.float32: "
            'give labels as integers, or set loss="mse".',
        ),
        (
            torch.zeros(4, 2, dtype=torch.int64),
            "targets must be one class, or one number an output, for each image, "
            "got targets [4, 2] for outputs [4, 3]: take labels and model of the same task.",
        ),
    ],
)
def test_labels_that_do_not_match_are_refused(labels, text):
    toy = workload(test=TensorDataset(torch.randn(4, 4), labels))
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        evaluate(network(), toy)


@pytest.mark.parametrize("loss", ["cross_entropy", F.cross_entropy])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_refused(value, loss):
    model = network()
    with torch.no_grad():
        model[3].weight[0, 0] = value
    with pytest.raises(ValueError, match=r"^loss of test images 0…4 must be finite, got ") as error:
        evaluate(model, workload(loss=loss), batch_size=5)
    assert str(error.value).endswith(": look for NaN in the images or the weights.")


def test_the_images_that_are_not_finite_are_named():
    images, labels = (part.clone() for part in workload(12).test.tensors)
    images[6, 1] = math.nan
    with pytest.raises(ValueError, match=r"^loss of test images 5…9 must be finite, got nan: "):
        evaluate(network(), workload(test=TensorDataset(images, labels)), batch_size=5)


def test_a_network_of_two_outputs_is_refused():
    class Pair(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x, x

    with pytest.raises(ValueError, match=r"^model must return one tensor, got tuple: wrap it in a"):
        evaluate(Pair(), workload())


def test_the_command_says_how_many_images_were_asked_for():
    model, toy = network(), workload()
    assert evaluate(model, toy).provenance.command == "evaluate(Workload(name='toy', …))"
    asked = evaluate(model, toy, max_images=5).provenance.command
    assert asked == "evaluate(Workload(name='toy', …), max_images=5)"


# Comparisons image by image


def test_correct_images_are_those_that_evaluate_counts():
    sample = load_workload("resnet20-cifar10")
    some = replace(sample, test=Subset(sample.test, range(150)))
    right = correct_images(some.model, some, batch_size=64)
    assert right.mean() == evaluate(some.model, some).value
    images = torch.stack([image for image, _ in some.test])
    labels = np.array([label for _, label in some.test])
    assert (right == (some.model(images).argmax(1).numpy() == labels)).all()


def test_each_image_is_told_once_in_their_order():
    model, toy, told = network(), workload(23), []
    found = evaluate(model, toy, batch_size=5, max_images=17, each=told.append)
    (outcomes,) = told
    for i in (0, 4, 16):
        right, (loss,) = one_by_one(model, Subset(toy.test, [i]), 1)
        assert outcomes.right[i] == right
        assert outcomes.losses[i] == pytest.approx(loss, rel=1e-5)
    assert outcomes.right.mean() == found.value
    assert outcomes.losses.mean() == pytest.approx(found.loss)


def test_a_loss_that_tells_only_batches_apart_has_none_of_each_image():
    def whole(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets)

    told = []
    evaluate(network(), workload(7, loss=whole), batch_size=4, each=told.append)
    assert told[0].losses is None
    assert told[0].right.shape == (7,)


def test_evaluate_leaves_torchs_generator_alone():
    model, data = network(), workload()
    before = torch.random.get_rng_state()
    evaluate(model, data)
    assert torch.equal(torch.random.get_rng_state(), before)
