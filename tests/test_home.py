"""The Home page and what it says, on made-up numbers; runs are written, not worked."""

import json

import made_up_runs
import pytest
from made_up import made_up_activations, made_up_analysis, made_up_evaluation
from made_up_runs import WORKLOAD, result, tuning_run, write_run
from opened import open_page, texts
from test_pages import MEASURED, SUMMARY, press, quantize_run, stands_out
from test_pages import launched as launched
from test_pages import stored as stored

from engine import jobs
from engine.results import PackedFile, PackedItem
from engine.workloads import stored_analysis, workload_names
from hawq_viz import networks, state
from hawq_viz.viewmodels import journey, workloads

STATES = ("done", "now", "later")
FAILED = ("failed", {"error": "MemoryError: no memory"})
FOUND = {"name": "checklist", "result": {"findings": [
    {"severity": "problem", "subject": "bn", "sentence": "It has never seen an image."}
]}}  # fmt: skip
PACKED = PackedFile(100.0, (PackedItem("fc", "packed weights", 2048),))


def exported(of: str):
    told = {"file": PACKED.to_json(), "images": 32, "same": True}
    return write_run(
        "export", {"of": of}, ("result", {"name": "packed", "result": told}), ("finished", {})
    )


def on_the_way(app) -> list[str]:
    """States of the five steps, as the cards say them."""
    return [word for text in app.markdown for word in STATES if f":small[{word}]" in text.value]


@pytest.mark.usefixtures("stored", "runs")
class TestHome:
    def test_a_first_visit_says_what_it_is_and_what_to_do(self):
        app = open_page("home")
        assert not app.exception
        assert texts(app.subheader) == "How few bits can each layer bear?"
        assert on_the_way(app) == ["done", "done", "now", "later", "later"]
        assert stands_out(app) == ["Pick a plan"]
        assert [metric.value for metric in app.metric][:2] == ["92.1%", "6"]
        assert f"The suggested plan: {SUMMARY.size}" in texts(app.markdown)
        assert "it comes with the network, from 256 images" in texts(app.caption)
        assert "None yet." in texts(app.caption)

    def test_what_stands_out_leads_to_its_page_with_the_view(self):
        app = open_page("home", size="1500")
        assert "The picked plan" in texts(app.markdown)
        assert stands_out(app) == ["Quantize it"]
        press(app, "Quantize it")
        assert texts(app.subheader).startswith("Quantize")
        assert app.query_params["size"] == "1500"

    def test_without_an_analysis_it_asks_for_one(self, tmp_path, monkeypatch):
        monkeypatch.setattr(state, "stored_analysis", lambda _: tmp_path / "none.json")
        app = open_page("home")
        assert not app.exception
        assert on_the_way(app) == ["done", "now", "later", "later", "later"]
        assert stands_out(app) == ["Analyse it"]
        assert not app.get("bidi_component")[1:]  # the link's button, and no chart

    def test_a_failed_run_says_why_and_is_the_next_action(self, monkeypatch):
        asked = []
        monkeypatch.setattr(jobs, "resume", asked.append)
        folder = tuning_run(SUMMARY.plan, *made_up_runs.opening(), FAILED, log="the last words")
        app = open_page("home")
        assert texts(app.error).startswith("MemoryError: no memory")
        assert texts(app.code) == "the last words"
        assert stands_out(app) == ["Resume"]
        press(app, "Resume")
        assert asked == [folder.name]

    def test_a_crashed_analysis_is_the_next_action(self):
        write_run("analyze", {}, ("started", {}), log="Killed")
        app = open_page("home")
        assert "The worker ended without a word" in texts(app.error)
        assert stands_out(app) == ["Resume"]

    def test_a_failed_run_of_another_plan_stands_back(self):
        tuning_run(SUMMARY.rival, *made_up_runs.opening(), FAILED)
        app = open_page("home")
        assert texts(app.error).startswith("MemoryError: no memory")
        assert stands_out(app) == ["Quantize it"]

    def test_a_run_at_work_is_watched(self):
        tuning_run(SUMMARY.plan, *made_up_runs.opening(), alive=True)
        app = open_page("home")
        assert not app.exception
        assert app.get("progress")
        assert stands_out(app) == ["Watch it"]
        assert "Cancel" in [button.label for button in app.button]

    def test_a_run_that_has_finished_is_not_in_the_way(self):
        quantize_run(FAILED)
        quantize_run(*MEASURED)
        app = open_page("home")
        assert not app.error
        assert stands_out(app) == ["Take it away"]

    def test_when_all_is_done_it_proposes_to_compare(self):
        exported(quantize_run(*MEASURED).name)
        app = open_page("home")
        assert on_the_way(app) == ["done"] * 5
        assert stands_out(app) == ["Compare runs"]

    def test_recent_runs_lead_to_their_pages(self):
        run = quantize_run(*MEASURED)
        analysis = write_run("analyze", {}, ("finished", {}))
        exported(run.name)
        for _ in range(journey.RECENT):
            write_run("check", {}, ("result", FOUND), ("finished", {}))
        app = open_page("home")
        assert len(app.get("page_link")) == journey.RECENT
        for folder in list(jobs.list_runs())[: journey.RECENT]:
            jobs.delete(folder.id)
        app.run()
        links = [link.proto for link in app.get("page_link")]
        assert [link.page for link in links] == ["export", "sensitivity", "quantize"]
        assert f"run={run.name}" in links[0].query_string
        assert f"analysis={analysis.name}" in links[1].query_string
        assert f"run={run.name}" in links[2].query_string
        digits = "".join(map(str, SUMMARY.plan.weight_bits.values()))
        assert f"bits={digits}" in links[2].query_string
        assert "**Rounding** of" in links[2].label
        assert "finished · 83.0%" in links[2].label

    def test_choosing_another_network(self):
        app = open_page("home", size="1500")
        app.radio(key=f"chosen_{WORKLOAD}").set_value("inception-cifar10").run()
        assert app.query_params == {"workload": "inception-cifar10"}

    def test_choosing_images_goes_into_the_link_and_the_forms(self):
        app = open_page("home")
        app.radio(key="chosen_data").set_value("full").run()
        assert app.query_params["data"] == "full"
        app.switch_page("../pages/sensitivity.py").run()
        assert app.radio(key="analyze_data").value == "full"
        app.switch_page("../pages/quantize.py").run()
        assert app.selectbox(key="typed_data").value == "full"
        app.switch_page("../pages/home.py").run()
        app.radio(key="chosen_data").set_value("sample").run()
        assert "data" not in app.query_params
        app.switch_page("../pages/quantize.py").run()
        assert app.selectbox(key="typed_data").value == "sample"

    def test_what_is_wrong_is_asked_of_a_worker_and_shown(self, launched):
        app = open_page("home")
        press(app, "What is wrong with this network?")
        assert launched == [("check", WORKLOAD, {"data": "sample"})]
        write_run("check", {}, ("result", FOUND), ("finished", {}))
        app.run()
        assert "It has never seen an image." in texts(app.markdown)
        assert "What to know of this network: 1 finding" in [x.label for x in app.expander]

    def test_a_look_that_failed_can_be_repeated(self):
        write_run("check", {}, FAILED)
        app = open_page("home")
        assert texts(app.error).startswith("MemoryError: no memory")
        assert "Resume" in [button.label for button in app.button]
        assert stands_out(app) == ["Pick a plan"]

    def test_a_refused_look_is_its_sentence(self, monkeypatch):
        def refuse(*_):
            raise ValueError("runs must lie in a folder that can be written, got /.")

        monkeypatch.setattr(jobs, "launch", refuse)
        app = open_page("home")
        press(app, "What is wrong with this network?")
        assert texts(app.error) == "runs must lie in a folder that can be written, got /."

    def test_a_cut_analysis_is_one_sentence_with_a_way_back(self, stored):
        stored.write_text(stored.read_text()[:500])
        app = open_page("home", workload="inception-cifar10")
        assert not app.exception
        assert "must be a saved analysis, but is not whole JSON" in texts(app.error)
        assert f"Back to {WORKLOAD}" in [button.label for button in app.button]

    def test_a_cost_that_lacks_its_table_is_left_to_its_page(self, stored):
        made_up_activations(made_up_analysis()).save(stored)
        app = open_page("home", cost="latency", table="0123456789ab")
        assert not app.exception
        assert not app.error
        assert f"The suggested plan: {SUMMARY.size}" in texts(app.markdown)

    def test_uploaded_weights_can_be_deleted(self):
        name = networks.keep_weights(WORKLOAD, "mine.pth", b"weights")
        app = open_page("home", workload=name)
        assert "Runs made with them stay, but cannot go on." in texts(app.markdown)
        press(app, "Delete for good")
        assert name not in networks.network_names()
        assert app.query_params == {"workload": WORKLOAD}

    def test_weights_at_work_are_not_deleted(self):
        name = networks.keep_weights(WORKLOAD, "mine.pth", b"weights")
        folder = write_run("analyze", {}, ("started", {}), alive=True, workload=name)
        app = open_page("home", workload=name)
        press(app, "Delete for good")
        assert texts(app.error) == (
            f"the weights of {name} must not be in use to be deleted, but {folder.name} is at "
            "work with them: cancel it first."
        )
        assert name in networks.network_names()


def test_weights_that_cannot_be_deleted_are_named(runs, monkeypatch):
    name = networks.keep_weights(WORKLOAD, "mine.pth", b"weights")
    file = networks.weights_of(name)

    def refuse(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(file), "unlink", refuse)
    with pytest.raises(ValueError, match=r"mine|must be deletable, but Permission denied: give"):
        networks.delete_weights(name)
    assert file.is_relative_to(runs)


# --- the journey


@pytest.mark.usefixtures("runs")
class TestJourney:
    @pytest.mark.parametrize(
        ("analyzed", "picked", "written", "expected"),
        [
            (False, False, [], ["done", "now", "later", "later", "later"]),
            (True, False, [], ["done", "done", "now", "later", "later"]),
            (True, True, [], ["done", "done", "done", "now", "later"]),
            (True, False, ["quantize"], ["done", "done", "done", "done", "now"]),
            (True, False, ["quantize", "export"], ["done"] * 5),
        ],
    )
    def test_what_is_done_and_what_is_next(self, analyzed, picked, written, expected):
        for kind in written:
            quantize_run(*MEASURED) if kind == "quantize" else exported(jobs.list_runs()[0].id)
        way = journey.steps(analyzed, picked, jobs.list_runs(), WORKLOAD)
        assert [step.state for step in way] == expected
        assert sum(step.next for step in way) <= 1
        other = journey.steps(analyzed, picked, jobs.list_runs(), "inception-cifar10")
        assert "export" not in [step.page for step in other if step.state == "done"]

    def test_a_run_at_work_is_the_step_to_look_at(self):
        write_run("analyze", {}, alive=True)
        way = journey.steps(True, True, jobs.list_runs(), WORKLOAD)
        assert [step.state for step in way] == ["done", "now", "done", "later", "later"]
        assert journey.stands_out(way).label == "Watch it"

    def test_every_kind_of_run_has_a_line(self):
        run = quantize_run(*MEASURED)
        tuning_run(SUMMARY.plan, *made_up_runs.whole())
        exported(run.name)
        write_run("export", {"of": "gone"})
        write_run("analyze", {})
        told = {"layers": 22, "images": 1000}
        write_run("analyze", {}, ("result", {"name": "analysis", "result": told}))
        write_run("check", {}, ("result", FOUND))
        write_run("check", {})
        lines = journey.recent(jobs.list_runs())
        assert [line.outcome for line in lines] == [
            *("", "1 findings", "22 layers, 1,000 images", "", "", "2.0 KiB", "91.4%", "83.0%")
        ]
        assert {line.page for line in lines} <= set(journey.PAGES)
        assert "\\_" in journey.in_a_row(journey.Line("", "a", "b_c", "d", "", "e", "home", {}))


# --- the network in words


def test_every_known_network_is_described():
    for name in workload_names():
        assert workloads.called(name) != name
        assert not workloads.does(name).endswith(".")
        assert workloads.images(name)
    assert workloads.called("torchvision/resnet18@0123456789ab") == (
        "resnet18 with your weights 0123456789ab"
    )
    assert workloads.does("torchvision/resnet18") == workloads.PHOTOS
    assert workloads.does("my.py:make") == "a network of your own"
    assert workloads.images("my.py:make") == "those that it brings"


@pytest.mark.usefixtures("runs")
def test_accuracy_is_what_was_published_or_measured():
    def accuracy(name):
        return workloads.facts(name, None, jobs.list_runs())

    card = json.loads(stored_analysis(WORKLOAD).with_name(f"{WORKLOAD}.json").read_text())
    (published, weights) = accuracy(WORKLOAD)
    assert published.text == f"{card['value']:.1%}"
    assert published.source.startswith("95 % interval 91.5% to 92.6%. On 10,000 test images of")
    assert weights.text == "272,474"
    quality, _ = accuracy("retinanet-shapes")
    assert (quality.label, quality.text) == ("Quality", "mAP@[.5:.95] 69.0%")

    name = networks.keep_weights(WORKLOAD, "mine.pth", b"weights")
    assert accuracy(name) == []
    run = quantize_run(result("float", 0.9), workload=name)
    (measured,) = accuracy(name)
    low, high = made_up_evaluation(0.9).interval
    assert measured.text == "90.0%"
    assert measured.source.startswith(f"95 % interval {low:.1%} to {high:.1%}, on 1,000 images")
    assert run.name in measured.source
