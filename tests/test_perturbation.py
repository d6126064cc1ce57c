"""Ω from its two factors, computed the slow way; what folding batch norms leaves as it is."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from engine.analysis import Analysis
from engine.layers import find_layers, fold_batch_norm
from engine.perturbation import analyze, squared_error
from engine.quantizers import Quantizer
from engine.traces import average_traces
from engine.workloads import Workload


def small_workload(count: int = 96) -> Workload:
    """A network with batch norms that have seen data, on made-up images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1, bias=False),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.Conv2d(5, 6, 3, stride=2),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(54, 4),
    )
    with torch.no_grad():
        for _ in range(20):
            model(3 * torch.randn(64, 3, 7, 7) + 1)
        for norm in (model[1], model[4]):
            norm.weight.uniform_(0.2, 3)
            norm.bias.normal_()
    images, labels = torch.randn(count, 3, 7, 7), torch.randint(0, 4, (count,))
    data = TensorDataset(images, labels)
    return Workload("small", model.eval(), calibration=data, train=data, test=data)


def test_omega_is_the_trace_times_the_perturbation() -> None:
    workload = small_workload()
    analysis = analyze(workload, bit_widths=(4, 2), seed=3)
    assert analysis.bit_widths == (2, 4)
    assert analysis.names == ("0", "3", "7")
    folded = fold_batch_norm(workload.model, workload.test[0][0].unsqueeze(0))
    for layer in analysis.layers:
        weight = folded.get_parameter(f"{layer.name}.weight").detach().flatten(1)
        for bits in (2, 4):
            rounded = Quantizer().fit(weight, bits).round(weight)
            slow = sum(
                (float(q) - float(w)) ** 2
                for q, w in zip(rounded.flatten(), weight.flatten(), strict=True)
            )
            assert layer.perturbation[bits] == pytest.approx(slow, rel=1e-5)
            assert layer.omega[bits] == pytest.approx(layer.trace.for_omega * slow, rel=1e-5)


def test_traces_are_of_the_folded_network() -> None:
    workload = small_workload()
    analysis = analyze(workload, seed=3)
    folded = fold_batch_norm(workload.model, workload.test[0][0].unsqueeze(0))
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(96, generator=generator)
    images, labels = workload.calibration.tensors
    batches = [(images[i], labels[i]) for i in order.split(3)]  # 96 images fill 32 mini-batches
    traces = average_traces(folded, batches, relative_sem=0.1, generator=generator)
    assert analysis.batch_sizes.tolist() == [3] * len(traces.batch_sizes)
    assert analysis.batch_traces == pytest.approx(traces.batch_traces)


@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_a_negative_trace_leaves_omega_its_error(granularity) -> None:
    class Hill:
        """Curved downwards in every output."""

        elementwise = True

        def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
            return -outputs.square().sum(1).mean() + 0 * targets.sum()

    workload = replace(small_workload(), loss=Hill())
    analysis = analyze(workload, granularity=granularity, bit_widths=(3, 8), activations=True)
    assert len(analysis.below_error) == len(analysis.layers) + len(analysis.activations)
    for one in (*analysis.layers, *analysis.activations):
        assert one.trace.mean < 0 < one.trace.sem
        for bits in (3, 8):
            assert one.omega[bits] == pytest.approx(one.trace.sem * one.perturbation[bits])
    plan = analysis.frontier().within(analysis.uniform(3).size_bytes)
    assert plan.omega > 0


def test_folding_changes_omega_by_layer_but_not_by_channel() -> None:
    workload = small_workload()
    unfolded, example = workload.model, workload.test[0][0].unsqueeze(0)
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(96, generator=generator)
    images, labels = workload.calibration.tensors
    batches = [(images[i], labels[i]) for i in order.split(3)]
    traces = average_traces(unfolded, batches, relative_sem=1e-9, generator=generator)
    errors = {
        layer.name: squared_error(
            unfolded.get_parameter(layer.parameter).detach().flatten(1), 3, Quantizer()
        ).numpy()
        for layer in find_layers(unfolded, example)
    }
    options = {"bit_widths": (3,), "relative_sem": 1e-9, "seed": 3}
    by_channel = analyze(workload, granularity="channel", **options)  # type: ignore[arg-type]
    by_layer = analyze(workload, **options)  # type: ignore[arg-type]
    for channel, layer in zip(by_channel.layers, by_layer.layers, strict=True):
        error, name = errors[layer.name], layer.name
        assert channel.omega[3] == pytest.approx(np.array(traces.channels[name]) @ error, rel=1e-3)
        if name != "7":  # which no batch norm follows
            assert layer.omega[3] != pytest.approx(
                traces.weights[name].mean * error.sum(), rel=0.02
            )


def test_the_loss_rises_by_half_omega_for_perturbations_in_random_directions() -> None:
    """Ω replaces ΔW by a random direction of its length: E[ΔᵀHΔ] / 2 = Tr(H) / n · ‖ΔW‖² / 2."""
    workload = small_workload(256)
    analysis = analyze(workload, bit_widths=(8,), relative_sem=1e-9)
    folded = fold_batch_norm(workload.model, workload.test[0][0].unsqueeze(0)).double()
    images, labels = workload.calibration.tensors
    generator = torch.Generator().manual_seed(0)
    for layer in analysis.layers:
        weight = folded.get_parameter(f"{layer.name}.weight")
        length = 1e-5 * float(weight.detach().norm())
        rises = []
        for _ in range(400):
            direction = torch.randn(weight.shape, generator=generator, dtype=torch.double)
            direction *= length / direction.norm()
            losses = []
            for sign in (1, -1, 0):  # the first-order term cancels, no kink is crossed
                with torch.no_grad():
                    weight += sign * direction
                    losses.append(
                        float(nn.functional.cross_entropy(folded(images.double()), labels))
                    )
                    weight -= sign * direction
            rises.append((losses[0] + losses[1]) / 2 - losses[2])
        predicted = 0.5 * layer.trace.mean * length**2
        error = float(np.hypot(np.std(rises) / 20, 0.5 * layer.trace.sem * length**2))
        assert abs(np.mean(rises) - predicted) < 4 * error


def test_a_result_says_how_it_was_made() -> None:
    analysis = analyze(small_workload(), bit_widths=(2, 8), seed=7, max_images=40)
    made = analysis.provenance
    assert (made.seed, made.data) == (7, "TensorDataset, 96 images")
    assert made.command.startswith("analyze(Workload(name='small', …), bit_widths=(2, 8), ")
    assert made.command.endswith("seed=7, max_images=40)")
    assert (analysis.images, analysis.stopped_because) == (40, "images")
    registered = replace(small_workload(), origin="small --data sample")
    command = analyze(registered, bit_widths=(2, 8), max_images=40).provenance.command
    assert command.startswith("hawq-viz analyze small --data sample --bit-widths 2 8 ")


def test_an_analysis_saves_and_comes_back(tmp_path) -> None:
    analysis = analyze(small_workload(), bit_widths=(2, 8))
    analysis.save(tmp_path / "a.json")
    back = Analysis.load(tmp_path / "a.json")
    assert back.layers == analysis.layers
    assert (back.batch_traces == analysis.batch_traces).all()


def test_progress_is_told_in_two_stages() -> None:
    told: list[tuple[int, int, str]] = []
    analyze(small_workload(), bit_widths=(2, 8), progress=lambda *x: told.append(x))
    assert told[0] == (0, 3, "layers rounded to every bit width")
    assert told[-1][1] == 96
    assert told[-1][2].startswith("images, median error ")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"bit_widths": (2, 9)}, r"bit_widths must be a whole number of bits in 1…8, got 9"),
        ({"bit_widths": ()}, "bit_widths must name at least one bit width, got none"),
        ({"granularity": "block"}, "granularity must be one of layer, channel, got 'block'"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"max_images": 1}, "max_images must be at least 2, for an error bar, got 1"),
        ({"scheme": "ternary"}, "scheme must be one of symmetric, asymmetric, got 'ternary'"),
    ],
)
def test_bad_arguments_are_named(options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        analyze(small_workload(), **options)  # type: ignore[arg-type]


def test_data_of_one_image_or_none_are_named() -> None:
    with pytest.raises(ValueError, match="calibration must hold at least 2 images, for an error"):
        analyze(small_workload(1))
    workload = small_workload()
    empty = TensorDataset(torch.zeros(0, 3, 7, 7), torch.zeros(0, dtype=torch.long))
    with pytest.raises(ValueError, match="dataset must hold at least one image, got 0 images"):
        analyze(replace(workload, calibration=empty))
