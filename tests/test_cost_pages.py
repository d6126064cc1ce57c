"""Pages over other costs than size, run as Streamlit runs them, on made-up numbers."""

import json

import pytest
from made_up import made_up_activations, made_up_analysis
from made_up_runs import WORKLOAD
from opened import open_page, texts
from streamlit.testing.v1 import AppTest

from engine import jobs
from engine.jobs.folders import new_run
from hawq_viz import state
from hawq_viz.figures.costs import cost_text
from hawq_viz.view import View
from hawq_viz.viewmodels.costs import empty_table
from hawq_viz.viewmodels.plans import summarize
from hawq_viz.viewmodels.studies import Study

ANALYSIS = made_up_activations(made_up_analysis())
BOPS = Study.of(ANALYSIS, "bops")
PLAN = BOPS.plan(None)


@pytest.fixture(autouse=True)
def _stored(tmp_path, monkeypatch, runs):  # noqa: ARG001 — runs go into a folder of their own
    """A made-up analysis with activations in place of the one that comes along."""
    path = tmp_path / "stored.analysis.json"
    ANALYSIS.save(path)
    monkeypatch.setattr(state, "stored_analysis", lambda _: path)


def shown(app: AppTest) -> dict[str, str]:
    assert not app.exception
    return {metric.label: metric.value for metric in app.metric}


def alts(app: AppTest) -> str:
    drawn = [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.json]
    return "\n".join(one.get("alt", "") for one in drawn)


def test_another_cost_is_chosen_and_is_in_the_url():
    app = open_page()
    assert "BOPS" not in shown(app)
    app.selectbox(key="cost").set_value("bops").run()
    assert app.query_params == {"workload": WORKLOAD, "cost": "bops"}
    assert shown(app)["BOPS"] == cost_text("bops", PLAN.costs["bops"])
    assert shown(app)["Ω of W4A4"].endswith("×")
    assert "Bit operations against Ω" in alts(app)
    assert "of what layers read: 8" in alts(app)
    app.slider(key="budget").set_value(app.slider(key="budget").max).run()
    assert float(app.query_params["bops"]) >= BOPS.frontier.cost[-1]
    assert shown(open_page(**app.query_params)) == shown(app)
    app.button(key="undo").click().run()
    app.button(key="undo").click().run()
    assert app.query_params == {"workload": WORKLOAD}


@pytest.mark.parametrize("cost", ["activation_memory", "activation_peak"])
def test_costs_of_activations_leave_the_weights_as_they_are_told(cost):
    app = open_page(cost=cost)
    assert "from input to output: float;" in alts(app)
    app.selectbox(key="fixed").set_value("8").run()
    assert "from input to output: 8×6;" in alts(app)
    assert app.query_params["fixed"] == "8"


def test_weights_by_size_then_activations_by_memory():
    # The paper's separate mode: each side is picked over its own cost.
    size = Study.of(ANALYSIS, "size").plan(1500.0)
    app = open_page(size="1500", cost="activation_memory")
    app.selectbox(key="fixed").set_value("plan").run()
    assert shown(app)["Size"] == cost_text("size", size.size_bytes)
    separate = Study.of(ANALYSIS, "activation_memory", fixed=size.weight_bits).plan(None)
    assert shown(app)["Memory"] == cost_text("size", separate.costs["activation_memory"])
    app.switch_page("../pages/quantize.py").run()
    assert shown(app)["Size"] == cost_text("size", size.size_bytes)


def test_the_picked_plan_is_launched_with_both_bit_widths(monkeypatch):
    asked = []

    def launch(kind, workload, options):
        asked.append(json.loads(json.dumps(options)))
        return new_run(kind, workload, options, None).name

    monkeypatch.setattr(jobs, "launch", launch)
    app = open_page("quantize", cost="bops")
    app.checkbox(key="typed_rival").check()
    next(b for b in app.button if b.label == "Quantize and fine-tune").click().run()
    own, rival = asked
    assert own["plan"]["weight_bits"] == PLAN.weight_bits
    assert own["plan"]["activation_bits"] == PLAN.activation_bits
    expected = summarize(ANALYSIS, PLAN, "bops").rival
    assert rival["plan"]["activation_bits"] == expected.activation_bits
    assert "uniform W4A4" in "\n".join(app.multiselect(key="overlaid").options)


def test_several_budgets_are_met_at_once_and_are_in_the_url():
    size, bops = PLAN.size_bytes * 1.1, PLAN.costs["bops"] * 0.9
    app = open_page(cost="several")
    assert "No budget yet" in texts(app.caption)
    app.number_input(key="budget_size").set_value(size / 1024)
    app.number_input(key="budget_bops").set_value(bops / 1e6)
    find(app)
    assert float(app.query_params["size"]) == pytest.approx(size)
    plan = ANALYSIS.within({"size": size, "bops": bops})
    assert shown(app)["Size"] == cost_text("size", plan.size_bytes)
    assert shown(app)["BOPS"] == cost_text("bops", plan.costs["bops"])
    assert "Best plan within all: Size" in texts(app.caption)
    other = open_page(**app.query_params)
    assert shown(other) == shown(app)
    assert other.number_input(key="budget_bops").value == pytest.approx(bops / 1e6)


def test_budgets_that_cannot_be_met_come_with_the_nearest():
    app = open_page(cost="several")
    app.number_input(key="budget_size").set_value(0.001)
    app.number_input(key="budget_bops").set_value(100.0)
    find(app)
    assert "size=1.024" in texts(app.error)
    assert "the nearest that can be met are" in texts(app.error)
    assert float(app.query_params["size"]) == pytest.approx(1.024)  # a reload says the same
    assert texts(open_page(**app.query_params).error) == texts(app.error)
    assert "BOPS " in texts(app.caption)
    app.button(key="nearest").click().run()
    assert not app.error
    least = float(Study.of(ANALYSIS, "size").frontier.cost[0])
    assert float(app.query_params["size"]) == pytest.approx(least)
    assert shown(app)["Size"] == cost_text("size", least)


def test_a_link_with_budgets_that_cannot_be_met_says_so():
    app = open_page(cost="several", size="1")
    assert "budgets must be such that" in texts(app.error)
    assert "There is no such plan: shown is one that is suggested." in texts(app.caption)
    app.selectbox(key="cost").set_value("bops").run()
    assert not app.error
    assert shown(app)["BOPS"] == cost_text("bops", PLAN.costs["bops"])


def test_undo_and_clear_are_in_the_inputs_too():
    app = open_page(cost="several", size=str(PLAN.size_bytes))
    whole = app.number_input(key="budget_size").value
    app.number_input(key="budget_size").set_value(2 * whole)
    find(app)
    app.button(key="undo").click().run()
    assert app.number_input(key="budget_size").value == whole
    app.switch_page("../pages/sensitivity.py").run()
    app.switch_page("../pages/frontier.py").run()
    assert app.number_input(key="budget_size").value == whole
    app.button(key="clear").click().run()
    assert app.number_input(key="budget_size").value is None


def test_the_least_that_can_be_typed_is_refused_in_a_sentence():
    app = open_page(cost="several")
    app.number_input(key="budget_size").set_value(1e-300)
    find(app)
    assert "got size=1e-06: the nearest that can be met are" in texts(app.error)


def test_a_plan_that_cannot_be_met_is_not_launched_but_leads_back():
    app = open_page("quantize", cost="several", size="1")
    assert "budgets must be such that" in texts(app.error)
    assert not app.metric
    assert [link.proto.page for link in app.get("page_link")] == ["frontier"]
    assert "Histogram of the input" in alts(open_page("sensitivity", cost="several", size="1"))


@pytest.mark.parametrize(
    "asked",
    [
        {"bits": "4444"},
        {"bits": "444444", "abits": "44"},
        {"cost": "bops", "bits": "111111", "abits": "1111"},
        {"cost": "several", "abits": "8"},
    ],
)
def test_bits_of_another_network_are_said_to_fit_no_plan(asked):
    app = open_page(**asked)
    assert "The bits in the link fit no plan of this network" in texts(app.caption)
    assert not app.error


def find(app: AppTest) -> None:
    next(button for button in app.button if button.label == "Find it").click().run()
    assert not app.exception


def table() -> bytes:
    """A whole latency table; a layer takes bits of the weight + bits of the input, in ms."""
    head, *rows = empty_table(ANALYSIS).splitlines()
    filled = [f"{row}{sum(map(int, row.split(',')[-3:-1]))}" for row in rows]
    return "\n".join([head, *filled]).encode()


def test_latency_asks_for_a_table_first():
    app = open_page(cost="latency")
    assert texts(app.info).startswith("Latency is counted by your own measurements")
    assert not app.metric
    app = open_page("quantize", cost="latency", table="0123456789ab")
    assert texts(app.info).startswith("The times of the layers are not here any more")


@pytest.mark.parametrize("table", ["", "0123456789ab"])
def test_a_budget_of_latency_among_several_asks_for_the_table_too(table):
    app = open_page(cost="several", latency="3", size="1500", table=table)
    assert texts(app.info).startswith("Latency is counted by your own measurements")
    app = open_page("quantize", cost="several", latency="3", table=table)
    assert texts(app.info).startswith("The times of the layers are not here any more")


def test_a_budget_of_latency_among_several():
    key = state.keep_table("mine.csv", table())
    app = open_page(cost="several", latency="70", table=key)
    times = state.latency_table(View(table=key))
    plan = ANALYSIS.within({"latency": 70.0}, latency=times)
    assert app.number_input(key="budget_latency").value == 70
    assert shown(app)["Latency"] == cost_text("latency", plan.costs["latency"])


def test_latency_of_a_table_that_was_loaded():
    key = state.keep_table("mine.csv", table())
    app = open_page(cost="latency", table=key)
    plan = Study.of(ANALYSIS, "latency", latency=state.latency_table(View(table=key)))
    assert shown(app)["Latency"] == cost_text("latency", plan.plan(None).costs["latency"])
    assert "Latency against Ω" in alts(app)


def test_a_table_that_is_none_or_lacks_rows_is_one_sentence():
    with pytest.raises(ValueError, match=r"^mine.csv must have the columns .*, but lacks ms"):
        state.keep_table("mine.csv", b"layer,w_bits,a_bits\n")
    rows = [row for row in table().decode().splitlines() if not row.startswith("fc,")]
    app = open_page(cost="latency", table=state.keep_table("short.csv", "\n".join(rows).encode()))
    assert "short.csv lacks 'fc'" in texts(app.error)
    app = open_page("sensitivity", **app.query_params)
    assert not app.error
    assert "Histogram of the input" in alts(app)


def test_an_opened_plan_that_the_table_lacks_is_one_sentence():
    rows = [
        row for row in table().decode().splitlines() if ",32," not in row or "layer2.0.conv2" in row
    ]
    key = state.keep_table("few.csv", "\n".join(rows).encode())
    app = open_page(cost="latency", table=key, bits="444444")
    assert "few.csv lacks w_bits 4 and a_bits 32 of layer" in texts(app.error)
    assert "There is no such plan" in texts(app.caption)
    app = open_page("quantize", cost="latency", table=key, bits="444444")
    assert "few.csv lacks" in texts(app.error)


def test_only_so_many_tables_are_kept():
    keys = [state.keep_table("t.csv", table() + b"\n" * i) for i in range(state.TABLES + 1)]
    assert state.latency_table(View(table=keys[0])) is None
    assert state.latency_table(View(table=keys[-1])) is not None


def test_an_activation_is_looked_at_closely_and_that_is_in_the_url():
    app = open_page("sensitivity")
    app.selectbox(key="activation").set_value("fc").run()
    assert app.query_params["activation"] == "fc"
    assert "Histogram of the input of fc" in alts(app)
    other = open_page("sensitivity", activation="fc", at="3")
    assert "with the 8 levels of 3 bits" in alts(other)
    assert "1 input stays float: that of `layer2.0.conv2`" in texts(other.caption)


def test_the_grid_is_first_that_of_the_picked_plan():
    app = open_page("sensitivity", cost="bops", activation="fc")
    assert f"with the {2 ** PLAN.activation_bits['fc']} levels" in alts(app)


def test_an_analysis_without_activations_is_drawn_against_size(tmp_path, monkeypatch):
    path = tmp_path / "old.analysis.json"
    made_up_analysis().save(path)
    monkeypatch.setattr(state, "stored_analysis", lambda _: path)
    app = open_page(cost="bops")
    assert "Size against Ω" in alts(app)
    for cost in ("latency", "several"):
        asked = open_page(cost=cost, latency="3", bops="1e6")
        assert "Size against Ω" in alts(asked)
        assert not asked.info
    assert "“New analysis” measures them too" in texts(app.caption)
    assert "“New analysis” measures them too" in texts(open_page("sensitivity").caption)
