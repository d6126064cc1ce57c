"""The panel that says how certain a plan is, and the button for more images, as Streamlit runs."""

from dataclasses import replace

import pytest
from made_up import made_up_activations, made_up_analysis, varied
from opened import open_page, texts
from test_pages import launched as launched

from hawq_viz import state
from hawq_viz.components import certainty
from hawq_viz.components import frontier as drawing

ANALYSIS = varied(made_up_activations(made_up_analysis()), spread=1.0, batches=20)
GOING = replace(ANALYSIS, stopped_because="target", images_left=680)


@pytest.fixture
def stored(tmp_path, monkeypatch):
    """A made-up analysis whose mini-batches differ, in place of the one that comes along."""
    path = tmp_path / "stored.analysis.json"
    GOING.save(path)
    monkeypatch.setattr(state, "stored_analysis", lambda _: path)
    return path


@pytest.fixture(autouse=True)
def _fresh():
    drawing._ground.cache_clear()


def button(app, label):
    return next(one for one in app.button if one.label == label)


@pytest.mark.usefixtures("stored", "runs")
class TestPanel:
    def test_it_is_worked_out_only_once_it_is_switched_on(self, monkeypatch):
        asked = []
        works = certainty.certainty.certainty_of
        monkeypatch.setattr(
            certainty.certainty,
            "certainty_of",
            lambda *given: asked.append(given) or works(*given),
        )
        app = open_page()
        assert not asked
        assert not app.exception
        app = open_page(band="on")
        assert len(asked) == 1
        assert app.toggle(key="band").value
        assert "layers are certain" in texts(app.markdown)
        assert "200 bootstrap draws (seed 0)" in texts(app.caption)

    def test_the_switch_is_in_the_url(self):
        app = open_page(band="on")
        app.toggle(key="band").set_value(False).run()
        assert "band" not in app.query_params
        assert "Switched on, this draws the analysis' mini-batches 200" in texts(app.caption)
        app.toggle(key="band").set_value(True).run()
        assert app.query_params["band"] == "on"
        assert "layers are certain" in texts(app.markdown)
        assert not app.exception

    def test_every_cost_and_several_budgets_have_a_verdict(self):
        for parameters in ({"cost": "bops"}, {"cost": "several"}, {"bits": "444444"}):
            app = open_page(band="on", **parameters)
            assert not app.exception
            assert "certain" in texts(app.markdown)
        assert "The verdict is on the best plan of Size" in texts(app.caption)

    def test_an_analysis_of_one_mini_batch_says_what_is_missing(self, stored):
        one = replace(
            GOING,
            batch_sizes=GOING.batch_sizes[:1],
            batch_traces=GOING.batch_traces[:1],
            activation_batch_traces=GOING.activation_batch_traces[:1],
        )
        one.save(stored)
        app = open_page(band="on")
        assert not app.exception
        said = [element.value for element in app.info]
        assert said == ["analysis must hold at least 2 mini-batches, got 1: analyze more images."]


@pytest.mark.usefixtures("stored", "runs")
@pytest.mark.parametrize(
    ("page", "parameters"), [("frontier", {"band": "on"}), ("sensitivity", {})]
)
class TestFurther:
    def test_one_button_goes_on(self, launched, page, parameters):
        app = open_page(page, **parameters)
        button(app, "Estimate further").click().run()
        assert not app.exception
        options = {"data": "sample", "further": "stored", "relative_sem": 0.05}
        assert launched == [("analyze", "resnet20-cifar10", options)]
        assert app.query_params["run"]

    def test_it_says_why_it_cannot(self, stored, page, parameters):
        command = "hawq-viz analyze resnet20-cifar10 --data full"
        made = replace(GOING.provenance, command=command)
        replace(GOING, images_left=0, provenance=made).save(stored)
        app = open_page(page, **parameters)
        found = button(app, "Estimate further")
        assert found.disabled
        assert found.help.startswith("All 320 images of the data have been used once")

    def test_a_refused_launch_is_told(self, monkeypatch, page, parameters):
        def refuse(*_, **__):
            raise ValueError("further must be a finished run")

        monkeypatch.setattr(certainty.networks, "launch", refuse)
        app = open_page(page, **parameters)
        button(app, "Estimate further").click().run()
        assert [element.value for element in app.error] == ["further must be a finished run"]
