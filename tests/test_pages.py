"""Every page, run as Streamlit runs it, on made-up numbers; runs are written, not worked."""

import json
from pathlib import Path

import pytest
from made_up import made_up_analysis, made_up_evaluation
from streamlit.testing.v1 import AppTest

from engine import jobs
from engine.jobs.events import EventWriter
from engine.jobs.folders import EVENTS, LOG, new_run
from hawq_viz import state, viewmodels
from hawq_viz.viewmodels import Study, summarize

APP = Path(__file__).parents[1] / "hawq_viz" / "app.py"
WORKLOAD = "resnet20-cifar10"
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


def open_page(name: str = "frontier", **parameters: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60)
    app.query_params.update(parameters)
    app.run()
    return app if name == "frontier" else app.switch_page(f"../pages/{name}.py").run()


def metrics(app: AppTest) -> list[str]:
    assert not app.exception
    return [metric.value for metric in app.metric]


def texts(elements) -> str:
    return "\n".join(element.value for element in elements)


def write_run(kind: str, options: dict, *events: tuple[str, dict], log: str = ""):
    folder = new_run(kind, WORKLOAD, options, None)
    writer = EventWriter(folder / EVENTS)
    for event, fields in events:
        writer.write(event, **fields)
    writer.close()
    (folder / LOG).write_text(log)
    return folder


def quantize_run(*events: tuple[str, dict], **fields):
    options = viewmodels.quantize_options(SUMMARY, "sample")
    return write_run("quantize", options, ("started", {}), *events, **fields)


def result(name: str, value: float) -> tuple[str, dict]:
    return "result", {"name": name, "result": made_up_evaluation(value).to_json()}


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
        assert metrics(app)[0] == viewmodels.size_text(smallest)

    def test_the_slider_picks_a_plan_and_writes_it_to_the_url(self):
        app = open_page()
        wanted = app.slider(key="budget").max
        app.slider(key="budget").set_value(wanted).run()
        assert app.query_params["size"] == str(round(wanted * 1024))
        assert metrics(app)[0] == viewmodels.size_text(float(STUDY.frontier.cost[-1]))

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
        assert "Not exact for 1 layers" in texts(app.markdown)
        settings = app.table[0].value.to_string()
        for part in ("256, each once", "made-up images", "every image had been used once"):
            assert part in settings

    def test_the_form_starts_an_analysis_with_what_it_says(self, launched):
        app = open_page("sensitivity")
        app.radio(key="analyze_data").set_value("full")
        app.slider(key="analyze_error").set_value(25)
        app.number_input(key="analyze_seed").set_value(7)
        app.button[0].click().run()
        told = {"data": "full", "bit_widths": [*range(2, 9)], "relative_sem": 0.25, "seed": 7}
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
        next(button for button in app.button if button.label == "Show it").click().run()
        assert app.query_params["analysis"] == folder.name
        assert texts(app.markdown).startswith("Exact for this network")
        assert app.selectbox(key="analysis").value == folder.name
        app.selectbox(key="analysis").set_value("").run()
        assert "analysis" not in app.query_params

    def test_a_failed_analysis_says_why_and_what_next(self):
        failed = ("failed", {"error": "image 3 must be finite, got nan: check the data."})
        folder = write_run("analyze", {}, failed, log="Traceback: deep inside")
        app = open_page("sensitivity", run=folder.name)
        assert texts(app.error).startswith("image 3 must be finite, got nan: check the data.")
        assert "**Next:** see the log" in texts(app.error)
        assert texts(app.code) == "Traceback: deep inside"


@pytest.mark.usefixtures("stored", "runs")
class TestQuantize:
    def test_with_nothing_measured_it_says_what_to_press(self):
        app = open_page("quantize")
        assert texts(app.info) == "Nothing has been measured yet: press “Quantize and measure”."

    def test_the_button_starts_a_run_of_the_picked_plan(self, launched):
        app = open_page("quantize")
        next(b for b in app.button if b.label == "Quantize and measure").click().run()
        ((kind, workload, options),) = launched
        assert (kind, workload, options["data"]) == ("quantize", WORKLOAD, "sample")
        assert options["plan"]["weight_bits"] == SUMMARY.plan.weight_bits
        assert options["uniform"]["weight_bits"] == SUMMARY.rival.weight_bits
        assert app.query_params["run"] == jobs.list_runs()[0].id

    def test_a_finished_run_says_what_was_measured_and_on_what(self):
        quantize_run(*MEASURED)
        app = open_page("quantize")
        assert "The plan keeps 83.0%, 9.0 points below float32" in texts(app.markdown)
        assert "Measured on 1,000 images: made-up images." in texts(app.caption)
        assert list(app.dataframe[0].value["top-1 (%)"]) == pytest.approx([92, 83, 58])

    def test_a_run_in_the_url_survives_a_reload(self):
        wanted = quantize_run(*MEASURED)
        quantize_run(result("float", 0.5), ("failed", {"error": "out of luck."}))
        app = open_page("quantize", run=wanted.name)
        assert app.selectbox(key="quantized").value == wanted.name
        assert "The plan keeps 83.0%" in texts(app.markdown)

    def test_a_failed_run_keeps_what_it_measured_and_shows_its_log(self):
        failed = ("failed", {"error": "MemoryError: no memory"})
        quantize_run(result("float", 0.92), failed, log="the last words")
        app = open_page("quantize")
        assert texts(app.error).startswith("MemoryError: no memory")
        assert "press “Quantize and measure” again" in texts(app.error)
        assert texts(app.code) == "the last words"
        assert len(app.dataframe[0].value) == 1

    def test_a_worker_that_vanished_is_told_from_one_at_work(self, monkeypatch):
        monkeypatch.setattr(jobs.runs, "is_alive", lambda _: False)
        quantize_run()
        app = open_page("quantize")
        assert "The worker ended without a word" in texts(app.error)

    def test_a_run_at_work_shows_how_far_it_is(self, monkeypatch):
        monkeypatch.setattr(jobs.runs, "is_alive", lambda _: True)
        progress = ("progress", {"done": 500, "total": 3000, "note": "images"})
        quantize_run(progress)
        app = open_page("quantize")
        assert not app.exception
        (bar,) = app.get("progress")
        assert (bar.proto.value, bar.proto.text) == (16, "images: 500 of 3,000")


@pytest.mark.usefixtures("runs")
class TestWhatCanBeWrong:
    @pytest.mark.parametrize("page", ["frontier", "sensitivity", "quantize"])
    def test_a_network_without_an_analysis_says_what_to_do(self, tmp_path, monkeypatch, page):
        monkeypatch.setattr(state, "stored_analysis", lambda _: tmp_path / "none.json")
        app = open_page(page)
        assert not app.exception
        assert texts(app.info) == f"{WORKLOAD} has not been analyzed yet."

    def test_a_cut_analysis_is_one_sentence(self, stored):
        stored.write_text(stored.read_text()[:500])
        app = open_page()
        assert not app.exception
        assert "must be a saved analysis, but is not whole JSON" in texts(app.error)

    def test_an_unknown_network_names_the_known(self):
        app = open_page(workload="resnet21-cifar10")
        assert not app.exception
        assert texts(app.error) == f"workload must be one of {WORKLOAD}, got 'resnet21-cifar10'."

    def test_an_unknown_analysis_leads_back(self, stored):
        assert stored.exists()
        app = open_page(analysis="20260101-000000-analyze-resnet20-cifar10-0000")
        assert "run must be the id of one in" in texts(app.error)
        next(b for b in app.button if b.label == f"Back to {WORKLOAD}").click().run()
        assert not app.error
        assert app.query_params == {"workload": WORKLOAD}

    def test_a_run_of_another_kind_is_no_analysis(self, stored):
        assert stored.exists()
        app = open_page(analysis=quantize_run(*MEASURED).name)
        assert "analysis must be a run that analyzed resnet20-cifar10" in texts(app.error)

    def test_a_page_that_fails_says_so_without_a_traceback(self, stored, monkeypatch):
        assert stored.exists()
        monkeypatch.setattr(viewmodels, "plan_file", lambda _: 1 / 0)
        app = open_page()
        assert not app.exception
        assert "The page failed (ZeroDivisionError: division by zero)." in texts(app.error)
