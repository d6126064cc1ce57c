"""Going on from an analysis gives what one longer analysis gives."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from test_perturbation import small_workload
from torch.utils.data import Dataset

from engine.analysis import Analysis
from engine.further import analyze_further
from engine.perturbation import analyze

NEVER = 1e-9  # an error that is not reached
OPTIONS = {"bit_widths": (2, 8), "batch_size": 1, "relative_sem": NEVER, "seed": 5}


def assert_same_traces(one: Analysis, other: Analysis) -> None:
    np.testing.assert_allclose(one.batch_traces, other.batch_traces, rtol=1e-6)
    np.testing.assert_allclose(
        one.activation_batch_traces, other.activation_batch_traces, rtol=1e-6
    )
    assert (one.batch_sizes == other.batch_sizes).all()
    for a, b in zip(
        (*one.layers, *one.activations), (*other.layers, *other.activations), strict=True
    ):
        assert a.trace.mean == pytest.approx(b.trace.mean, rel=1e-6)
        assert a.trace.sem == pytest.approx(b.trace.sem, rel=1e-6)
        assert (a.trace.samples, a.trace.exact) == (b.trace.samples, b.trace.exact)
    for a, b in zip(one.layers, other.layers, strict=True):
        assert a.omega == pytest.approx(b.omega, rel=1e-6)
        assert a.channel_traces == pytest.approx(b.channel_traces, rel=1e-6)
        assert a.channel_sems == pytest.approx(b.channel_sems, rel=1e-5, abs=1e-9)
    assert (one.weight_counts == other.weight_counts).all()


@pytest.mark.parametrize(
    "more",
    [{}, {"granularity": "channel"}, {"estimator": "hutchinson_shared"}, {"activations": False}],
)
def test_two_halves_are_the_whole(tmp_path, more) -> None:
    workload = small_workload()
    whole = analyze(workload, **OPTIONS, **more)
    half = analyze(workload, **OPTIONS, **more, max_images=48)
    assert (half.images, half.images_left, half.exhausted) == (48, 48, False)
    half.save(tmp_path / "half.json")
    further = analyze_further(Analysis.load(tmp_path / "half.json"), workload)
    assert_same_traces(further, whole)
    assert (further.images, further.images_left, further.exhausted) == (96, 0, True)
    assert (further.stopped_because, further.relative_sem) == ("images", NEVER)
    assert half.images == 48  # not changed
    for old, new in zip(half.activations, further.activations, strict=True):
        assert new.perturbation == old.perturbation
        moved = old.perturbation[2] * new.trace.for_omega
        assert new.omega[2] == pytest.approx(moved)


def test_it_can_go_on_again_and_again() -> None:
    workload = small_workload()
    whole = analyze(workload, **OPTIONS, max_images=80)
    part = analyze(workload, **OPTIONS, max_images=40)
    for _ in range(4):
        part = analyze_further(part, workload, max_images=10)
    assert_same_traces(part, whole)
    assert part.images_left == 16


class Watched(Dataset):
    """A dataset that remembers which of its images were asked for."""

    def __init__(self, dataset: Dataset, name: str, fingerprint: str) -> None:
        self.dataset, self.name, self.fingerprint = dataset, name, fingerprint
        self.seen: list[int] = []

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int):
        self.seen.append(index)
        return self.dataset[index]


def test_no_image_is_used_twice_and_none_left_out() -> None:
    workload = small_workload()
    half = analyze(workload, **OPTIONS, max_images=60, activations=False)
    made = half.provenance
    watched = Watched(workload.calibration, made.data, made.fingerprint)
    analyze_further(half, replace(workload, calibration=watched))
    order = torch.randperm(96, generator=torch.Generator().manual_seed(5)).tolist()
    assert watched.seen == [0, *order[60:]]  # the first to run the network once


def test_a_file_of_before_goes_on_with_probes_of_its_own() -> None:
    workload = small_workload()
    half = analyze(workload, **OPTIONS, max_images=48)
    old = replace(half, probe_state=np.zeros(0, np.uint8), images_left=None)
    assert old.exhausted  # as far as is known: all it was allowed were used
    further = analyze_further(old, workload)
    assert (further.images, further.images_left) == (96, 0)
    assert (further.batch_traces[:48] == half.batch_traces).all()
    whole = analyze(workload, **OPTIONS)
    assert not np.allclose(further.batch_traces[48:], whole.batch_traces[48:])


def test_it_stops_at_half_the_error() -> None:
    workload = small_workload(640)
    first = analyze(workload, bit_widths=(2, 8), batch_size=4, relative_sem=0.3)
    assert first.stopped_because == "target"
    assert first.next_target == 0.15
    further = analyze_further(first, workload)
    assert further.stopped_because == "target"
    assert first.images < further.images < 640
    assert further.relative_sem == 0.15
    records = (*further.layers, *further.activations)
    assert sum(x.trace.relative_sem <= 0.15 for x in records) >= len(records) - 1
    missed = replace(first, stopped_because="time")
    assert missed.next_target == 0.3


def test_it_says_how_it_was_made_and_how_far_it_is() -> None:
    workload = replace(small_workload(), origin="small --data sample")
    half = analyze(workload, **OPTIONS, max_images=48)
    told: list[tuple[int, int, str]] = []
    further = analyze_further(
        half, workload, max_images=20, source="half.json", progress=lambda *x: told.append(x)
    )
    assert told[-1][:2] == (68, 68)
    assert further.provenance.command == (
        "hawq-viz analyze small --data sample --further half.json --relative-sem 1e-09 "
        "--max-images 20"
    )
    assert further.seconds > half.seconds
    assert further.provenance.fingerprint == half.provenance.fingerprint


def test_what_does_not_fit_is_named() -> None:
    workload = small_workload()
    half = analyze(workload, **OPTIONS, max_images=48)
    with pytest.raises(ValueError, match="max_images must be at least 1, got 0"):
        analyze_further(half, workload, max_images=0)
    sentence = "must have the images of the analysis, TensorDataset, 96 images, got .* 95 images"
    with pytest.raises(ValueError, match=sentence):
        analyze_further(half, small_workload(95))
    all_used = analyze_further(half, workload)
    sentence = "analysis must leave images to go on with, got all 96 used: analyze more data anew"
    with pytest.raises(ValueError, match=sentence):
        analyze_further(all_used, workload)
    other = small_workload()
    with torch.no_grad():
        other.model[3].weight *= 1.1
    with pytest.raises(ValueError, match="weights of the analysis, but rounding '3' to 2 bits"):
        analyze_further(half, other)
    fewer = replace(half, layers=half.layers[:2])
    with pytest.raises(ValueError, match="layers of the analysis 0, 3, got 0, 3, 7: give the net"):
        analyze_further(fewer, workload)
    fewer = replace(half, activations=half.activations[:2])
    with pytest.raises(ValueError, match="known must hold traces of the same activations 0, 3, 7"):
        analyze_further(fewer, workload)


def test_a_file_of_before_gets_histograms_but_no_errors_of_channels() -> None:
    workload = small_workload()
    half = analyze(workload, **OPTIONS, activations=False, max_images=40)
    layers = tuple(replace(layer, channel_sems=()) for layer in half.layers)
    before = replace(half, layers=layers, weight_counts=np.zeros((0, 0, 0), np.int32))
    further = analyze_further(before, workload, max_images=10)
    assert (further.weight_counts == half.weight_counts).all()
    assert [layer.channel_sems for layer in further.layers] == [()] * 3
