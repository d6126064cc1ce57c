"""Every page, run as Streamlit runs it, on made-up numbers; runs are written, not worked."""

import json
from dataclasses import replace

import made_up_runs
import numpy as np
import pytest
from made_up import made_up_analysis
from made_up_runs import WORKLOAD, append, result, tuning_run, write_run
from opened import open_page, texts
from streamlit.testing.v1 import AppTest

from engine import jobs
from engine.jobs.folders import new_run
from engine.jobs.turns import take_ticket
from engine.sensitivities import Finding
from engine.workloads import stored_analysis, workload_names
from hawq_viz import state
from hawq_viz.viewmodels import measured, plans, runs
from hawq_viz.viewmodels.plans import summarize
from hawq_viz.viewmodels.studies import Study

STUDY = Study.of(made_up_analysis())
SUMMARY = summarize(STUDY.analysis, STUDY.plan(None))


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A made-up analysis in place of the one that comes along."""
    path = tmp_path / "stored.analysis.json"
    STUDY.analysis.save(path)
    monkeypatch.setattr(state, "stored_analysis", lambda _: path)
    return path


@pytest.fixture
def launched(monkeypatch):
    """What was asked of workers; none is started."""
    asked = []

    def launch(kind, workload, options):
        asked.append((kind, workload, json.loads(json.dumps(options))))
        return new_run(kind, workload, options, None).name

    monkeypatch.setattr(jobs, "launch", launch)
    return asked


def metrics(app: AppTest) -> list[str]:
    assert not app.exception
    return [metric.value for metric in app.metric]


def quantize_run(*events: tuple[str, dict], **more):
    options = measured.quantize_options(SUMMARY, "sample")
    return write_run("quantize", options, ("started", {}), *events, **more)


def press(app: AppTest, label: str) -> None:
    next(button for button in app.button if button.label == label).click().run()


def stands_out(app: AppTest) -> list[str]:
    """Labels of the buttons that stand out, but for the one that asks again before deleting."""
    return [b.label for b in app.button if b.proto.type == "primary" and "delete" not in b.key]


KNOWN = "What to know of this network: 1 finding"
MEASURED = (result("float", 0.92), result("plan", 0.83), result("uniform", 0.58), ("finished", {}))


@pytest.mark.usefixtures("stored", "runs")
class TestFrontier:
    def test_it_opens_on_the_frontier_with_a_plan(self):
        app = open_page()
        assert texts(app.subheader).startswith("Frontier")
        assert metrics(app)[:2] == [SUMMARY.size, SUMMARY.compression]
        assert app.query_params == {"workload": WORKLOAD}

    def test_the_url_picks_the_plan(self):
        smallest = float(STUDY.frontier.cost[0])
        app = open_page(size=str(smallest))
        assert metrics(app)[0] == plans.size_text(smallest)

    def test_the_slider_picks_a_plan_and_writes_it_to_the_url(self):
        app = open_page()
        wanted = app.slider(key="budget").max
        app.slider(key="budget").set_value(wanted).run()
        assert app.query_params["size"] == str(round(wanted * 1024))
        assert metrics(app)[0] == plans.size_text(float(STUDY.frontier.cost[-1]))

    def test_undo_and_clear(self):
        app = open_page()
        first = metrics(app)
        assert app.button(key="undo").disabled
        assert app.button(key="clear").disabled
        low, high = app.slider(key="budget").min, app.slider(key="budget").max
        app.slider(key="budget").set_value(low).run()
        second = metrics(app)
        app.slider(key="budget").set_value(high).run()
        app.button(key="undo").click().run()
        assert metrics(app) == second
        app.button(key="undo").click().run()
        assert metrics(app) == first
        assert app.button(key="undo").disabled
        app.slider(key="budget").set_value(high).run()
        app.button(key="clear").click().run()
        assert metrics(app) == first
        assert "size" not in app.query_params

    def test_the_pick_goes_along_to_the_other_pages(self):
        app = open_page(size="1500")
        on_frontier = metrics(app)
        app.switch_page("../pages/quantize.py").run()
        assert metrics(app) == on_frontier
        assert app.query_params["size"] == "1500"

    def test_another_session_opens_the_same_view(self):
        app = open_page()
        app.slider(key="budget").set_value(app.slider(key="budget").min).run()
        other = open_page(**app.query_params)
        assert metrics(other) == metrics(app)


@pytest.mark.usefixtures("stored", "runs")
class TestSensitivity:
    def test_it_says_how_the_traces_were_found(self):
        app = open_page("sensitivity")
        assert not app.exception
        assert "Not exact for 1 layers" in texts(app.caption)
        settings = app.table[-1].value.to_string()
        for part in ("256, each once", "made-up images", "every image had been used once"):
            assert part in settings

    def test_one_layer_from_close_by_is_chosen_by_link_list_or_bits(self):
        app = open_page("sensitivity", layer="fc", at="6")
        assert not app.exception
        assert app.selectbox(key="layer").value == "fc"
        assert r"(0.2 \pm 0.04)" in app.latex[0].value
        assert "at 6 bits" in app.latex[0].value
        app.selectbox(key="layer").set_value("layer1.0.conv2").run()
        assert r"(0.8 \pm 0.5)" in app.latex[0].value
        app.segmented_control(key="layer_at").set_value(3).run()
        assert "at 3 bits" in app.latex[0].value
        assert app.query_params["layer"] == "layer1.0.conv2"
        assert app.query_params["at"] == "3"
        assert "8 mini-batches of 256 images" in app.table[0].value.to_string()

    def test_layers_are_sorted_as_the_link_says(self):
        app = open_page("sensitivity", sort="trace")
        assert app.segmented_control(key="sort").value == "trace"
        app.segmented_control(key="sort").set_value("omega").run()
        assert app.query_params["sort"] == "omega"
        app.segmented_control(key="sort").set_value("").run()
        assert "sort" not in app.query_params

    def test_an_analysis_of_before_says_what_it_lacks(self, stored):
        replace(STUDY.analysis, weight_counts=np.zeros((0, 0, 0), np.int32)).save(stored)
        app = open_page("sensitivity")
        assert not app.exception
        assert texts(app.info).startswith("This analysis was made before histograms of weights")

    def test_what_to_know_of_the_network_comes_with_its_analysis(self, stored):
        assert open_page("sensitivity").expander[0].label != KNOWN
        finding = Finding("note", "conv1", "It is read twice.")
        replace(STUDY.analysis, findings=(finding,)).save(stored)
        app = open_page("sensitivity")
        assert app.expander[0].label == KNOWN
        assert texts(app.expander[0].markdown).endswith("It is read twice.")

    def test_the_form_starts_an_analysis_with_what_it_says(self, launched):
        app = open_page("sensitivity")
        app.radio(key="analyze_data").set_value("full")
        app.slider(key="analyze_error").set_value(25)
        app.number_input(key="analyze_seed").set_value(7)
        app.button[0].click().run()
        told = {"data": "full", "bit_widths": [*range(2, 9)], "relative_sem": 0.25, "seed": 7}
        told["activations"] = True
        assert launched == [("analyze", WORKLOAD, told)]
        assert app.query_params["run"] == jobs.list_runs()[0].id

    @pytest.mark.usefixtures("launched")
    def test_no_bit_widths_is_one_sentence(self):
        app = open_page("sensitivity")
        app.session_state["analyze_bits"] = []
        app.button[0].click().run()
        assert texts(app.error) == (
            "bit_widths must name at least one bit width, got none: choose some."
        )
        assert jobs.list_runs() == []

    def test_a_finished_analysis_can_be_chosen(self):
        folder = write_run("analyze", {"data": "full", "seed": 3}, ("finished", {}))
        made_up_analysis(layers=(("fc", (10, 32), 0.2, 0.04, True),)).save(folder / "analysis.json")
        app = open_page("sensitivity", run=folder.name)
        assert "is finished" in texts(app.success)
        press(app, "Show it")
        assert app.query_params["analysis"] == folder.name
        assert texts(app.caption).startswith("Exact for this network")
        assert app.selectbox(key="analysis").value == folder.name
        app.selectbox(key="analysis").set_value("").run()
        assert "analysis" not in app.query_params

    def test_a_failed_analysis_says_why_and_what_next(self):
        failed = ("failed", {"error": "image 3 must be finite, got nan: check the data."})
        folder = write_run("analyze", {}, failed, log="Traceback: deep inside")
        app = open_page("sensitivity", run=folder.name)
        assert texts(app.error).startswith("image 3 must be finite, got nan: check the data.")
        assert "**Next:** “Resume” does it once more." in texts(app.error)
        assert texts(app.code) == "Traceback: deep inside"


@pytest.mark.usefixtures("stored", "runs")
class TestQuantize:
    def test_with_nothing_run_it_says_what_to_press(self):
        app = open_page("quantize")
        assert texts(app.info) == "Nothing has been run yet: press “Quantize and fine-tune”."
        assert stands_out(app) == ["Quantize and fine-tune"]

    def test_the_quick_recipe_is_one_button_away(self, launched):
        app = open_page("quantize")
        press(app, "Quantize and fine-tune")
        ((kind, workload, options),) = launched
        assert (kind, workload, options["data"]) == ("finetune", WORKLOAD, "sample")
        assert (options["recipe"], options["epochs"]) == ("quick", 1)
        assert options["plan"]["weight_bits"] == SUMMARY.plan.weight_bits
        assert app.query_params["run"] == jobs.list_runs()[0].id

    def test_post_training_only_measures_the_plan_and_its_rival(self, launched):
        app = open_page("quantize")
        app.selectbox(key="typed_recipe").set_value("post").run()
        press(app, "Quantize")
        ((kind, workload, options),) = launched
        assert (kind, workload, options["data"]) == ("quantize", WORKLOAD, "sample")
        assert options["plan"]["weight_bits"] == SUMMARY.plan.weight_bits
        assert options["uniform"]["weight_bits"] == SUMMARY.rival.weight_bits

    @pytest.mark.parametrize(("recipe", "button"), [("post", ""), ("custom", " and fine-tune")])
    def test_how_weights_are_rounded_goes_with_the_plan(self, launched, recipe, button):
        app = open_page("quantize")
        app.selectbox(key="typed_recipe").set_value(recipe).run()
        app.selectbox(key="typed_rounding").set_value("learned")
        app.selectbox(key="typed_correction").set_value("batch_norm")
        press(app, "Quantize" + button)
        ((_, _, options),) = launched
        told = {"rounding": "learned", "correction": "batch_norm"}
        assert options["plan"]["quantizer"] == SUMMARY.plan.quantizer | told
        assert not told.keys() & options.keys()
        (run,) = jobs.list_runs()
        assert "learned rounding · batch norm corrected" in runs.run_name(run)

    def test_the_rival_gets_a_run_of_its_own_drawn_over_the_first(self, launched):
        app = open_page("quantize")
        app.selectbox(key="typed_recipe").set_value("full")
        app.selectbox(key="typed_data").set_value("full")
        app.checkbox(key="typed_rival").check()
        press(app, "Quantize and fine-tune")
        (_, _, own), (_, _, rival) = launched
        assert own["plan"]["weight_bits"] == SUMMARY.plan.weight_bits
        assert rival["plan"]["weight_bits"] == SUMMARY.rival.weight_bits
        assert own["epochs"] == rival["epochs"] == 3
        assert own["data"] == rival["data"] == "full"
        ids = {run.id: run.options["plan"]["size_bytes"] for run in jobs.list_runs()}
        assert ids[app.query_params["run"]] == SUMMARY.plan.size_bytes
        assert ids[app.query_params["overlay"]] == SUMMARY.rival.size_bytes

    def test_a_custom_recipe_says_only_what_was_typed(self, launched):
        app = open_page("quantize")
        app.selectbox(key="typed_recipe").set_value("custom").run()
        app.selectbox(key="typed_optimizer").set_value("adamw")
        app.selectbox(key="typed_step_sizes").set_value("fixed")
        app.number_input(key="typed_epochs").set_value(0.5)
        app.number_input(key="typed_seed").set_value(3)
        press(app, "Quantize and fine-tune")
        ((_, _, options),) = launched
        del options["plan"]
        assert options == {
            "data": "sample",
            "recipe": "custom",
            "optimizer": "adamw",
            "step_sizes": "fixed",
            "epochs": 0.5,
            "seed": 3,
        }

    def test_a_refused_recipe_is_its_sentence_and_nothing_typed_is_lost(self, launched):
        app = open_page("quantize")
        app.selectbox(key="typed_recipe").set_value("custom").run()
        app.number_input(key="typed_learning_rate").set_value(-0.5)
        app.number_input(key="typed_epochs").set_value(2.0)
        press(app, "Quantize and fine-tune")
        assert launched == []
        assert texts(app.error).startswith("learning_rate must be above 0, got -0.5")
        assert app.number_input(key="typed_epochs").value == 2.0
        app.selectbox(key="typed_recipe").set_value("quick").run()
        app.switch_page("../pages/sensitivity.py").run()
        app.switch_page("../pages/quantize.py").run()
        assert not app.error
        app.selectbox(key="typed_recipe").set_value("custom").run()
        assert app.number_input(key="typed_learning_rate").value == -0.5
        assert app.number_input(key="typed_epochs").value == 2.0

    def test_a_launch_that_is_refused_is_its_sentence(self, monkeypatch):
        def refuse(*_):
            raise ValueError("runs must lie in a folder that can be written, got /.")

        monkeypatch.setattr(jobs, "launch", refuse)
        app = open_page("quantize")
        press(app, "Quantize and fine-tune")
        assert texts(app.error) == "runs must lie in a folder that can be written, got /."

    def test_a_rival_that_is_refused_leaves_the_first_run_in_view(self, monkeypatch):
        def launch(kind, workload, options):
            if options["plan"]["weight_bits"] == SUMMARY.rival.weight_bits:
                raise ValueError("no room for another run.")
            return new_run(kind, workload, options, None).name

        monkeypatch.setattr(jobs, "launch", launch)
        app = open_page("quantize")
        app.checkbox(key="typed_rival").check()
        press(app, "Quantize and fine-tune")
        assert texts(app.error) == "no room for another run."
        assert app.query_params["run"] == jobs.list_runs()[0].id
        assert "overlay" not in app.query_params

    def test_a_finished_run_says_what_was_measured_and_on_what(self):
        quantize_run(*MEASURED)
        app = open_page("quantize")
        assert "The plan keeps 83.0%, 9.0 ± 2.9 points below float32" in texts(app.success)
        assert "Measured on 1,000 images: made-up images." in texts(app.caption)
        assert list(app.dataframe[0].value["top-1 (%)"]) == pytest.approx([92, 83, 58])
        assert stands_out(app) == ["Fine-tune it"]

    def test_a_plan_that_was_rounded_can_be_fine_tuned_from_there(self, launched):
        quantize_run(*MEASURED)
        app = open_page("quantize")
        press(app, "Fine-tune it")
        ((kind, _, options),) = launched
        assert (kind, options["recipe"]) == ("finetune", "quick")
        assert options["plan"]["weight_bits"] == SUMMARY.plan.weight_bits

    def test_a_run_in_the_url_survives_a_reload(self):
        wanted = quantize_run(*MEASURED)
        quantize_run(result("float", 0.5), ("failed", {"error": "out of luck."}))
        app = open_page("quantize", run=wanted.name)
        assert app.selectbox(key="shown").value == wanted.name
        assert "The plan keeps 83.0%" in texts(app.success)

    def test_a_run_that_is_not_here_is_one_sentence(self):
        quantize_run(*MEASURED)
        app = open_page("quantize", run="20260101-000000-quantize-resnet20-cifar10-0000")
        assert texts(app.warning).startswith("run must be the id of one in ")
        assert "The plan keeps 83.0%" in texts(app.success)

    def test_a_failed_run_keeps_what_it_measured_and_shows_its_log(self):
        failed = ("failed", {"error": "MemoryError: no memory"})
        quantize_run(result("float", 0.92), failed, log="the last words")
        app = open_page("quantize")
        assert texts(app.error).startswith("MemoryError: no memory")
        assert "**Next:** “" in texts(app.error)
        assert texts(app.code) == "the last words"
        assert len(app.dataframe[0].value) == 1
        assert stands_out(app) == ["Resume"]

    def test_a_run_at_work_shows_how_far_it_is(self):
        progress = ("progress", {"done": 500, "total": 3000, "note": "images"})
        quantize_run(progress, alive=True)
        app = open_page("quantize")
        assert not app.exception
        (bar,) = app.get("progress")
        assert (bar.proto.value, bar.proto.text) == (16, "images: 500 of 3,000")


@pytest.mark.usefixtures("stored", "runs")
class TestFineTuning:
    def test_while_it_runs_it_shows_progress_rate_and_both_charts(self):
        events = [*made_up_runs.opening(), *made_up_runs.training(100)]
        tuning_run(SUMMARY.plan, *events, alive=True)
        app = open_page("quantize")
        assert not app.exception
        (bar,) = app.get("progress")
        assert bar.proto.text.startswith("training steps: 100 of 390")
        alts = [json.loads(c.proto.json)["alt"] for c in app.get("bidi_component") if c.proto.json]
        assert any("quick · seed 0: from 58.6% at step 0 to" in alt for alt in alts)
        assert any(alt.startswith("Training loss against steps.") for alt in alts)
        assert "float32" in [*app.dataframe[-2].value["network"]]
        assert stands_out(app) == []
        assert "Cancel" in [button.label for button in app.button]

    def test_finished_it_says_what_it_brought_and_what_was_done(self):
        tuning_run(SUMMARY.plan, *made_up_runs.whole())
        app = open_page("quantize")
        assert not app.exception
        assert "Fine-tuned, the plan reaches 91.4%: 0.7 ± 2.4 points below" in texts(app.success)
        assert "390, by the held-back images" in app.table[0].value.to_string()
        assert stands_out(app) == ["Quantize and fine-tune"]
        assert not app.get("progress")

    def test_the_settings_fold_away_while_a_run_is_at_work(self):
        app = open_page("quantize")
        app.selectbox(key="typed_recipe").set_value("custom").run()
        assert [x.proto.expanded for x in app.expander if x.label.startswith("Settings")] == [True]
        tuning_run(SUMMARY.plan, *made_up_runs.opening(), alive=True)
        app.run()
        assert [x.proto.expanded for x in app.expander if x.label.startswith("Settings")] == [False]

    def test_a_queued_run_says_its_place(self):
        first = tuning_run(SUMMARY.plan, *made_up_runs.opening(), alive=True)
        waiting = write_run("finetune", tuned_options(), ("queued", {}), alive=True)
        for folder in (first, waiting):
            take_ticket(folder)
        app = open_page("quantize", run=waiting.name)
        in_queue, bar = app.get("progress")
        assert in_queue.proto.text == "At work …"
        assert bar.proto.text == "Queued: 1 run ahead."

    def test_cancel_asks_the_worker_to_stop(self, monkeypatch):
        asked = []
        monkeypatch.setattr(jobs, "cancel", asked.append)
        folder = tuning_run(SUMMARY.plan, *made_up_runs.opening(), alive=True)
        app = open_page("quantize")
        press(app, "Cancel")
        assert asked == [folder.name]
        assert not app.exception

    def test_a_cancelled_run_can_be_resumed(self, monkeypatch):
        asked = []
        monkeypatch.setattr(jobs, "resume", asked.append)
        told = [*made_up_runs.opening(), *made_up_runs.training(120)]
        cut = [("checkpoint", {"step": 100}), ("cancelled", {})]
        folder = tuning_run(SUMMARY.plan, *told, *cut)
        app = open_page("quantize")
        assert texts(app.warning).startswith("Cancelled after 120 of 390 training steps.")
        assert stands_out(app) == ["Resume"]
        press(app, "Resume")
        assert asked == [folder.name]

    def test_what_cannot_be_done_is_one_sentence(self, monkeypatch):
        def refuse(_):
            raise ValueError("run must be one that can be resumed, got a finished one.")

        monkeypatch.setattr(jobs, "resume", refuse)
        tuning_run(SUMMARY.plan, *made_up_runs.opening(), ("cancelled", {}))
        app = open_page("quantize")
        press(app, "Resume")
        assert texts(app.error) == "run must be one that can be resumed, got a finished one."

    def test_a_worker_that_vanished_is_told_from_one_at_work(self):
        tuning_run(SUMMARY.plan, *made_up_runs.opening(), log="Killed")
        app = open_page("quantize")
        assert "The worker ended without a word" in texts(app.error)
        assert "**Next:** “" in texts(app.error)
        assert texts(app.code) == "Killed"

    def test_deleting_asks_first_and_then_shows_the_next_run(self):
        kept = quantize_run(*MEASURED)
        folder = tuning_run(SUMMARY.plan, *made_up_runs.whole())
        app = open_page("quantize", run=folder.name)
        assert "This cannot be undone." in texts(app.markdown)
        press(app, "Delete for good")
        assert not folder.exists()
        assert app.selectbox(key="shown").value == kept.name
        assert "run" not in app.query_params

    def test_runs_drawn_over_it_are_in_the_url_and_in_the_verdict(self):
        rival = write_run("finetune", tuned_options(SUMMARY.rival), *made_up_runs.whole(0.85))
        folder = tuning_run(SUMMARY.plan, *made_up_runs.whole())
        app = open_page("quantize", run=folder.name)
        assert "6.4 ± 2.8 points above" not in texts(app.success)
        app.multiselect(key="overlaid").set_value([rival.name]).run()
        assert app.query_params["overlay"] == rival.name
        assert "6.4 ± 2.8 points above" in texts(app.success)
        assert "Lay the two side by side" in [link.label for link in app.get("page_link")]
        other = open_page("quantize", **app.query_params)
        assert other.multiselect(key="overlaid").value == [rival.name]
        assert texts(other.success) == texts(app.success)

    def test_an_overlay_that_is_gone_is_passed_over(self):
        folder = tuning_run(SUMMARY.plan, *made_up_runs.whole())
        gone = "20260101-000000-finetune-resnet20-cifar10-0000"
        app = open_page("quantize", run=folder.name, overlay=gone)
        assert not app.exception
        assert app.multiselect(key="overlaid").value == []

    def test_a_damaged_events_file_still_opens(self):
        folder = tuning_run(SUMMARY.plan, *made_up_runs.opening())
        with (folder / "events.jsonl").open("a") as events:
            events.write('{"time": 1, "event": "mea\nnot JSON\n{"time": 2}\n')
        append(folder, *made_up_runs.training(39), *made_up_runs.ending())
        app = open_page("quantize")
        assert not app.exception
        assert "Fine-tuned, the plan reaches 91.4%" in texts(app.success)


def tuned_options(plan=None) -> dict:
    return made_up_runs.finetune_options(plan or SUMMARY.plan, "quick", "sample")


@pytest.mark.usefixtures("runs")
class TestWhatCanBeWrong:
    @pytest.mark.parametrize("page", ["frontier", "sensitivity", "quantize"])
    def test_a_network_without_an_analysis_says_what_to_do(self, tmp_path, monkeypatch, page):
        monkeypatch.setattr(state, "stored_analysis", lambda _: tmp_path / "none.json")
        app = open_page(page)
        assert not app.exception
        way = ": “New analysis”, above, is the way." if page == "sensitivity" else "."
        assert texts(app.info) == f"{WORKLOAD} has not been analyzed yet{way}"

    @pytest.mark.parametrize("name", [x for x in workload_names() if "imagenet" in x])
    def test_networks_that_come_without_an_analysis_say_so(self, name):
        app = open_page(workload=name)
        assert not app.exception
        assert app.selectbox(key="workload").value == name
        if not stored_analysis(name).exists():
            assert texts(app.info) == f"{name} has not been analyzed yet."

    def test_a_cut_analysis_is_one_sentence(self, stored):
        stored.write_text(stored.read_text()[:500])
        app = open_page()
        assert not app.exception
        assert "must be a saved analysis, but is not whole JSON" in texts(app.error)

    def test_an_unknown_network_names_the_known(self):
        app = open_page(workload="resnet21-cifar10")
        assert not app.exception
        assert texts(app.error).startswith(f"workload must be one of {WORKLOAD}, ")
        assert texts(app.error).endswith(", got 'resnet21-cifar10'.")

    def test_an_unknown_analysis_leads_back(self, stored):
        assert stored.exists()
        app = open_page(analysis="20260101-000000-analyze-resnet20-cifar10-0000")
        assert "run must be the id of one in" in texts(app.error)
        press(app, f"Back to {WORKLOAD}")
        assert not app.error
        assert app.query_params == {"workload": WORKLOAD}

    def test_a_run_of_another_kind_is_no_analysis(self, stored):
        assert stored.exists()
        app = open_page(analysis=quantize_run(*MEASURED).name)
        assert "analysis must be a run that analyzed resnet20-cifar10" in texts(app.error)

    def test_a_page_that_fails_says_so_without_a_traceback(self, stored, monkeypatch):
        assert stored.exists()
        monkeypatch.setattr(plans, "plan_file", lambda _: 1 / 0)
        app = open_page()
        assert not app.exception
        assert "The page failed (ZeroDivisionError: division by zero)." in texts(app.error)
