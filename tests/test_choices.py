"""Plans with activations, and every cost, against sums and enumeration written out here."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from numpy.testing import assert_allclose
from small_analysis import BITS, make_analysis, make_layer

from engine.analysis import COSTS, ActivationSensitivity, Histogram
from engine.budgets import NotMet
from engine.latency import LatencyTable
from engine.results import BitPlan, TraceEstimate

# layer → what it reads; the last layer's input was not found
READS = {"conv1": "conv1", "a.conv1": "a.conv1", "a.short": "a.conv1", "a.conv2": "a.conv2"}
PARAMETERS = {"conv1": 432, "a.conv1": 2304, "a.short": 512, "a.conv2": 1152, "fc": 640}
ELEMENTS = {"conv1": 3072, "a.conv1": 1024, "a.conv2": 512}
ALIVE = ((0, 1), (1, 2))
LAYERS = tuple(PARAMETERS)


def make_activation(name, readers, elements, mean):
    omega = {bits: mean * elements * 16.0**-bits for bits in BITS}
    return ActivationSensitivity(
        name=name,
        readers=readers,
        shape=(elements,),
        elements=elements,
        image=name == "conv1",
        signed=name == "conv1",
        trace=TraceEstimate(mean, mean / 10, 64, exact=True),
        images=64,
        perturbation=omega,
        perturbation_sem=dict.fromkeys(BITS, 0.0),
        first_order=dict.fromkeys(BITS, 0.0),
        first_order_sem=dict.fromkeys(BITS, 0.0),
        omega=omega,
        grids=dict.fromkeys(BITS, (0.1, 0.0)),
        histogram=Histogram(0.0, 1.0, (1, 2)),
    )


@pytest.fixture(scope="module")
def analysis():
    layers = tuple(make_layer(n, p, 0.5 / (i + 1)) for i, (n, p) in enumerate(PARAMETERS.items()))
    activations = tuple(
        make_activation(name, tuple(x for x in LAYERS if READS.get(x) == name), n, 1.0 + i)
        for i, (name, n) in enumerate(ELEMENTS.items())
    )
    return make_analysis(
        layers=layers,
        activations=activations,
        activation_batch_traces=np.ones((4, 3)),
        batch_traces=np.ones((4, 5)),
        alive=ALIVE,
        skipped_activations={"fc": "its input is looked up"},
    )


@pytest.fixture(scope="module")
def table():
    times = {
        (name, w, a): (i + 1) * (0.1 + 0.01 * w + 0.003 * w * a)
        for i, name in enumerate(LAYERS)
        for w, a in product((*BITS, 32), repeat=2)
    }
    return LatencyTable(times, "times.csv")


def slow_costs(weights, activations, table):
    """All costs of bits by layer and by activation; 32 for float."""
    w = {name: weights.get(name, 32) for name in LAYERS}
    a = {name: activations.get(name, 32) for name in ELEMENTS}
    a_of = {name: a[READS[name]] if name in READS else 32 for name in LAYERS}
    return {
        "size": sum(PARAMETERS[n] * w[n] for n in LAYERS) / 8,
        "activation_memory": sum(ELEMENTS[n] * a[n] for n in ELEMENTS) / 8,
        "activation_peak": max(
            3072 * a["conv1"] + 1024 * a["a.conv1"], 1024 * a["a.conv1"] + 512 * a["a.conv2"]
        )
        / 8,
        "bops": sum(100 * PARAMETERS[n] * w[n] * a_of[n] for n in LAYERS),
        "latency": sum(table.times[n, w[n], a_of[n]] for n in LAYERS),
    }


def slow_omega(analysis, weights, activations):
    total = sum(x.omega[weights[x.name]] for x in analysis.layers if x.name in weights)
    return total + sum(
        x.omega[activations[x.name]] for x in analysis.activations if x.name in activations
    )


def every_plan(weights=BITS, activations=BITS, image=(8,)):
    """Bits of all layers and activations; None for float."""
    sides = [
        [{}] if weights is None else product(weights, repeat=len(LAYERS)),
        [{}] if activations is None else product(image, activations, activations),
    ]
    for w, a in product(*map(list, sides)):
        yield (
            dict(zip(LAYERS, w, strict=True)) if w else {},
            dict(zip(ELEMENTS, a, strict=True)) if a else {},
        )


def pareto(points):
    kept = []
    for cost, omega in sorted(points):
        if not kept or omega < kept[-1][1] * (1 - 1e-13):
            kept.append((cost, omega))
    return kept


# --- costs


def test_costs_of_a_plan(analysis, table):
    weights = dict(zip(LAYERS, (8, 2, 4, 8, 2), strict=True))
    activations = {"conv1": 8, "a.conv1": 4, "a.conv2": 2}
    plan = analysis.plan_of(weights, activations, latency=table)
    expected = slow_costs(weights, activations, table)
    assert list(plan.costs) == list(COSTS)
    assert plan.costs == pytest.approx(expected)
    assert plan.size_bytes == expected["size"]
    assert plan.omega == pytest.approx(slow_omega(analysis, weights, activations))
    assert plan.activation_bits == activations
    assert analysis.costs_of(weights, activations) == {
        name: plan.costs[name] for name in COSTS if name != "latency"
    }


def test_what_has_no_bits_is_float(analysis, table):
    costs = analysis.costs_of({}, {}, table)
    assert costs == pytest.approx(slow_costs({}, {}, table))
    plan = analysis.plan_of({}, {"a.conv1": 4, "a.conv2": 2})
    assert plan.weight_bits == {}
    assert plan.activation_bits == {"conv1": 8, "a.conv1": 4, "a.conv2": 2}  # the image's 8
    assert plan.omega == pytest.approx(slow_omega(analysis, {}, plan.activation_bits))


def test_costs_that_an_analysis_without_activations_knows():
    plain = make_analysis()
    assert plain.costs_of(plain.uniform(4).weight_bits) == {
        "size": 3376 / 2,
        "bops": 100 * 3376 * 4 * 32,
    }


def test_uniform_plans(analysis):
    plan = analysis.uniform(4, 2)
    assert plan.weight_bits == dict.fromkeys(LAYERS, 4)
    assert plan.activation_bits == {"conv1": 8, "a.conv1": 2, "a.conv2": 2}
    assert plan.made_by == {"uniform": 4, "activation_bits": 2}
    assert analysis.uniform(4).activation_bits == {}
    assert analysis.uniform(None, 4).weight_bits == {}
    few = replace(analysis, bit_widths=(2, 4))
    assert few.uniform(2, 2).activation_bits["conv1"] == 4  # the most analyzed


# --- frontiers


@pytest.mark.parametrize(
    ("cost", "plans", "limits"),
    [
        ("size", every_plan(activations=None), {}),
        ("size", every_plan(activations=(4,)), {"activations": 4}),
        ("activation_memory", every_plan(weights=None), {}),
        ("activation_memory", every_plan(weights=(4,)), {"weights": 4}),
        ("activation_memory", every_plan(weights=None, image=(2,)),
         {"locked_activations": {"conv1": 2}}),
        ("activation_peak", every_plan(weights=None), {}),
        ("bops", every_plan(), {}),
        ("bops", every_plan(weights=(2, 8), activations=(2, 4)),
         {"bit_widths": (8, 2), "activation_bit_widths": [4, 2]}),
        ("bops", every_plan(weights=(4,)), {"weights": 4}),
        ("bops", every_plan(activations=(4,), image=(2,)),
         {"activations": {"conv1": 2, "a.conv1": 4, "a.conv2": 4}}),
        ("latency", every_plan(), {}),
    ],
)  # fmt: skip
def test_frontiers_equal_every_plan(analysis, table, cost, plans, limits):
    frontier = analysis.frontier(cost, tolerance=0, latency=table, **limits)
    points = [(slow_costs(*bits, table)[cost], slow_omega(analysis, *bits)) for bits in plans]
    expected = np.array(pareto(points))
    assert_allclose(frontier.cost, expected[:, 0])
    assert_allclose(frontier.omega, expected[:, 1])
    for i in range(0, len(frontier), 1 + len(frontier) // 20):
        plan = frontier.plan(i)
        assert plan.costs[cost] == pytest.approx(frontier.cost[i])
        assert plan.omega == pytest.approx(frontier.omega[i])


def test_locks_ties_and_same_bits(analysis):
    frontier = analysis.frontier(
        "bops",
        tolerance=0,
        locked={"fc": 8},
        tied=[("a.conv1", "a.conv2")],
        locked_activations={"conv1": 2},
        same_bits=True,
    )
    points = [
        (slow_costs(w, a, LatencyTable({(n, w[n], x): 0 for n in LAYERS for x in (*BITS, 32)}))
         ["bops"], slow_omega(analysis, w, a))
        for w, a in every_plan(image=(2,))
        if w["fc"] == 8 and w["a.conv1"] == w["a.conv2"]
        and all(w[n] == a[READS[n]] for n in READS)
    ]  # fmt: skip
    expected = np.array(pareto(points))
    assert_allclose(frontier.cost, expected[:, 0])
    assert_allclose(frontier.omega, expected[:, 1])
    plan = frontier.plan(1)
    assert plan.made_by["same_bits"] is True
    assert plan.made_by["locked_activations"] == {"conv1": 2}


def test_locks_go_before_a_number_given_for_all(analysis):
    plan = analysis.frontier(
        "activation_memory", weights=4, locked={"fc": 8}, locked_activations={"a.conv2": 2}
    ).plan(0)
    assert plan.weight_bits == {**dict.fromkeys(LAYERS, 4), "fc": 8}
    assert plan.activation_bits["a.conv2"] == 2


def test_large_frontiers_have_a_tolerance_that_plans_remember(analysis, table, tmp_path):
    for cost, tolerance in (("bops", 1e-3), ("latency", 1e-3), ("activation_peak", 1e-2)):
        plan = analysis.frontier(cost, latency=table).plan(0)
        assert plan.made_by["tolerance"] == tolerance
    assert analysis.frontier("size").plan(0).made_by["tolerance"] == 0
    plan = analysis.frontier("latency", latency=table, weights={**dict.fromkeys(LAYERS, 4)}).plan(0)
    assert plan.made_by["latency"] == "times.csv"
    plan.save(tmp_path / "plan.json")
    assert BitPlan.load(tmp_path / "plan.json") == plan


# --- several budgets


def test_within_several_budgets(analysis, table):
    budgets = {"size": 2400, "bops": 1.2e7, "activation_memory": 4000, "activation_peak": 3600}
    plan = analysis.within(budgets, latency=table)
    fits = [
        slow_omega(analysis, *bits)
        for bits in every_plan()
        if all(slow_costs(*bits, table)[name] <= most for name, most in budgets.items())
    ]
    assert len(fits) > 100
    assert plan.omega == pytest.approx(min(fits))
    assert all(plan.costs[name] <= most for name, most in budgets.items())
    assert plan.made_by["budgets"] == budgets


@pytest.mark.parametrize("cost", COSTS)
def test_one_budget_agrees_with_the_frontier(analysis, table, cost):
    frontier = analysis.frontier(cost, tolerance=0, latency=table)
    for share in (0, 0.2, 0.5, 1):
        budget = float(frontier.cost[0] + share * np.ptp(frontier.cost))
        plan = analysis.within({cost: budget}, latency=table)
        assert plan.omega == pytest.approx(frontier.within(budget).omega)


def test_budgets_that_no_plan_meets_name_some_that_can_be(analysis):
    with pytest.raises(NotMet) as caught:
        analysis.within({"size": 1000, "activation_memory": 5000})
    assert str(caught.value) == (
        "budgets must be such that some plan meets all of them, got size=1000 and "
        "activation_memory=5000: the nearest that can be met are size=1260 and "
        "activation_memory=5000."
    )
    plan = analysis.within(caught.value.nearest)
    assert plan.size_bytes == 1260
    assert plan.costs["activation_memory"] <= 5000


def test_separate_mode(analysis):
    plan = analysis.separate(2400, 4000, locked={"fc": 8}, locked_activations={"a.conv2": 2})
    weights = [x for x in every_plan(activations=None) if x[0]["fc"] == 8]
    activations = [x for x in every_plan(weights=None) if x[1]["a.conv2"] == 2]
    none = LatencyTable({(n, w, a): 0 for n in LAYERS for w, a in product((*BITS, 32), repeat=2)})
    best = [
        min(slow_omega(analysis, *x) for x in plans if slow_costs(*x, none)[cost] <= budget)
        for plans, cost, budget in (
            (weights, "size", 2400),
            (activations, "activation_memory", 4000),
        )
    ]
    assert plan.omega == pytest.approx(sum(best))
    assert plan.size_bytes <= 2400
    assert plan.costs["activation_memory"] <= 4000
    first, second = plan.made_by["separate"]
    assert (first["cost"], first["budget"]) == ("size", 2400)
    assert (second["cost"], second["budget"]) == ("activation_memory", 4000)


# --- bad input

BAD = [
    (
        lambda _: make_analysis().frontier("bops"),
        "cost must be size in an analysis without activations, got 'bops': analyze again with "
        "activations.",
    ),
    (
        lambda _: make_analysis().uniform(4, 4),
        "activation_bits must be none in an analysis without activations, got 4: analyze again "
        "with activations.",
    ),
    (
        lambda _: make_analysis().frontier(locked_activations={"conv1": 4}),
        "activation must be one of the network's, got 'conv1', which has none.",
    ),
    (
        lambda a: replace(a, alive=()).frontier("activation_peak"),
        "cost must not be 'activation_peak' in an analysis that does not know which activations "
        "are held at once: analyze again.",
    ),
    (
        lambda a: a.frontier("latency"),
        "latency must be a table of times where it is a cost, got none: give "
        "LatencyTable.load(path).",
    ),
    (
        lambda a: a.frontier("bops", activations={"a.conv1": 4}),
        "activation_bits must name every activation, but 'a.conv2' is missing: give its bits.",
    ),
    (
        lambda a: a.frontier("bops", activations={"a.conv": 4}),
        "activation must be one of the network's, got 'a.conv': the nearest is 'a.conv2'.",
    ),
    (
        lambda a: a.uniform(4, 3),
        "activation_bits must be one of the analyzed bit widths 2, 4, 8, got 3.",
    ),
    (
        lambda a: a.plan_of({}, {"a.conv1": 4, "a.conv2": 5}),
        "activation_bits['a.conv2'] must be one of the analyzed bit widths 2, 4, 8, got 5.",
    ),
    (
        lambda a: a.frontier("bops", locked_activations={"a.conv1": 4.0}),
        "locked_activations['a.conv1'] must be one of the analyzed bit widths 2, 4, 8, got 4.0.",
    ),
    (
        lambda a: a.frontier("bops", activation_bit_widths=[3]),
        "activation_bit_widths must be among the analyzed ones 2, 4, 8, got 3: analyze again with "
        "it.",
    ),
    (
        lambda a: a.frontier("size", locked_activations={"a.conv1": 4}),
        "locked_activations must come with activations that have bits, got float ones: give "
        "activations, or choose a cost of theirs.",
    ),
    (
        lambda a: a.frontier("activation_memory", locked={"fc": 4}),
        "locked must come with weights that have bits, got float ones: give weights, or choose a "
        "cost of theirs.",
    ),
    (
        lambda a: a.frontier("bops", weights=dict.fromkeys(LAYERS, 4), locked={"fc": 8}),
        "locked must agree with weights, got 8 and 4 bits for 'fc': leave one of them out.",
    ),
    (
        lambda a: a.frontier("size", same_bits=True),
        "same_bits must come with bits of both weights and activations, got float activations: "
        "choose bops or latency, or give their bits.",
    ),
    (
        lambda a: a.frontier("activation_memory", same_bits=True),
        "same_bits must come with bits of both weights and activations, got float weights: "
        "choose bops or latency, or give their bits.",
    ),
    (
        lambda a: a.frontier("bops", same_bits=True, locked={"conv1": 4}),
        "limits must leave every layer some bits, got none for 'conv1': what it is tied to, "
        "shares an activation with, or has to have the bits of contradicts it; loosen one of them.",
    ),
    (
        lambda a: a.frontier(tied=["fc"]),
        "tied must be groups of layers' names, got 'fc'.",
    ),
    (
        lambda a: a.within({}),
        "budgets must name one of size, activation_memory, activation_peak, bops, latency at "
        "least, got none.",
    ),
    (
        lambda a: a.within({"size": 2400, "weight": 1}),
        "cost must be one of size, activation_memory, activation_peak, bops, latency, got "
        "'weight'.",
    ),
    (
        lambda a: a.within({"size": -1}),
        "budgets['size'] must be a number above 0, got -1.",
    ),
    (
        lambda a: a.options("bops"),
        "cost must be size, which the weights alone have, got 'bops'.",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), BAD)
def test_sentences(analysis, call, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        call(analysis)
    assert str(caught.value) == sentence
