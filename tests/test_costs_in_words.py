"""What the pages say of plans over other costs than size, from made-up numbers."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_activations, made_up_analysis

from engine.analysis import COSTS
from engine.latency import LatencyTable
from hawq_viz.figures.costs import cost_of
from hawq_viz.viewmodels import costs, measured, plans, runs, studies
from hawq_viz.viewmodels.plans import summarize
from hawq_viz.viewmodels.sliders import budget_slider
from hawq_viz.viewmodels.studies import Study

ANALYSIS = made_up_activations(made_up_analysis())
TIMES = LatencyTable(
    {(x, w, a): w + a for x in ANALYSIS.names for w in range(2, 9) for a in (*range(2, 9), 32)}
)
NO_INPUT = next(iter(ANALYSIS.skipped_activations))
STUDIES = {
    cost: Study.of(ANALYSIS, cost, latency=TIMES if cost == "latency" else None) for cost in COSTS
}


def test_uniform_plans_lie_on_or_above_the_frontier_of_every_cost():
    for cost, study in STUDIES.items():
        for plan in study.uniform:
            assert study.comparable(plan)
            assert study.above_frontier(plan) >= 1 - 1e-9, cost


def test_over_both_sides_w4a8_stands_beside_equal_bits():
    names = {plans.uniform_text(plan) for plan in STUDIES["bops"].uniform}
    assert names == {"W4A8", *(f"W{bits}A{bits}" for bits in range(2, 9))}
    assert [plan.weight_bits for plan in STUDIES["activation_memory"].uniform] == [{}] * 7


@given(st.sampled_from(list(COSTS)), st.floats(0, 1.2))
def test_the_plan_of_a_budget_is_within_it_and_the_slider_holds_it(cost, share):
    study = STUDIES[cost]
    low, high = float(study.frontier.cost[0]), float(study.frontier.cost[-1])
    budget = low + share * (high - low)
    plan = study.plan(budget)
    assert cost_of(plan, cost) <= budget * (1 + 1e-12)
    slider = budget_slider(study, budget)
    assert slider.low <= slider.value <= slider.high
    if share <= 1:
        off = slider.value * slider.per_unit - budget
        assert -1e-9 * budget <= off < slider.step * slider.per_unit * (1 + 1e-6)


def test_the_suggested_plan_costs_no_more_than_four_bits():
    for cost in ("bops", "activation_memory"):
        four = next(x for x in STUDIES[cost].uniform if plans.uniform_text(x) in ("A4", "W4A4"))
        suggested = STUDIES[cost].plan(None)
        assert cost_of(suggested, cost) <= cost_of(four, cost)
        assert suggested.omega <= four.omega


def test_what_a_cost_does_not_choose_stays_as_it_is_told():
    inputs = ANALYSIS.uniform(None, 6).activation_bits
    study = Study.of(ANALYSIS, "size", fixed=inputs)
    assert study.plan(None).activation_bits == inputs
    alone = STUDIES["size"].plan(None)
    same = sum(x.omega[inputs[x.name]] for x in ANALYSIS.activations)
    assert study.plan(None).omega == pytest.approx(alone.omega + same)
    for overlay, plain in zip(study.overlays, STUDIES["size"].overlays, strict=True):
        assert list(overlay.omega) == pytest.approx(list(plain.omega + same))
    assert [studies.other_side(cost) for cost in COSTS] == ["inputs", "weights", "weights", "", ""]


def test_an_opened_plan_has_its_own_bits_on_both_sides():
    plan = ANALYSIS.uniform(3, 5)
    bits, abits = ("".join(map(str, x.values())) for x in (plan.weight_bits, plan.activation_bits))
    study = STUDIES["bops"]
    assert study.opened(bits, abits).activation_bits == plan.activation_bits
    assert study.opened(bits, abits[1:]) is None
    opened = plans.opened_plan("plan.json", plans.plan_file(plan), ANALYSIS)
    assert opened.activation_bits == plan.activation_bits
    assert plans.opened_says(study, opened).endswith("× Ω** at this cost.")
    only = study.opened(bits, "")
    assert only.activation_bits == {}
    assert "it rounds other things" in plans.opened_says(study, only)


def test_the_rival_is_the_cheapest_uniform_plan_that_is_not_cheaper():
    plan = STUDIES["bops"].plan(None)
    summary = summarize(ANALYSIS, plan, "bops")
    enough = [x for x in STUDIES["bops"].uniform if x.costs["bops"] >= plan.costs["bops"]]
    assert summary.rival == enough[0]
    assert summary.rival_name == f"Uniform {plans.uniform_text(enough[0])}"
    assert list(summary.further) == ["Memory", "Peak", "BOPS"]
    assert summarize(ANALYSIS, plan).rival == summary.rival
    fixed = Study.of(ANALYSIS, "size", fixed=ANALYSIS.uniform(None, 6).activation_bits)
    rival = summarize(ANALYSIS, fixed.plan(None), "size").rival
    assert (plans.uniform_text(rival), rival.activation_bits) == ("W4A6", fixed.fixed)
    inputs = STUDIES["activation_memory"].plan(None)
    assert plans.uniform_text(summarize(ANALYSIS, inputs).rival) == "A4"
    assert summarize(ANALYSIS, ANALYSIS.uniform(4, 4), "bops").rival_size == "same cost"


def test_uniform_plans_without_times_are_left_out():
    short = LatencyTable({key: ms for key, ms in TIMES.times.items() if key[1:] != (4, 8)})
    names = {plans.uniform_text(x) for x in studies.uniform_plans(ANALYSIS, "latency", {}, short)}
    assert "W4A8" not in names
    plan = STUDIES["latency"].plan(None)
    assert summarize(ANALYSIS, plan, "latency", LatencyTable({})).cost == "bops"


def test_tables_hold_every_cost():
    plan = STUDIES["bops"].plan(None)
    table = plans.plan_table(ANALYSIS, plan)
    assert table["bit operations"].sum() == pytest.approx(plan.costs["bops"])
    assert table["input (KiB)"].sum() * 1024 == pytest.approx(plan.costs["activation_memory"])
    assert (table["Ω"] + table["Ω of its input"]).sum() == pytest.approx(plan.omega)
    assert table["bits of its input"][4] == 32  # its input was not found
    assert "bit operations" in plans.frontier_table(STUDIES["bops"])
    assert "latency (ms)" in plans.frontier_table(STUDIES["latency"])
    assert "memory of all activations (KiB)" in plans.frontier_table(STUDIES["activation_memory"])


def test_a_table_to_fill_in_has_every_row_that_is_needed():
    head, *rows = costs.empty_table(ANALYSIS).splitlines()
    assert head == "layer,w_bits,a_bits,ms"
    assert len(rows) == 5 * 49 + 7  # one layer's input stays float
    filled = {tuple(row.split(",")[:3]): 1.0 for row in rows}
    table = LatencyTable({(x, int(w), int(a)): ms for (x, w, a), ms in filled.items()})
    assert Study.of(ANALYSIS, "latency", latency=table).plan(None).costs["latency"] == 6.0


def test_a_frontier_with_a_tolerance_says_so():
    assert costs.how_to_read(STUDIES["bops"]).endswith(
        "Costs are told apart to 0.1% of their range."
    )
    assert "none that is no larger has a smaller Ω" in costs.how_to_read(STUDIES["size"])
    assert "told apart" not in costs.how_to_read(STUDIES["size"])


def test_an_opened_plan_that_a_latency_table_lacks_is_refused():
    short = LatencyTable({key: ms for key, ms in TIMES.times.items() if key[2] != 32})
    known = LatencyTable(short.times | {k: v for k, v in TIMES.times.items() if k[0] == NO_INPUT})
    study = Study.of(ANALYSIS, "latency", latency=known)
    with pytest.raises(ValueError, match="lacks w_bits 4 and a_bits 32 of layer"):
        study.opened("444444", "")


def test_budgets_in_their_units_and_what_was_made_of_them():
    study = STUDIES["bops"]
    fields = studies.budget_fields(study, {"size": 2048.0})
    assert [field.label for field in fields] == [
        "Size (KiB)",
        "Memory (KiB)",
        "Peak (KiB)",
        "BOPS (M)",
    ]
    assert [field.value for field in fields] == [2.0, None, None, None]
    assert "Latency (ms)" in [x.label for x in studies.budget_fields(STUDIES["latency"], {})]
    budgets = {"bops": study.plan(None).costs["bops"]}
    says = studies.budgets_says(study, study.within(budgets), budgets)
    assert says.startswith("Best plan within all: BOPS ")
    assert studies.budgets_text({"size": 2048.0, "bops": 3e6}) == "Size 2.0 KiB; BOPS 3.00 M"
    assert study.within({}) == study.plan(None)
    with pytest.raises(ValueError, match="the nearest that can be met are") as refused:
        study.within({"size": 1.0})
    (least,) = studies.nearest(refused.value).values()
    assert study.within({"size": least}).size_bytes == pytest.approx(least)
    assert studies.nearest(ValueError("another")) == {}


@pytest.mark.parametrize(
    ("weights", "inputs", "text"),
    [
        ([4, 4], [8, 4], "uniform W4A4"),
        ([2, 8], [8, 3, 5], "W2–8 A3–5"),
        ([4, 4], [8, 3, 5], "W4 A3–5"),
        ([], [8, 4, 4], "uniform A4"),
        ([], [8, 4, 5], "A4–5"),
        ([3, 3], [], "uniform 3 bits"),
        ([2, 3], [], "2–3 bits"),
    ],
)
def test_bits_in_a_word_or_two(weights, inputs, text):
    plan = {"weight_bits": dict(enumerate(weights)), "activation_bits": dict(enumerate(inputs))}
    assert runs.bits_text(plan) == text


def test_a_run_is_of_a_plan_if_both_bit_widths_are_its():
    plan = STUDIES["bops"].plan(None)
    run = SimpleNamespace(options={"plan": asdict(plan)})
    assert runs.is_of(run, plan)
    assert not runs.is_of(run, replace(plan, activation_bits={}))
    summary = summarize(ANALYSIS, plan, "bops")
    names = measured.network_names(measured.quantize_options(summary, "sample"))
    rival = summary.rival
    size, bops = (plans.cost_text(cost, rival.costs[cost]) for cost in ("size", "bops"))
    assert names["uniform"] == f"uniform W4A4, {size},\n{bops} BOPS"
    weights = summarize(ANALYSIS, ANALYSIS.uniform(4))
    names = measured.network_names(measured.quantize_options(weights, "sample"))
    assert names["plan"] == f"HAWQ-V2, {weights.size}"
