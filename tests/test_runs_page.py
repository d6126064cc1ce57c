"""The Runs page, run as Streamlit runs it: runs are written, not worked."""

import json
import re

import made_up_runs
import pytest
from made_up import made_up_analysis, made_up_evaluation
from made_up_runs import WORKLOAD, append, reference, tuning_run, whole, write_run
from opened import open_page, texts
from streamlit.testing.v1 import AppTest
from test_pages import (
    MEASURED,
    STUDY,
    SUMMARY,
    launched,
    press,
    quantize_run,
    stands_out,
    stored,
    tuned_options,
)

from engine import jobs
from engine.jobs.folders import SPEC
from hawq_viz.components.run_table import _pick

launched, stored = launched, stored  # fixtures
HOSTILE = "<img src=x onerror=alert(1)> **x** $y$ [z](javascript:1) `"
GONE = "20260101-000000-quantize-resnet20-cifar10-0000"

pytestmark = pytest.mark.usefixtures("stored", "runs")


def page(**parameters: str) -> AppTest:
    app = open_page("runs", **parameters)
    assert not app.exception
    return app


def listed(app: AppTest) -> list[str]:
    return list(app.dataframe[0].value["run"])


def charts(app: AppTest) -> list[dict]:
    """What the charts of a page are told."""
    return [json.loads(one.proto.json) for one in app.get("bidi_component") if one.proto.json]


def headings(app: AppTest) -> str:
    return "\n".join(x.value for x in app.markdown if x.value.startswith("#####"))


def test_with_nothing_run_it_leads_to_where_one_is_started():
    app = page()
    assert texts(app.info) == "Nothing has been run yet: quantize a plan, and it is listed here."
    assert [link.label for link in app.get("page_link")] == ["Quantize a plan"]
    assert not app.dataframe


def test_all_runs_of_all_networks_are_listed_with_what_they_came_to():
    quantize_run(*MEASURED)
    tuning_run(SUMMARY.plan, *whole(), seed=3)
    write_run("analyze", {"data": "full", "seed": 5}, ("started", {}), ("finished", {}))
    write_run("export", {"of": GONE}, ("failed", {"error": "no."}))
    app = page()
    table = app.dataframe[0].value.set_index("run")
    assert set(table.index) == {"Rounded", "Fine-tuned, quick", "Analysis", "Files"}
    tuned = table.loc["Fine-tuned, quick"]
    assert tuned["measured (%)"] == pytest.approx(91.4)
    assert tuned["95 % interval"] == "89.5 … 93.0"
    assert (tuned["network"], tuned["seed"], tuned["state"]) == (WORKLOAD, "3", "✓ finished")
    assert tuned["size (KiB)"] == pytest.approx(SUMMARY.plan.size_bytes / 1024)
    assert tuned["Ω"] == pytest.approx(SUMMARY.plan.omega)
    assert table.loc["Files", "state"] == "✗ failed"
    assert table.loc["Analysis", "seed"] == "5"
    assert table.loc["Rounded", "loss"] == 0.3


def test_filters_are_in_the_url_and_can_be_cleared():
    quantize_run(*MEASURED)
    folder = tuning_run(SUMMARY.plan, *whole())
    tuning_run(SUMMARY.rival, ("cancelled", {}))
    jobs.describe(folder.name, title="The good one")
    app = page()
    assert len(listed(app)) == 3
    app.selectbox(key="runs_kind").set_value("finetune").run()
    assert listed(app) == ["Fine-tuned, quick", "The good one"]
    app.selectbox(key="runs_state").set_value("finished").run()
    assert listed(app) == ["The good one"]
    assert (app.query_params["kind"], app.query_params["state"]) == ("finetune", "finished")
    assert listed(page(**app.query_params)) == ["The good one"]
    press(app, "Clear")
    assert len(listed(app)) == 3
    assert app.query_params == {"workload": WORKLOAD}
    app.text_input(key="runs_find").set_value(" GOOD one ").run()
    assert listed(app) == ["The good one"]
    assert app.query_params["find"] == "GOOD one"
    app.text_input(key="runs_find").set_value("no such thing").run()
    assert listed(app) == []
    app.selectbox(key="runs_network").set_value(WORKLOAD).run()
    assert app.query_params["network"] == WORKLOAD


@pytest.mark.parametrize(
    "asked",
    [
        {"kind": "../x", "state": "<b>", "network": "no-such", "find": "\x00"},
        {"find": "x" * 201, "kind": "finetune;", "run": "../../etc/passwd"},
        {"find": "", "compare": "a"},
        {"compare": "a,b,c"},
        {"network": "x" * 3000},
    ],
)
def test_filters_that_no_view_could_have_written_are_passed_over(asked):
    quantize_run(*MEASURED)
    app = page(**asked)
    assert listed(app) == ["Rounded"]
    assert not app.error
    assert not app.warning


def test_hostile_words_find_nothing_and_do_nothing():
    quantize_run(*MEASURED)
    app = page(find=HOSTILE)
    assert listed(app) == []
    assert app.text_input(key="runs_find").value == HOSTILE


def test_a_hostile_title_is_shown_as_it_stands():
    folder = tuning_run(SUMMARY.plan, *whole())
    other = tuning_run(SUMMARY.plan, *whole(0.9))
    jobs.describe(folder.name, title=HOSTILE, remark=HOSTILE)
    jobs.describe(other.name, title=HOSTILE)
    for asked in ({"run": folder.name}, {"compare": f"{folder.name},{other.name}"}):
        app = page(**asked)
        assert HOSTILE in listed(app)
        for text in (*(x.value for x in app.markdown), *(x.value for x in app.success)):
            for mark in ("<img", "**x", "$y", "](", "`"):
                assert not re.search(rf"(?<!\\){re.escape(mark)}", text)
        for one in charts(app):
            assert "<img" not in one["figure"]
    app = open_page("quantize", run=folder.name, overlay=other.name)
    assert not app.exception
    assert not re.search(r"(?<!\\)<img", texts(app.success))


@pytest.mark.parametrize(
    ("events", "stands", "says"),
    [
        ([], ["Resume"], "The worker ended without a word"),
        ([("failed", {"error": "no luck."})], ["Resume"], "no luck."),
        ([("cancelled", {})], ["Resume"], "Cancelled."),
        ([*whole()], [], "Fine-tuned, the plan reaches 91.4%"),
    ],
)
def test_one_run_has_one_next_action_in_each_state(events, stands, says):
    folder = tuning_run(SUMMARY.plan, *events, log="the last words")
    app = page(run=folder.name)
    assert says in texts([*app.error, *app.warning, *app.success])
    assert [x for x in stands_out(app) if x not in ("Save", "Measure 8 plans")][:1] == stands
    links = [link.label for link in app.get("page_link")]
    assert "Open it on Quantize" in links
    assert ("Pick another plan" in links) == (not stands)


def test_a_run_at_work_can_be_cancelled_and_shows_its_progress():
    folder = tuning_run(SUMMARY.plan, made_up_runs.progress(120), alive=True)
    app = page(run=folder.name)
    assert "training steps: 120 of 390" in app.get("progress")[0].proto.text
    assert "▶ running 30%" in list(app.dataframe[0].value["state"])
    assert "Cancel" in [button.label for button in app.button]


def test_a_finished_rounding_says_where_its_numbers_come_from_and_can_be_trained(launched):
    folder = quantize_run(*MEASURED)
    app = page(run=folder.name)
    assert "The plan keeps 83.0%" in texts(app.success)
    cells = "\n".join(table.value.to_string() for table in app.table)
    for part in (
        "made\\-up images",
        "hawq\\-viz analyze made\\-up",
        folder.name.replace("-", "\\-"),
    ):
        assert part in cells
    press(app, "Fine-tune it")
    assert launched[0][0] == "finetune"


def test_a_run_is_renamed_and_gets_a_remark():
    folder = quantize_run(*MEASURED)
    app = page(run=folder.name)
    next(x for x in app.text_input if x.label == "Title").set_value("  My  best ")
    app.text_area[0].set_value("for the talk")
    press(app, "Save")
    assert not app.exception
    seen = jobs.view(folder.name)
    assert (seen.title, seen.remark) == ("My best", "for the talk")
    assert listed(app) == ["My best"]
    assert headings(app).startswith("##### My best")
    assert "for the talk" in texts(app.markdown)


def test_a_refused_title_is_its_sentence():
    folder = quantize_run(*MEASURED)
    app = page(run=folder.name)
    next(x for x in app.text_input if x.label == "Title").set_value("a\x1bb")
    press(app, "Save")
    assert texts(app.error) == ("title must hold no control characters, got '\\x1b': leave it out.")
    assert jobs.view(folder.name).title == ""


def test_deleting_asks_first_and_leaves_the_rest():
    kept, folder = quantize_run(*MEASURED), tuning_run(SUMMARY.plan, *whole())
    app = page(run=folder.name)
    assert "This cannot be undone." in texts(app.markdown)
    press(app, "Delete for good")
    assert not folder.exists()
    assert listed(app) == ["Rounded"]
    assert "run" not in app.query_params
    assert kept.exists()


def test_a_run_that_is_not_here_is_one_sentence():
    quantize_run(*MEASURED)
    app = page(run=GONE)
    assert texts(app.warning) == f"The run {GONE} is not here any more: pick another."
    app = page(compare=f"{GONE},20260101-000000-quantize-a-0001")
    assert texts(app.warning).count("is not here any more") == 2


def test_two_runs_are_picked_by_the_lists_swapped_and_reopened_by_the_link():
    first, second = tuning_run(SUMMARY.plan, *whole()), tuning_run(SUMMARY.rival, *whole(0.85))
    app = page()
    assert app.selectbox(key="runs_second").disabled
    app.selectbox(key="runs_first").set_value(first.name).run()
    assert app.query_params["run"] == first.name
    app.selectbox(key="runs_second").set_value(second.name).run()
    assert app.query_params["compare"] == f"{first.name},{second.name}"
    assert "B ends 6.4 ± 2.8 points below A" in texts(app.markdown)
    press(app, "Swap")
    assert "B ends 6.4 ± 2.8 points above A" in texts(app.markdown)
    again = page(**app.query_params)
    assert texts(again.markdown) == texts(app.markdown)
    app.selectbox(key="runs_second").set_value("").run()
    assert "compare" not in app.query_params
    assert app.query_params["run"] == second.name


def test_of_three_rows_the_first_stays_and_the_newest_comes(monkeypatch):
    ids, chosen = ["a", "b", "c"], []
    monkeypatch.setattr("hawq_viz.components.run_table.look_at", lambda *runs: chosen.append(runs))
    table = {"selection": {"rows": [0, 1, 2]}}
    monkeypatch.setattr("streamlit.session_state", {"key": table})
    _pick("key", ids, ("c", "a"))
    _pick("key", ids, ())
    table["selection"]["rows"] = [7]
    _pick("key", ids, ("c",))
    assert chosen == [("c", "b"), ("a", "c"), ()]


def test_two_of_different_networks_are_compared_in_what_can_be():
    ours = tuning_run(SUMMARY.plan, *whole())
    theirs = tuning_run(SUMMARY.rival, *whole(0.85))
    spec = json.loads((theirs / SPEC).read_text())
    (theirs / SPEC).write_text(json.dumps(spec | {"workload": "resnet56-cifar10"}))
    app = page(compare=f"{ours.name},{theirs.name}")
    assert "They are of different networks, resnet20-cifar10 and resnet56-cifar10." in texts(
        app.markdown
    )
    assert texts(app.info) == (
        "Their bits cannot be laid side by side: they are not of the same layers."
    )


def test_what_was_never_measured_says_how_to_get_it(launched):
    tuning_run(SUMMARY.plan, ("failed", {"error": "no."}))
    app = page()
    assert f"No plan of {WORKLOAD} has a measured loss yet" in texts(app.info)
    press(app, "Measure 8 plans")
    assert [(kind, options["data"]) for kind, _, options in launched] == [
        ("quantize", "sample")
    ] * 4
    sizes = [options["uniform"]["size_bytes"] for _, _, options in launched]
    assert sizes == [STUDY.analysis.uniform(bits).size_bytes for bits in (3, 4, 5, 6)]
    assert all(o["plan"]["size_bytes"] <= o["uniform"]["size_bytes"] for _, _, o in launched)


def test_a_network_without_an_analysis_is_analyzed_first(stored):
    tuning_run(SUMMARY.plan, ("failed", {"error": "no."}))
    stored.unlink()
    app = page()
    assert "Analyse it first" in [link.label for link in app.get("page_link")]


def test_measured_plans_are_drawn_and_ranked():
    quantize_run(*MEASURED)
    tuning_run(made_up_analysis().uniform(5), *whole())
    app = page()
    assert "Spearman's rank correlation" in texts(app.markdown)
    assert "3 plans, 1,000 images" in texts(app.markdown)
    assert any("of 3 plans" in one["alt"] for one in charts(app))


def test_damaged_runs_cost_no_other():
    good = quantize_run(*MEASURED)
    spoiled = quantize_run(*MEASURED)
    spec = json.loads((spoiled / SPEC).read_text())
    for options in (
        {},
        {"plan": None},
        {"plan": {"omega": "x"}},
        {"plan": [1]},
        {"data": {"a": 1}},
    ):
        (spoiled / SPEC).write_text(json.dumps(spec | {"options": options}))
        for asked in ({"run": spoiled.name}, {"compare": f"{spoiled.name},{good.name}"}):
            app = page(**asked)
            assert "The page failed" not in texts(app.error)
            assert len(listed(app)) == 2
    (spoiled / SPEC).write_text(json.dumps(spec | {"created": "yesterday", "work": "strange"}))
    assert len(listed(page(run=spoiled.name))) == 2
    (spoiled / SPEC).write_text(json.dumps(spec))
    evaluation = made_up_evaluation(0.5).to_json()
    for damage in ({}, {"value": "<b>"}, evaluation | {"provenance": None}):
        append(spoiled, ("result", {"name": "plan", "result": damage}), reference())
        app = page(run=spoiled.name)
        assert "The page failed" not in texts(app.error)
        assert "cannot be read: run it once more" in texts(app.success)


def test_the_queue_shows_places_and_cancels():
    tuning_run(SUMMARY.plan, made_up_runs.progress(120), alive=True)
    tuned = write_run("finetune", tuned_options(), ("queued", {}), alive=True)
    for name in ("runs", "quantize"):
        app = open_page(name)
        assert not app.exception
        assert "Queue: 1 at work, 1 waiting" in [x.label for x in app.expander]
    assert jobs.view(tuned.name).state == "queued"
