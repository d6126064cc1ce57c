"""Histograms of weights in steps of their grids, against counting one weight after the other."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file, save_file
from small_analysis import BITS, make_analysis
from test_perturbation import small_workload

from engine.analysis import Analysis
from engine.layers import find_layers, fold_batch_norm
from engine.perturbation import analyze, weight_counts
from engine.quantizers import GRANULARITIES, RANGES, SCHEMES, Quantizer
from engine.results import FormatError
from engine.sensitivities import (
    BINS,
    histogram_in_steps,
    levels_in_steps,
    running_mean,
)
from engine.traces import weighted_mean

ALL = [Quantizer(*choice) for choice in itertools.product(SCHEMES, GRANULARITIES, RANGES)]


@settings(max_examples=40)
@given(st.sampled_from(ALL), st.integers(1, 8), st.integers(0, 10**6))
def test_every_weight_is_in_its_bin_and_what_is_clipped_is_past_the_ends(quantizer, bits, seed):
    torch.manual_seed(seed)
    rows = (torch.randn(3, 40) ** 3).double() + 0.3
    grid = quantizer.fit(rows, bits)
    found = histogram_in_steps(weight_counts(rows, grid), quantizer.scheme, bits)
    levels = levels_in_steps(quantizer.scheme, bits)
    edges = np.linspace(found.low, found.high, BINS + 1)
    steps, far = [], 0
    for channel, row in enumerate(rows):
        scale, zero = (float(x.expand(3, 1)[channel]) for x in (grid.scale, grid.zero_point))
        for weight in row:
            code = float(weight) / scale + zero
            steps.append(levels[0] + code - grid.low)  # the lowest code is the lowest level
            far += abs(code - min(max(round(code), grid.low), grid.high)) > 0.5
    for i, edge in enumerate(edges[1:-1], 1):  # what lies on an edge may be on either side of it
        fewest, most = (sum(x < edge + slack for x in steps) for slack in (-1e-9, 1e-9))
        assert fewest <= sum(found.counts[:i]) <= most
    assert sum(found.counts) == rows.numel()
    counts, middles = np.array(found.counts), (edges[1:] + edges[:-1]) / 2
    past = (middles < levels[0] - 0.5) | (middles > levels[-1] + 0.5)
    assert counts[past].sum() == far


@pytest.mark.parametrize("bits", range(1, 9))
def test_symmetric_levels_are_those_of_the_grid_over_its_scale(bits):
    grid = Quantizer().fit(torch.randn(1, 50).double(), bits)
    codes = torch.arange(grid.low, grid.high + 1)
    values = (codes - grid.zero_point) * grid.scale
    assert values[0].div(grid.scale[0]).tolist() == pytest.approx(
        levels_in_steps("symmetric", bits)
    )
    assert_array_equal(levels_in_steps("asymmetric", bits), np.arange(2**bits))


def test_an_analysis_counts_the_weights_of_the_folded_network():
    workload = small_workload()
    analysis = analyze(workload, bit_widths=(2, 4), activations=False, max_images=32)
    example = workload.test[0][0].unsqueeze(0)
    folded = fold_batch_norm(workload.model, example)
    for layer in find_layers(folded, example):
        rows = folded.get_parameter(layer.parameter).detach().flatten(1)
        for bits in (2, 4):
            found = analysis.weight_histogram(layer.name, bits)
            assert found.counts == tuple(weight_counts(rows, Quantizer().fit(rows, bits)))
            assert sum(found.counts) == layer.parameters


def counted(**changes):
    shape = (len(make_analysis().layers), len(BITS), BINS)
    return make_analysis(weight_counts=np.arange(np.prod(shape)).reshape(shape), **changes)


def test_histograms_come_back_and_are_of_their_layer_and_bits(tmp_path):
    counted().save(tmp_path / "a.json")
    analysis = Analysis.load(tmp_path / "a.json")
    for i, layer in enumerate(analysis.layers):
        for j, bits in enumerate(BITS):
            found = analysis.weight_histogram(layer.name, bits)
            assert found.counts == tuple(analysis.weight_counts[i, j])
    found = analysis.weight_histogram("fc", 2)  # levels −2 … 1, and half as many past each end
    assert (found.low, found.high) == (-2.5 - 2, 1.5 + 2)
    asymmetric = replace(analysis, quantizer={"scheme": "asymmetric"})
    assert asymmetric.weight_histogram("fc", 2).low == -0.5 - 2


def test_a_file_of_before_has_no_histograms_and_no_errors_of_channels(tmp_path):
    path = tmp_path / "a.json"
    counted().save(path)
    sidecar = path.with_suffix(".safetensors")
    arrays = load_file(sidecar)
    del arrays["weight_counts"]
    save_file(arrays, sidecar)
    assert Analysis.load(path).weight_histogram("fc", 4) is None
    with pytest.raises(ValueError, match="layer must be one of the network's, got 'fd'"):
        Analysis.load(path).weight_histogram("fd", 4)
    with pytest.raises(
        ValueError, match="bits must be one of the analyzed bit widths 2, 4, 8, got 3"
    ):
        Analysis.load(path).weight_histogram("fc", 3)


def test_counts_of_another_analysis_are_refused(tmp_path):
    path = tmp_path / "a.json"
    replace(counted(), weight_counts=np.ones((2, 3, BINS), np.int32)).save(path)
    with pytest.raises(
        FormatError, match=r"must hold counts .* \(3, 3, 128\), got \(2, 3, 128\): "
    ):
        Analysis.load(path)


@given(
    st.integers(1, 30).flatmap(
        lambda m: st.tuples(
            npst.arrays(float, m, elements=st.floats(-100, 100)),
            npst.arrays(np.int64, m, elements=st.integers(1, 64)),
        )
    )
)
def test_the_running_mean_is_that_of_each_beginning(drawn):
    values, sizes = drawn
    means, sems = running_mean(values, sizes)
    for m in range(1, len(values) + 1):
        mean, sem = weighted_mean(values[:m], sizes[:m])
        assert means[m - 1] == pytest.approx(mean, abs=1e-9)
        assert sems[m - 1] == pytest.approx(sem, rel=1e-5, abs=1e-5)
