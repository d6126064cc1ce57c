"""What the pages say, from made-up numbers."""

import json
import re
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_activations, made_up_analysis, made_up_evaluation

from engine.results import BitPlan
from hawq_viz.viewmodels import analyses, measured, plans, runs
from hawq_viz.viewmodels.plans import summarize
from hawq_viz.viewmodels.sliders import budget_slider
from hawq_viz.viewmodels.studies import Study

ANALYSIS = made_up_analysis()
STUDY = Study.of(ANALYSIS)
SMALLEST, LARGEST = float(STUDY.frontier.cost[0]), float(STUDY.frontier.cost[-1])
sizes = st.floats(SMALLEST / 2, LARGEST * 2)


def run_view(**fields) -> SimpleNamespace:
    """What is read of a run, without one on disk."""
    given_fields = {
        "id": "20260101-000000-quantize-made-up-0000",
        "folder": Path("nowhere"),
        "kind": "quantize",
        "workload": ANALYSIS.workload,
        "options": measured.quantize_options(summarize(ANALYSIS, STUDY.plan(None)), "sample"),
        "created": "2026-01-01T00:00:00+00:00",
        "state": "finished",
        "done": 30,
        "total": 120,
        "note": "images",
        "eta_seconds": 12.0,
        "place": 0,
        "steps_per_second": None,
        "cancelling": False,
        "results": {},
        "error": None,
        "title": "",
        "remark": "",
    }
    return SimpleNamespace(**{**given_fields, **fields})


@given(sizes)
def test_the_plan_of_a_size_is_the_best_that_fits(size):
    plan = STUDY.plan(size)
    fitting = STUDY.frontier.cost <= max(size, SMALLEST)
    assert plan.omega == pytest.approx(STUDY.frontier.omega[fitting].min())


def test_the_suggested_plan_is_as_small_as_uniform_four_bits():
    uniform = ANALYSIS.uniform(4)
    plan = STUDY.plan(None)
    assert plan.size_bytes <= uniform.size_bytes
    assert plan.omega <= uniform.omega
    three = replace(ANALYSIS, bit_widths=(2, 3))
    assert Study.of(three).plan(None).size_bytes <= ANALYSIS.uniform(3).size_bytes


@given(sizes)
def test_the_slider_holds_the_size_on_its_grid(size):
    slider = budget_slider(STUDY, size)
    assert slider.low <= slider.value <= slider.high
    assert slider.low * 1024 >= SMALLEST
    for value in (slider.low, slider.value, slider.high):
        assert value / slider.step == pytest.approx(round(value / slider.step), abs=1e-6)
    if SMALLEST <= size <= LARGEST:
        assert 0 <= slider.value * 1024 - size < slider.step * 1024 * (1 + 1e-6)


def test_each_step_of_the_slider_stays_where_it_was_put():
    # Were it to follow the plan's own size instead, it could stick between two plans.
    first = budget_slider(STUDY, None)
    value = first.low
    while value + first.step <= first.high:
        value = round(value + first.step, 9)
        assert budget_slider(STUDY, value * first.per_unit).value == pytest.approx(value)


def test_a_network_with_one_plan_has_a_slider_all_the_same():
    one = Study.of(replace(ANALYSIS, bit_widths=(8,)))
    slider = budget_slider(one, None)
    assert slider.low <= slider.value <= slider.high
    assert slider.low < slider.high


@given(sizes)
def test_the_rival_is_the_smallest_uniform_plan_not_smaller(size):
    plan = STUDY.plan(size)
    summary = summarize(ANALYSIS, plan)
    not_smaller = [
        b for b in ANALYSIS.bit_widths if ANALYSIS.uniform(b).size_bytes >= plan.size_bytes
    ]
    assert set(summary.rival.weight_bits.values()) == {min(not_smaller)}
    assert summary.omega_ratio == pytest.approx(summary.rival.omega / plan.omega)


def test_a_plan_against_float32_and_uniform_bits():
    summary = summarize(ANALYSIS, ANALYSIS.uniform(8))
    assert summary.compression == "4.00×"
    assert summary.average_bits == "8.00 bits a weight"
    assert (summary.rival_name, summary.rival_size, summary.ratio) == (
        "Uniform 8 bits",
        "same size",
        "1.00×",
    )


def test_the_plan_file_opens_again(tmp_path):
    plan = STUDY.plan(None)
    (tmp_path / "plan.json").write_bytes(plans.plan_file(plan))
    assert BitPlan.load(tmp_path / "plan.json") == plan


def test_exactness_names_what_is_not():
    assert "Not exact for 1 layers of this network (the first: `layer2.0.conv1`)" in (
        analyses.exactness(ANALYSIS)
    )
    exact = replace(ANALYSIS, layers=ANALYSIS.layers[:3])
    assert analyses.exactness(exact).startswith("Exact for this network")
    inexact = replace(ANALYSIS, layers=ANALYSIS.layers[3:4])
    assert "Not exact for every layer" in analyses.exactness(inexact)


def test_settings_say_how_much_was_seen_and_why_it_ended():
    says = analyses.settings(ANALYSIS)
    assert says["Images seen"] == "256, each once"
    assert says["Mini-batches"] == "8"
    assert says["Stopped because"] == "every image had been used once"
    assert "asked for 10%" in says["Error reached"]
    assert says["Data"] == "made-up images"


def test_tables_have_a_row_a_layer_and_the_plans_sizes_add_up():
    plan = STUDY.plan(None)
    layers = len(ANALYSIS.layers)
    assert len(analyses.trace_table(ANALYSIS)) == len(analyses.omega_table(ANALYSIS)) == layers
    table = plans.plan_table(ANALYSIS, plan)
    assert table["size (KiB)"].sum() * 1024 == pytest.approx(plan.size_bytes)
    assert table["Ω"].sum() == pytest.approx(plan.omega)
    assert len(plans.frontier_table(STUDY)) <= plans.TABLE_ROWS


def test_a_quantize_run_is_told_the_plans_with_the_quantizer_of_the_analysis():
    options = json.loads(json.dumps(run_view().options))
    assert options["plan"]["weight_bits"] == STUDY.plan(None).weight_bits
    assert set(options["uniform"]["weight_bits"].values()) == {4}
    for name in ("plan", "uniform"):
        assert options[name]["quantizer"] == STUDY.analysis.quantizer


def test_a_saved_plan_opens_with_its_own_bits():
    plan = ANALYSIS.plan_of({name: 8 if i else 2 for i, name in enumerate(ANALYSIS.names)})
    content = plans.plan_file(plan)
    opened = plans.opened_plan("plan.json", content, ANALYSIS)
    assert opened.weight_bits == plan.weight_bits
    bits = "2" + "8" * (len(ANALYSIS.names) - 1)
    assert STUDY.opened(bits, "").weight_bits == plan.weight_bits
    best = STUDY.frontier.omega[STUDY.frontier.index_within(plan.size_bytes)]
    assert STUDY.above_frontier(opened) == pytest.approx(plan.omega / best)
    assert plans.opened_says(STUDY, opened).startswith("Your own plan: you pay **")
    assert plans.opened_says(STUDY, STUDY.plan(None)).endswith("this analysis' frontier.")


@pytest.mark.parametrize("bits", ["8", "9" * 22, "1" * 500])
def test_bits_of_another_network_are_passed_over(bits):
    assert STUDY.opened(bits, "") is None
    assert STUDY.opened("", bits) is None
    assert STUDY.opened("", "") is None


def test_a_plan_that_cannot_be_opened_says_why():
    with pytest.raises(ValueError, match=r"^mine.json must be a saved plan, but is not whole JSON"):
        plans.opened_plan("mine.json", b"{", ANALYSIS)
    other = replace(STUDY.plan(None), workload="other")
    with pytest.raises(
        ValueError, match=r"p.json must be a plan for .*, got one for other: choose"
    ):
        plans.opened_plan("p.json", plans.plan_file(other), ANALYSIS)


def test_an_analyze_run_is_told_shares_not_per_cent():
    told = analyses.analyze_options("full", [8, 2], 15, 3)
    assert told == {
        "data": "full",
        "bit_widths": [2, 8],
        "relative_sem": 0.15,
        "seed": 3,
        "activations": True,
    }
    with pytest.raises(ValueError, match="must name at least one bit width, got none: choose some"):
        analyses.analyze_options("full", [], 15, 3)


@pytest.mark.parametrize(
    ("fields", "text", "share"),
    [
        ({"state": "queued", "place": 2}, "Queued: 2 runs ahead.", 0.25),
        ({"state": "queued", "place": 1}, "Queued: 1 run ahead.", 0.25),
        ({"state": "queued"}, "Queued: next.", 0.25),
        ({"state": "running", "cancelling": True}, "Cancelling …", 0.25),
        ({"total": 0, "state": "running", "results": {}}, "Starting a worker …", 0.0),
        ({"total": 0, "state": "running", "results": {"packed": {}}}, "At work …", 0.0),
        ({"state": "running"}, "images: 30 of 120, about 12 s left", 0.25),
        ({"state": "running", "eta_seconds": None, "done": 130}, "images: 130 of 120", 1.0),
        (
            {"state": "running", "note": "training steps", "steps_per_second": 6.125},
            "training steps: 30 of 120, 6.12 steps/s, about 12 s left",
            0.25,
        ),
    ],
)
def test_progress_in_a_line(fields, text, share):
    run = run_view(**fields)
    assert runs.progress_text(run) == text
    assert runs.share_done(run) == share


def test_the_run_to_watch_is_the_named_one_else_the_one_alive():
    old, alive = run_view(id="old"), run_view(id="alive", state="running")
    other = run_view(id="other", workload="another", state="running")

    def watched(run_id):
        found = runs.watched([other, alive, old], "quantize", ANALYSIS.workload, run_id)
        return found.id

    assert watched("old") == "old"
    assert watched("") == watched("other") == "alive"
    assert runs.watched([old], "quantize", ANALYSIS.workload, "") is None
    assert runs.watched([alive], "analyze", ANALYSIS.workload, "alive") is None


def test_runs_of_a_plan_are_those_with_its_bits():
    run = run_view()
    assert runs.runs_of([run], runs.QUANTIZING, ANALYSIS.workload, STUDY.plan(None)) == [run]
    assert runs.runs_of([run], runs.QUANTIZING, ANALYSIS.workload, ANALYSIS.uniform(2)) == []
    assert runs.runs_of([run], ("analyze",), ANALYSIS.workload) == []


def measured_run(plan: float, uniform: float) -> SimpleNamespace:
    values = {"float": 0.92, "plan": plan, "uniform": uniform}
    results = {name: made_up_evaluation(x, loss=2 - x).to_json() for name, x in values.items()}
    return run_view(results=results)


def test_the_verdict_compares_and_owns_up_to_overlap():
    clear = measured_run(0.83, 0.58)
    says = measured.verdict(clear)
    assert says == (
        "The plan keeps 83.0%, 9.0 ± 2.9 points below float32 and 25.0 ± 3.8 points above "
        "uniform 4 bits (95 % intervals, as of independent images: too wide)."
    )
    close = measured_run(0.925, 0.93)
    says = measured.verdict(close)
    assert says.startswith(
        "The plan keeps 92.5%, 0.5 ± 2.4 points above float32 and 0.5 ± 2.3 poin"
    )
    assert says.endswith(" A difference within its ± is not certain: more test images would tell.")


def test_a_verdict_leaves_out_what_cannot_be_told():
    run = measured_run(0.83, 0.58)
    del run.results["uniform"]
    assert measured.verdict(run).startswith(
        "The plan keeps 83.0%, 9.0 ± 2.9 points below float32 ("
    )
    run.results["float"] = made_up_evaluation(0.92, samples=500).to_json()
    assert measured.verdict(run) == "The plan keeps 83.0%."


def test_a_detectors_metric_is_named_in_full():
    run = measured_run(0.83, 0.58)
    for result in run.results.values():
        result["metric"] = "mAP"
    found = measured.evaluations(run)
    assert measured.verdict(run).startswith("The plan keeps mAP@[.5:.95] 83.0%, 9.0")
    assert measured.accuracies_alt(found, run.options).startswith("Measured, mAP@[.5:.95]: float32")
    table = measured.accuracy_table(ANALYSIS, run)
    assert list(table["mAP@[.5:.95] (%)"]) == pytest.approx([92, 83, 58])
    assert ": mAP@[.5:.95] 83.0% (1 Jan " in runs.listed_name(run)


def test_traces_below_their_errors_are_named():
    one = analyses.below_error(ANALYSIS)
    assert one == (
        "1 trace lies below its error (triangles; `layer2.0.conv2`): Ω uses the error instead, so "
        "that noise makes nothing look free. More images would tell."
    )
    two = analyses.below_error(made_up_activations(ANALYSIS))
    assert two.startswith(
        "2 traces lie below their errors (triangles; `layer2.0.conv2`, `input of layer1.0.conv2`)"
    )
    noise = [replace(x, trace=replace(x.trace, mean=-1.0)) for x in ANALYSIS.layers]
    assert "`layer1.0.conv2` and 3 more)" in analyses.below_error(
        replace(ANALYSIS, layers=tuple(noise))
    )
    assert analyses.below_error(replace(ANALYSIS, layers=ANALYSIS.layers[:4])) == ""


def test_measured_networks_in_a_table():
    run = measured_run(0.83, 0.58)
    table = measured.accuracy_table(ANALYSIS, run)
    assert list(table["network"]) == ["float32", "HAWQ-V2", "uniform 4 bits"]
    assert list(table["loss rise"])[1:] == pytest.approx([0.09, 0.34])
    assert list(table["± 95 %"])[1:] == pytest.approx([0.0277, 0.0277], rel=0.01)
    assert table["loss rise"].isna()[0]  # of the float network itself
    assert table["½Ω"][1] == pytest.approx(STUDY.plan(None).omega / 2)
    assert table["size (KiB)"][0] == pytest.approx(4 * ANALYSIS.parameters / 1024)


@pytest.mark.parametrize(
    ("value", "text"), [(0.012345, "0.012"), (170.9, "171"), (12345, "12,345"), (2e7, "2e+07")]
)
def test_short_numbers(value, text):
    assert plans.short(value, 2) == text


def test_names_of_runs_say_what_they_are_and_what_came_out():
    plan = STUDY.plan(None)
    low, high = min(plan.weight_bits.values()), max(plan.weight_bits.values())
    name = f"{plans.size_text(plan.size_bytes)} · {low}–{high} bits · post-training only"
    run = measured_run(0.83, 0.58)
    assert runs.run_name(run) == runs.run_title(run) == name
    assert runs.listed_name(run, plan).startswith(f"{name}: 83.0% · picked plan (1 Jan ")
    running = run_view(state="running")
    assert runs.listed_name(running, ANALYSIS.uniform(2)).startswith(f"{name}: running (")
    uniform = asdict(BitPlan("a", {"a": 3, "b": 3}, 2048, 0.5))
    tuned = run_view(kind="finetune", options={"plan": uniform, "recipe": "full", "seed": 7})
    assert runs.run_name(tuned) == "2.0 KiB · uniform 3 bits · full · seed 7"
    tuned.options.update(recipe="of another release", seed=None)
    assert runs.run_name(tuned) == "2.0 KiB · uniform 3 bits · custom · seed 0"
    assert runs.run_title(run_view(kind="analyze")).startswith("the analysis of 1 Jan ")
    assert runs.run_name(run_view(options={"plan": {"omega": "x"}})) == "a plan that cannot be read"


def test_what_people_call_a_run_comes_first():
    plan, run = STUDY.plan(None), measured_run(0.83, 0.58)
    run.title = "The <b>best</b>"
    assert runs.run_name(run) == runs.run_title(run) == run.title
    assert runs.listed_name(run, plan).startswith(
        f"{run.title} · {runs.facts(run)}: 83.0% · picked"
    )
    assert runs.any_name(run).startswith(f"{run.title} · {ANALYSIS.workload} (1 Jan ")


@given(st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S", "Zs")), max_size=40))
def test_text_for_markdown_has_every_sign_taken_out_of_it(text):
    escaped = runs.plain(text)
    assert re.sub(r"\\(.)", r"\1", escaped) == text
    assert not re.search(r"(?<!\\)(\\\\)*[<*_$`\[:]", escaped)


def test_lines_stay_lines_in_markdown():
    assert runs.plain("a\n# b") == "a  \n\\# b"


@pytest.mark.parametrize(
    ("kind", "state", "name"),
    [
        *((kind, state, "cancel") for kind in runs.QUANTIZING for state in runs.LIVE),
        ("finetune", "finished", "another"),
        ("quantize", "finished", "finetune"),
        *(("finetune", state, "resume") for state in ("failed", "cancelled", "crashed")),
        ("analyze", "failed", "resume"),
    ],
)
def test_every_state_asks_for_one_thing(kind, state, name):
    run = run_view(kind=kind, state=state, error="Out of memory.")
    assert runs.next_action(run).name == name
    if name == "resume":
        says = runs.state_text(run)
        begin = "Cancelled after 30 of 120 images." if state == "cancelled" else "Out of memory."
        assert says.startswith(f"{begin}  \n**Next:** “Resume” ")
        assert ("checkpoint" in says) == (kind == "finetune")
    of_plan = runs.asks_first(run, STUDY.plan(None))
    assert of_plan == (name != "another")
    assert runs.asks_first(run, ANALYSIS.uniform(2)) == (name == "cancel")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (90, "2 min"), (6000, "1.7 h")]
)
def test_durations(seconds, text):
    assert runs.duration(seconds) == text
