"""Networks with one flaw each, and what is said of it; of a clean one nothing."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from engine.checklist import Finding, check_network

IMAGES = torch.randn(4, 2, 6, 6, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(4) % 3


class Net(nn.Module):
    """A convolution, a batch norm that has seen images, whatever is asked, a linear layer."""

    def __init__(self, between: Callable[["Net", Tensor], Tensor] = lambda _, x: x) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.relu = nn.ReLU()
        self.fc = nn.Linear(4, 3)
        self.between = between
        self(IMAGES)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = self.between(self, self.relu(self.norm(self.conv(x))))
        return self.fc(x.mean((2, 3)))


def told(model: nn.Module, targets: Tensor | None = TARGETS, **given) -> list[Finding]:
    return list(check_network(model, IMAGES, targets, **given))


def only(model: nn.Module, targets: Tensor | None = TARGETS, **given) -> Finding:
    (finding,) = told(model, targets, **given)
    assert finding.sentence.endswith(".")
    return finding


def test_of_a_clean_network_there_is_nothing_to_know():
    assert told(Net()) == []


def test_the_network_comes_back_as_it_was():
    model = Net()
    model.norm.train()
    model.conv.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.random.get_rng_state()
    told(model)
    assert model.norm.training
    assert not model.training
    assert not model.conv.weight.requires_grad
    assert model.conv.weight.grad is None
    assert not model.conv._forward_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_problems_come_first():
    model = Net(lambda _, x: F.silu(x))
    with torch.no_grad():
        model.fc.bias[0] = torch.nan
    assert [finding.severity for finding in told(model, None)] == ["problem", "note"]


# --- weights


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_numbers_that_are_not_finite(value):
    model = Net()
    model.norm.running_mean[1] = value
    finding = told(model, None)[0]
    assert (finding.severity, finding.subject) == ("problem", "norm.running_mean")
    assert finding.sentence.startswith("Here are numbers that are not finite")


def test_weights_that_nothing_reads():
    model = Net()
    model.spare = nn.Linear(2, 2)
    finding = only(model)
    assert (finding.severity, finding.subject) == ("note", "spare.weight, spare.bias")
    assert finding.sentence.startswith("No operator reads these weights: ")


def test_weights_that_other_operators_read():
    model = Net()
    model.place = nn.Parameter(torch.ones(4, 1, 1))
    model.between = lambda net, x: x + net.place
    finding = only(model)
    assert (finding.severity, finding.subject) == ("note", "place")
    assert finding.sentence.startswith("No convolution or matrix product reads these weights")


def test_layers_called_twice():
    model = Net()
    model.again = nn.Conv2d(4, 4, 1)
    model.between = lambda net, x: net.again(F.relu(net.again(x)))
    finding = next(one for one in told(model) if "called more than once" in one.sentence)
    assert (finding.severity, finding.subject) == ("note", "again (2 times)")


def test_no_layer_at_all():
    model = nn.Sequential(nn.Flatten(), nn.ReLU())
    finding = only(model, None)
    assert (finding.severity, finding.subject) == ("problem", "Sequential")
    assert finding.sentence.startswith("It calls no convolution and no linear layer")


# --- batch norms


def test_batch_norms_in_training_mode():
    model = Net()
    model.norm.train()
    finding = only(model)
    assert (finding.severity, finding.subject) == ("note", "norm")
    assert finding.sentence.startswith("These batch norms are in training mode.")


def test_batch_norms_without_statistics():
    model = Net()
    model.norm = nn.BatchNorm2d(4, track_running_stats=False).eval()
    finding = told(model)[0]
    assert (finding.severity, finding.subject) == ("problem", "norm")
    assert finding.sentence.startswith("These batch norms keep no mean and spread")


def test_batch_norms_that_have_seen_nothing():
    model = Net()
    model.norm.reset_running_stats()
    finding = only(model)
    assert (finding.severity, finding.subject) == ("problem", "norm")
    assert finding.sentence.startswith("These batch norms have never seen an image")


# --- what it does


def test_modules_that_work_in_place():
    model = Net()
    model.relu = nn.ReLU(inplace=True)
    finding = only(model)
    assert (finding.severity, finding.subject) == ("note", "relu")
    assert finding.sentence.startswith("These modules work in place (inplace=True). Nobody else")


class Overwrites(Net):
    """A layer reads a tensor that is changed after it."""

    def forward(self, x: Tensor) -> Tensor:
        features = self.norm(self.conv(x))
        means = features.square().mean((2, 3))
        return self.fc(means + F.relu_(features).mean((2, 3)))


def test_tensors_changed_under_another_reader():
    found = told(Overwrites(), None)
    assert [one.subject for one in found if one.severity == "problem"] == [
        "Overwrites",
        "backward pass",
    ]
    assert found[0].sentence.startswith(
        "It changes a tensor in place (relu_) that another operator has read"
    )
    assert "relu or inplace=False" in found[0].sentence
    assert found[1].sentence.startswith("It fails (one of the variables needed for gradient")


def test_a_copy_may_be_changed_in_place():
    assert told(Net(lambda _, x: x.clone().mul_(2.0))) == []


class Shifts(Net):
    """It changes the images that it is given."""

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        return super().forward(x)


def test_images_that_are_changed():
    images = IMAGES.clone()
    model = Shifts()
    before = images.clone()
    found = check_network(model, images, TARGETS)
    assert torch.equal(images, before)
    assert (found[0].severity, found[0].subject) == ("problem", "Shifts")
    assert found[0].sentence.startswith("It writes into the images it is given")


def test_draws_at_random():
    finding = told(Net(lambda _, x: F.dropout(x, training=True)), None)[0]
    assert (finding.severity, finding.subject) == ("problem", "outputs")
    assert finding.sentence.startswith("Two passes over the same images in eval mode differ")


@pytest.mark.parametrize(
    ("between", "subject", "operators"),
    [
        (lambda _, x: F.silu(x), "conv", "(Silu)"),
        (lambda _, x: x * x, "conv", "(product of two things that depend on them, Mul)"),
        (lambda _, x: torch.sigmoid(x).tanh(), "conv", "(Sigmoid, Tanh)"),
    ],
)
def test_functions_that_are_not_piecewise_linear(between, subject, operators):
    finding = only(Net(between))
    assert (finding.severity, finding.subject) == ("note", subject)
    assert f"is not piecewise linear {operators}: their traces are" in finding.sentence


def test_weights_that_no_gradient_reaches():
    finding = only(Net(lambda _, x: x.detach()))
    assert (finding.severity, finding.subject) == ("problem", "conv")
    assert finding.sentence.startswith("No gradient arrives at these weights")


class NoGradient(Net):
    """It computes without a graph."""

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)


def test_a_network_without_gradients():
    found = [one for one in told(NoGradient()) if one.severity == "problem"]
    assert [one.subject for one in found] == ["conv, fc"]


def test_inputs_that_cannot_be_reached():
    finding = only(nn.Sequential(nn.Flatten(), Inside()))
    assert (finding.severity, finding.subject) == ("note", "1.two")
    assert finding.sentence.startswith("What these layers read cannot be rounded, for no module")


class Inside(nn.Module):
    """A layer's input that no module hands on."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(72, 6), nn.Parameter(torch.randn(3, 6))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.one(x) + 1, self.two)


class OneSize(Net):
    """It takes no batch of three images."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == 3:
            raise RuntimeError("three are too many")
        return super().forward(x)


def test_inputs_that_cannot_be_found():
    finding = only(OneSize())
    assert (finding.severity, finding.subject) == ("problem", "inputs of layers")
    assert finding.sentence.startswith("They cannot be found, RuntimeError('three are too many')")


def test_a_network_that_fails():
    model = Net()
    model.between = lambda _, x: x[:, :3]
    finding = only(model)
    assert (finding.severity, finding.subject) == ("problem", "forward pass")
    assert finding.sentence.startswith("It fails on images of 4×2×6×6, RuntimeError(")


# --- outputs and loss


class Pair(Net):
    """Two outputs."""

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        return out, out


def test_outputs_that_are_several():
    finding = only(Pair())
    assert (finding.severity, finding.subject) == ("problem", "outputs")
    assert finding.sentence.startswith("They are tuple, not one tensor")


def test_outputs_that_are_probabilities():
    finding = told(nn.Sequential(nn.Flatten(), nn.Linear(72, 3), nn.Softmax(1)))[0]
    assert (finding.severity, finding.subject) == ("problem", "outputs")
    assert finding.sentence.startswith("They are probabilities, and cross_entropy")


def test_a_loss_that_is_a_sum():
    def total(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(outputs, targets, reduction="sum")

    finding = only(Net(), loss=total)
    assert (finding.severity, finding.subject) == ("problem", "loss")
    assert finding.sentence.startswith("Loss must be a mean over images, got a sum (")
    assert finding.sentence.endswith("divide by the number of images.")


def test_a_loss_that_fails():
    finding = only(Net(), loss=lambda *_: 1 / 0)
    assert finding == Finding("problem", "loss", "It fails, ZeroDivisionError('division by zero').")


def test_without_targets_no_loss_is_looked_at():
    assert told(Net(), None, loss=lambda *_: 1 / 0) == []


def test_a_finding_is_plain_json():
    assert Finding("note", "a", "B.").to_json() == {
        "severity": "note",
        "subject": "a",
        "sentence": "B.",
    }
