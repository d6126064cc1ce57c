"""An analysis comes back as it was saved, gives plans, and says what is wrong in one sentence."""

import json
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from safetensors.numpy import load_file, save_file
from small_analysis import BITS, LAYERS, make_analysis

from engine.analysis import Analysis, Finding, LayerSensitivity
from engine.frontier import pareto_frontier
from engine.results import BitPlan, FormatError, TraceEstimate


def check_equal(one, other):
    for item in fields(Analysis):
        a, b = getattr(one, item.name), getattr(other, item.name)
        if isinstance(a, np.ndarray):
            assert_array_equal(a, b, strict=True)
        else:
            assert a == b, item.name


@pytest.fixture
def analysis():
    return make_analysis()


@pytest.fixture
def path(analysis, tmp_path):
    analysis.save(tmp_path / "analysis.json")
    return tmp_path / "analysis.json"


# --- save and load


finite = st.floats(allow_nan=False, allow_infinity=False)
names = st.text(max_size=8)
widths = st.lists(st.integers(1, 8), min_size=1, max_size=4, unique=True).map(sorted).map(tuple)


@st.composite
def analyses(draw):
    bit_widths = draw(widths)
    by_bits = st.fixed_dictionaries(dict.fromkeys(bit_widths, finite))
    layer = st.builds(
        LayerSensitivity,
        name=names,
        kind=names,
        shape=st.lists(st.integers(1, 9), max_size=4).map(tuple),
        parameters=st.integers(1),
        macs=st.integers(0),
        trace=st.builds(TraceEstimate, finite, finite, st.integers(0), st.booleans()),
        perturbation=by_bits,
        omega=by_bits,
        channel_traces=st.lists(finite, max_size=3).map(tuple),
        channel_sems=st.lists(finite, max_size=3).map(tuple),
    )
    layers = draw(st.lists(layer, max_size=3).map(tuple))
    batches = draw(st.integers(0, 4))
    generator = np.random.default_rng(draw(st.integers(0, 100)))
    return make_analysis(
        workload=draw(names),
        layers=layers,
        activations=(),
        bit_widths=bit_widths,
        quantizer=draw(st.dictionaries(names, names, max_size=3)),
        seconds=draw(finite),
        batch_traces=generator.normal(size=(batches, len(layers))),
        batch_sizes=generator.integers(1, 99, batches),
        skipped=draw(st.dictionaries(names, names, max_size=2)),
        findings=draw(st.none() | st.lists(st.builds(Finding), max_size=2).map(tuple)),
    )


@given(analyses())
def test_analyses_come_back(analysis):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "new" / "toy.analysis.json"
        analysis.save(path)
        check_equal(Analysis.load(path), analysis)
        files = sorted(file.name for file in path.parent.iterdir())
        assert files == ["toy.analysis.json", "toy.analysis.safetensors"]


def test_traces_come_back_whatever_their_memory_order(analysis, tmp_path):
    traces = np.asfortranarray(analysis.batch_traces)
    replace(analysis, batch_traces=traces).save(tmp_path / "a.json")
    assert_array_equal(Analysis.load(tmp_path / "a.json").batch_traces, analysis.batch_traces)


def sentence_of(path):
    with pytest.raises(FormatError) as caught:
        Analysis.load(path)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence.replace(str(path), "FILE").replace(str(sidecar_of(path)), "SIDECAR")


def sidecar_of(path):
    return path.with_suffix(".safetensors")


def test_missing_analysis(tmp_path):
    assert sentence_of(tmp_path / "none.json").startswith(
        "FILE must be a saved analysis, but cannot be read: [Errno 2]"
    )


def test_cut_analysis(path):
    whole = path.read_text()
    for length in range(0, len(whole.rstrip()), 37):
        path.write_text(whole[:length])
        assert sentence_of(path).startswith("FILE must be a saved analysis, but is not whole JSON")


def test_analysis_of_another_version(path):
    path.write_text(path.read_text().replace('"version": 1', '"version": 7'))
    assert sentence_of(path) == (
        "FILE must have format version 1, got 7: make the analysis again with this release."
    )


def test_another_kind_of_file(path):
    BitPlan("toy", {}, 0.0, 0.0).save(path)
    assert sentence_of(path) == "FILE must be a saved analysis, got plan."


@pytest.mark.parametrize(
    ("field", "value", "why"),
    [
        ("images", ..., "missing 1 required positional argument: 'images'"),
        ("surprise", 1, "got an unexpected keyword argument 'surprise'"),
        ("layers", ..., "'layers'"),
        ("layers", [{"name": "conv1"}], "'shape'"),
        ("layers", 3, "'int' object is not iterable"),
        ("provenance", {}, "missing 4 required positional arguments"),
    ],
)
def test_wrong_fields(path, field, value, why):
    document = {**json.loads(path.read_text()), field: value}
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not ...}))
    sentence = sentence_of(path)
    assert sentence.startswith("FILE must hold every field of a saved analysis, but ")
    assert why in sentence
    assert sentence.endswith(": save it again.")


def test_missing_sidecar(path):
    sidecar_of(path).unlink()
    sentence = sentence_of(path)
    assert sentence.startswith(
        "SIDECAR must hold the mini-batch traces of FILE, but cannot be read ("
    )
    assert sentence.endswith("): keep both files together.")


@pytest.mark.parametrize("length", [0, 5, 60])
def test_cut_sidecar(path, length):
    sidecar_of(path).write_bytes(sidecar_of(path).read_bytes()[:length])
    assert "must hold the mini-batch traces of FILE, but cannot be read (" in sentence_of(path)


def test_sidecar_without_an_array(path):
    arrays = load_file(sidecar_of(path))
    save_file({"batch_traces": arrays["batch_traces"]}, sidecar_of(path))
    assert "missing 1 required positional argument: 'batch_sizes'" in sentence_of(path)


@pytest.mark.parametrize(
    ("traces", "sizes"), [((4, 2), 4), ((3, 3), 4), ((4, 3), 5), ((12,), 4), ((4, 3, 1), 4)]
)
def test_sidecar_of_another_analysis(path, traces, sizes):
    arrays = {"batch_traces": np.zeros(traces), "batch_sizes": np.ones(sizes, np.int64)}
    save_file(arrays, sidecar_of(path))
    assert sentence_of(path) == (
        f"SIDECAR must hold traces [batches, layers] {(sizes, 3)}, got {traces}: "
        "keep both files of one analysis together."
    )


@pytest.mark.parametrize("sizes", [(), (4, 1)])
def test_sidecar_with_sizes_that_are_no_list(path, sizes):
    arrays = {"batch_traces": np.zeros((4, 3)), "batch_sizes": np.ones(sizes, np.int64)}
    save_file(arrays, sidecar_of(path))
    assert sentence_of(path) == (
        f"SIDECAR must hold one batch size a batch, got shape {sizes}: "
        "keep both files of one analysis together."
    )


# --- what it knows


def test_summaries(analysis):
    assert analysis.names == tuple(LAYERS)
    assert analysis.parameters == 3376
    assert analysis.exact
    assert analysis.median_relative_sem == pytest.approx(0.04)
    assert analysis.worst_relative_sem == pytest.approx(0.06)
    doubtful = replace(analysis.layers[1], trace=TraceEstimate(1.0, 0.1, 4, exact=False))
    assert not replace(analysis, layers=(analysis.layers[0], doubtful)).exact


def test_to_frame(analysis):
    frame = analysis.to_frame()
    assert frame["layer"].tolist() == list(LAYERS)
    assert frame["shape"].tolist() == ["108×4", "576×4", "160×4"]
    assert frame["omega_4"].tolist() == [layer.omega[4] for layer in analysis.layers]
    assert frame["relative_sem"].tolist() == [x.trace.relative_sem for x in analysis.layers]
    assert frame["note"].tolist() == ["", "", ""]
    assert analysis.below_error == ()
    noisy = replace(analysis.layers[1], trace=TraceEstimate(-0.2, 0.1, 4, exact=True))
    marked = replace(analysis, layers=(analysis.layers[0], noisy))
    note = "trace below its error: Ω uses the error instead"
    assert marked.to_frame()["note"].tolist() == ["", note]
    assert marked.below_error == (noisy.name,)
    assert list(frame.columns[-3:]) == ["omega_2", "omega_4", "omega_8"]


# --- plans


def test_uniform_plan(analysis):
    plan = analysis.uniform(4)
    assert plan.weight_bits == dict.fromkeys(LAYERS, 4)
    assert plan.size_bytes == 3376 / 2
    assert plan.omega == sum(layer.omega[4] for layer in analysis.layers)
    assert plan.made_by == {"uniform": 4}


def test_plan_of_puts_layers_in_forward_order(analysis):
    plan = analysis.plan_of({"fc": 2, "conv1": 8, "layer1.0.conv1": 4})
    assert plan.weight_bits == {"conv1": 8, "layer1.0.conv1": 4, "fc": 2}
    assert list(plan.weight_bits) == list(LAYERS)
    assert plan.size_bytes == (432 * 8 + 2304 * 4 + 640 * 2) / 8


def test_frontier_is_that_of_the_arrays(analysis):
    frontier = analysis.frontier()
    allowed, costs, omegas = analysis.options()
    assert allowed == BITS
    expected = pareto_frontier(costs, omegas)
    assert_array_equal(frontier.cost, expected.cost)
    assert_array_equal(frontier.omega, expected.omega)
    for i in range(len(frontier)):
        plan = frontier.plan(i)
        assert plan == analysis.plan(expected.choices(i), made_by=plan.made_by)
        assert plan.size_bytes == frontier.cost[i]
        assert plan.omega == pytest.approx(frontier.omega[i])


def test_frontier_with_locks_ties_and_fewer_widths(analysis):
    frontier = analysis.frontier(
        locked={"conv1": 8}, tied=[("layer1.0.conv1", "fc")], bit_widths=[8, 2]
    )
    plans = [frontier.plan(i).weight_bits for i in range(len(frontier))]
    assert plans == [{"conv1": 8, "layer1.0.conv1": b, "fc": b} for b in (2, 8)]


def test_plans_remember_how_they_were_made(analysis, tmp_path):
    plan = analysis.frontier(
        locked={"conv1": 8}, tied=iter([iter(["layer1.0.conv1", "fc"])]), tolerance=0.01
    ).within(2500)
    assert plan.made_by == {
        "cost": "size",
        "locked": {"conv1": 8},
        "tied": [["layer1.0.conv1", "fc"]],
        "bit_widths": [2, 4, 8],
        "tolerance": 0.01,
        "analysis": "hawq-viz analyze toy",
        "budget": 2500.0,
    }
    plan.save(tmp_path / "plan.json")
    assert BitPlan.load(tmp_path / "plan.json") == plan


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda a: a.frontier(locked={"conv": 8}),
            "layer must be one of the network's, got 'conv': the nearest is 'conv1'.",
        ),
        (
            lambda a: a.frontier(tied=[("fc", "layer1.conv1")]),
            "layer must be one of the network's, got 'layer1.conv1': the nearest is "
            "'layer1.0.conv1'.",
        ),
        (
            lambda a: a.frontier(locked={"conv1": 3}),
            "locked['conv1'] must be one of the analyzed bit widths 2, 4, 8, got 3.",
        ),
        (
            lambda a: a.frontier(locked={"conv1": 8, "fc": 4}, tied=[("conv1", "fc")]),
            "locked must give tied layers the same bits, got 8 for 'conv1' and 4 for 'fc': "
            "untie them or lock alike.",
        ),
        (
            lambda a: a.frontier(tolerance=2),
            "tolerance must be a share of the cost range, at least 0 and below 1, got 2.",
        ),
        (
            lambda a: a.frontier("weight"),
            "cost must be one of size, activation_memory, activation_peak, bops, latency, got "
            "'weight'.",
        ),
        (
            lambda a: a.frontier(bit_widths=[3, 4]),
            "bit_widths must be among the analyzed ones 2, 4, 8, got 3: analyze again with it.",
        ),
        (
            lambda a: a.frontier(bit_widths=[4, 16]),
            "bit_widths must be a whole number of bits in 1…8, got 16.",
        ),
        (
            lambda a: a.frontier(bit_widths=()),
            "bit_widths must name at least one bit width, got none.",
        ),
        (
            lambda a: a.frontier().within(843),
            "budget must be at least 844, the cost of the smallest plan, got 843: raise it or "
            "allow fewer bits.",
        ),
        (
            lambda a: a.plan_of({"conv1": 8, "fc": 8}),
            "weight_bits must name every layer, but 'layer1.0.conv1' is missing: give its bits.",
        ),
        (
            lambda a: a.plan_of({**dict.fromkeys(LAYERS, 8), "fd": 8}),
            "layer must be one of the network's, got 'fd': the nearest is 'fc'.",
        ),
        (
            lambda a: a.uniform(3),
            "weight_bits['conv1'] must be one of the analyzed bit widths 2, 4, 8, got 3.",
        ),
        (
            lambda a: a.index("convolution"),
            "layer must be one of the network's, got 'convolution': the nearest is 'conv1'.",
        ),
    ],
)
def test_sentences(analysis, call, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        call(analysis)
    assert str(caught.value) == sentence
