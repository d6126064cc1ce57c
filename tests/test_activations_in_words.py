"""What the pages say of activations, from made-up numbers."""

from dataclasses import replace

import pytest
from made_up import made_up_activations, made_up_analysis

from engine.analysis import Histogram
from hawq_viz.figures.histogram import of_activation
from hawq_viz.viewmodels import activations, analyses

ANALYSIS = made_up_activations(made_up_analysis())


def test_what_is_not_exact_or_stays_float_is_named():
    says = activations.exactness(ANALYSIS)
    assert says.startswith("Gauss-Newton traces for 1 of 4 inputs (the first: that of `fc`).")
    assert "1 input stays float: that of `layer2.0.conv2`: its input is made by" in says
    plain = replace(ANALYSIS, activations=ANALYSIS.activations[:2], skipped_activations={})
    assert activations.exactness(plain) == (
        "The traces of all inputs are those of the Hessian itself."
    )


def test_what_is_exact_on_both_sides_is_said_once():
    layers = tuple(x for x in ANALYSIS.layers if x.trace.exact)
    weights = replace(ANALYSIS, layers=layers)
    assert "linear in each layer's weights, so" in analyses.exactness(weights)
    assert activations.exactness(weights).startswith("Gauss-Newton traces for 1 of 4 inputs")
    both = replace(weights, activations=ANALYSIS.activations[:2], skipped_activations={})
    assert "in each layer's weights and in each layer's input, so" in analyses.exactness(both)
    assert activations.exactness(both) == ""
    assert "each layer's weights, so" in analyses.exactness(replace(both, activations=()))


def test_an_analysis_without_activations_says_how_to_get_them():
    assert "“New analysis” measures them too" in activations.without(made_up_analysis())


def test_tables_have_what_the_charts_show():
    traces, omegas = activations.trace_table(ANALYSIS), activations.omega_table(ANALYSIS)
    assert list(traces["input of"]) == [x.name for x in ANALYSIS.activations]
    assert traces["read by"][1] == "layer1.0.conv1, layer2.0.conv1"
    assert len(omegas) == 4 * 7
    row = omegas[(omegas["input of"] == "fc") & (omegas["bits"] == 4)].iloc[0]
    found = ANALYSIS.activations[3]
    assert (row["Ω"], row["first-order term"]) == (found.omega[4], found.first_order[4])
    assert row["½Ω"] == found.omega[4] / 2


def test_charts_in_words_name_their_ends():
    assert "4 activations" in activations.traces_alt(ANALYSIS)
    assert "(layer1.0.conv2) to 0.4 (conv<1>)" in activations.traces_alt(ANALYSIS)
    assert "at 2 bits with" in activations.omegas_alt(ANALYSIS)


@pytest.mark.parametrize(
    ("name", "bits", "planned", "expected"),
    [
        ("fc", 6, {}, ("fc", 6)),
        ("fc", None, {"fc": 3}, ("fc", 3)),
        ("fc", None, {}, ("fc", 4)),
        ("fc", 1, {}, ("fc", 4)),
        ("gone", 5, {}, ("layer1.0.conv1", 5)),
    ],
)
def test_what_is_looked_at_closely(name, bits, planned, expected):
    largest = max(ANALYSIS.activations, key=lambda x: x.omega[4]).name
    found, at = activations.chosen(ANALYSIS, name, bits, planned)
    assert (found.name, at) == (largest if name == "gone" else expected[0], expected[1])


def test_one_activation_in_words():
    shared = ANALYSIS.activations[1]
    assert activations.activation_name(shared) == "layer1.0.conv1 and 1 more (16×8×8)"
    assert activations.activation_name(ANALYSIS.activations[0]) == "conv<1>, the image (3×8×8)"
    rounded = of_activation(shared, 4)
    says = activations.about(shared, rounded)
    assert says["Read by"] == "layer1.0.conv1, layer2.0.conv1"
    assert says["Step, zero point"] == "0.267, 0 (unsigned)"
    assert "not in ½Ω" in says["First-order term"]
    assert "the 16 levels of 4 bits" in activations.histogram_alt(shared, rounded)


def test_a_histogram_as_a_table_has_every_value_and_what_it_becomes():
    found = replace(ANALYSIS.activations[1], grids={2: (0.5, 0.0)})  # levels 0, 0.5, 1, 1.5
    found = replace(found, histogram=Histogram(0.0, 4.0, (70, 20, 6, 4)))
    assert activations.histogram_table(of_activation(found, 2)).to_numpy().tolist() == [
        [0, 1, 0.7, 0.5],
        [1, 2, 0.2, 1.5],
        [2, 3, 0.06, 1.5],
        [3, 4, 0.04, 1.5],
    ]
    empty = replace(found, histogram=Histogram(0.0, 1.0, (0, 0)))
    rounded = of_activation(empty, 2)
    assert activations.histogram_table(rounded)["share of values"].tolist() == [0, 0]


def test_settings_say_how_many_tensors():
    assert analyses.settings(ANALYSIS)["Inputs of layers"] == (
        "4 tensors, each rounded on 128 images; error of the trace 13% in the median, "
        "400% in the worst"
    )
    assert analyses.settings(made_up_analysis())["Inputs of layers"] == "not measured"
