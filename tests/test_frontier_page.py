"""What is held, made by hand and compared on the Frontier page, on made-up numbers."""

import json

import pytest
from made_up import made_up_activations, made_up_analysis
from made_up_runs import result, write_run
from opened import open_page, texts
from streamlit.testing.v1 import AppTest

from hawq_viz import state
from hawq_viz.figures.ground import Overlaid
from hawq_viz.viewmodels import measured, plans
from hawq_viz.viewmodels.limits import Held, digits
from hawq_viz.viewmodels.studies import Study

ANALYSIS = made_up_activations(made_up_analysis())
STUDY = Study.of(ANALYSIS)
FIRST = ANALYSIS.names[0]
TABLE = "Lock, tie, change"


@pytest.fixture(autouse=True)
def _stored(tmp_path, monkeypatch, runs):  # noqa: ARG001 — runs go into a folder of their own
    """A made-up analysis in place of the one that comes along."""
    path = tmp_path / "stored.analysis.json"
    ANALYSIS.save(path)
    monkeypatch.setattr(state, "stored_analysis", lambda _: path)


def components(app: AppTest) -> list[dict]:
    assert not app.exception
    return [json.loads(c.proto.json) for c in app.get("bidi_component") if c.proto.json]


def drawn(app: AppTest) -> list[dict]:
    """The traces of the frontier's chart."""
    figures = [Overlaid(c["figure"], c["over"]) for c in components(app) if "figure" in c]
    found = [json.loads(figure.to_json())["data"] for figure in figures]
    return next(traces for traces in found if traces[-1].get("name") == "this plan")


def omega(app: AppTest) -> str:
    assert not app.exception
    return {metric.label: metric.value for metric in app.metric}["Ω"]


def test_a_lock_in_the_link_is_kept_on_every_page():
    app = open_page(locked="0:2", size="9000")
    plan = STUDY.keeping(Held(((FIRST, 2),))).plan(9000.0)
    assert plan.weight_bits[FIRST] == 2
    assert omega(app) == plans.summarize(ANALYSIS, plan).omega
    assert "Held: 1 lock. That costs **" in texts(app.markdown)
    assert "without locks and ties" in [trace.get("name") for trace in drawn(app)]
    assert omega(open_page("quantize", locked="0:2", size="9000")) == omega(app)
    assert "without locks and ties" not in [trace.get("name") for trace in drawn(open_page())]


def test_limits_that_contradict_are_one_sentence_and_can_be_taken_away():
    app = open_page(locked="0:8,1:4", tied="0-1")
    assert texts(app.error).startswith("locked must give tied layers the same bits, got 8 for ")
    assert omega(app) == omega(open_page())
    app.button(key="unlimited").click().run()
    assert not app.error
    assert not {"locked", "tied"} & app.query_params.keys()
    app.button(key="undo").click().run()
    assert app.error
    assert app.query_params["tied"] == "0-1"


def test_allowed_bits_are_chosen_above_the_table_and_undone():
    app = open_page()
    app.session_state["plan_tabs"] = TABLE
    app.run()
    before = omega(app)
    app.segmented_control(key="widths").set_value([2, 3]).run()
    assert app.query_params["widths"] == "23"
    assert (
        omega(app) == plans.summarize(ANALYSIS, STUDY.keeping(Held(widths=(2, 3))).plan(None)).omega
    )
    app.segmented_control(key="widths").set_value([]).run()
    assert "widths" not in app.query_params
    app.button(key="undo").click().run()
    assert app.segmented_control(key="widths").value == [2, 3]
    app.button(key="free").click().run()
    assert omega(app) == before


def test_the_table_is_only_made_when_it_is_looked_at():
    app = open_page(locked="0:8")
    assert not [c for c in components(app) if "rows" in c]
    app.session_state["plan_tabs"] = TABLE
    app.run()
    (table,) = [c for c in components(app) if "rows" in c]
    assert table["rows"][0]["lock"] == 8


def test_a_plan_by_hand_is_compared_and_the_frontiers_taken():
    plan = ANALYSIS.uniform(3)
    app = open_page(bits=digits(plan.weight_bits))
    ratio = STUDY.above_frontier(plan)
    assert f"Your own plan: you pay **{ratio:.2f}× Ω** at this size." in texts(app.markdown)
    assert f"  <b>{ratio:.2f}×</b>" in [trace["text"][1] for trace in drawn(app) if "text" in trace]
    app.button(key="frontiers").click().run()
    assert "bits" not in app.query_params
    assert omega(app) == plans.summarize(ANALYSIS, STUDY.plan(plan.size_bytes)).omega
    app.button(key="undo").click().run()
    assert "Your own plan" in texts(app.markdown)


@pytest.mark.parametrize(
    "asked",
    [
        {"locked": "99:8", "tied": "98-99"},
        {"locked": "0:9"},
        {"locked": "<b>:1", "tied": "1-", "widths": "8765"},
        {"alocked": "0:2", "cost": "size"},
        {"widths": "1"},
        {"tied": "3"},
    ],
)
def test_what_the_network_does_not_have_is_passed_over(asked):
    app = open_page(**asked)
    assert not app.error
    assert omega(app) == omega(open_page())


def test_a_locked_input_counts_where_the_cost_chooses_inputs():
    app = open_page(cost="activation_memory", alocked="3:2", fixed="plan", locked="0:2")
    own = Study.of(
        ANALYSIS,
        "activation_memory",
        fixed=STUDY.keeping(Held(((FIRST, 2),))).plan(None).weight_bits,
    )
    plan = own.keeping(Held((), (("fc", 2),))).plan(None)
    assert plan.activation_bits["fc"] == 2
    assert omega(app) == plans.summarize(ANALYSIS, plan).omega


def test_up_to_three_plans_are_pinned_shown_again_and_let_go():
    app = open_page()
    assert "Nothing is pinned yet" in texts(app.caption)
    first = omega(app)
    app.button(key="pin").click().run()
    assert app.query_params["pins"] == digits(STUDY.plan(None).weight_bits)
    assert app.button(key="pin").disabled
    app.slider(key="budget").set_value(app.slider(key="budget").max).run()
    app.button(key="pin").click().run()
    assert list(app.dataframe[0].value["plan"]) == ["this plan", "A", "B"]
    assert "pinned plans" in [trace.get("name") for trace in drawn(app)]
    app.button(key="show_0").click().run()
    assert omega(app) == first
    app.button(key="unpin_0").click().run()
    assert "," not in app.query_params["pins"]
    app.button(key="unpin_0").click().run()
    assert "pins" not in app.query_params
    assert "Nothing is pinned yet" in texts(app.caption)


def test_a_part_of_the_costs_is_drawn_and_the_whole_again():
    app = open_page()
    assert app.button(key="whole").disabled
    whole = next(trace for trace in drawn(app) if trace.get("name") == "exact frontier")["x"]
    low, high = app.slider(key="part").value
    app.slider(key="part").set_value((low, (low + high) / 2)).run()
    assert app.query_params.keys() == {"workload", "high"}
    part = next(trace for trace in drawn(app) if trace.get("name") == "exact frontier")["x"]
    assert max(part) < max(whole)
    app.slider(key="budget").set_value(app.slider(key="budget").max).run()
    assert "This plan lies outside the part that is drawn." in texts(app.caption)
    other = open_page(**app.query_params)
    assert other.slider(key="part").value == app.slider(key="part").value
    app.button(key="whole").click().run()
    assert "high" not in app.query_params
    app.selectbox(key="cost").set_value("bops").run()
    app.slider(key="part").set_value((0.0, app.slider(key="part").max / 2)).run()
    app.selectbox(key="cost").set_value("size").run()
    assert "high" not in app.query_params


@pytest.mark.parametrize("asked", [{"low": "1e17"}, {"high": "1"}, {"low": "-1", "high": "nan"}])
def test_a_part_without_costs_is_all_of_them(asked):
    app = open_page(**asked)
    assert len(drawn(app)) == len(drawn(open_page()))


def test_measured_plans_are_drawn_and_what_they_keep():
    options = measured.quantize_options(plans.summarize(ANALYSIS, STUDY.plan(None)), "sample")
    write_run("quantize", options, ("started", {}), result("plan", 0.83), ("finished", {}))
    app = open_page()
    (marks,) = [trace for trace in drawn(app) if trace.get("name") == "measured"]
    assert marks["y"] == pytest.approx([STUDY.plan(None).omega])
    assert "top-1 83.0%" in marks["hovertext"][0]
    app.session_state["below"] = "Measured plans"
    app.run()
    assert "What 1 plans of finished runs" in "\n".join(c.get("alt", "") for c in components(app))
    app.query_params["cost"] = "bops"
    assert "No plan of this network has been measured yet" in texts(app.run().caption)
