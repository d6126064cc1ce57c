"""What the page says and draws of certainty, on made-up analyses."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import made_up_activations, made_up_analysis, varied

from engine.certainty import Certainty, Vote, omega_band
from engine.jobs import view
from engine.jobs.folders import new_run
from engine.results import BitPlan
from hawq_viz.figures.certainty import add_band, votes, word
from hawq_viz.figures.frontier import frontier
from hawq_viz.figures.theme import number
from hawq_viz.viewmodels import certainty as words
from hawq_viz.viewmodels.analyses import analysis_name
from hawq_viz.viewmodels.further import offer
from hawq_viz.viewmodels.limits import Held
from hawq_viz.viewmodels.studies import Study

ANALYSIS = varied(made_up_activations(made_up_analysis()), spread=1.0, batches=20)
STUDY = Study.of(ANALYSIS)
PLAN = BitPlan("made-up", {}, 0.0, 0.1)


def told(agreeing: int = 200, *, regret: float = 0.0, inputs: bool = False) -> Certainty:
    """A verdict of 200 draws on two layers, one of them held."""
    own = (
        Vote("conv<1>", 4, agreeing, 200, 3, 5, free=True),
        Vote("fc", 8, 200, 200, 8, 8, free=False),
    )
    return Certainty(PLAN, {"size": 2048.0}, own, own if inputs else (), np.full(200, regret), 0)


def test_the_verdict_says_whether_more_images_are_needed() -> None:
    assert words.verdict(told()).startswith("**All 2 layers are certain**: each keeps its bits in")
    assert words.verdict(told()).endswith("More images are not needed for this plan.")
    little = words.verdict(told(120, regret=0.002))
    assert little.startswith("**1 of 2 layers are certain, 1 undecided**")
    assert "0.20% more Ω in the median, at most 0.20% in 95 % of 200 draws: that is li" in little
    much = words.verdict(told(120, regret=0.05, inputs=True))
    assert much.startswith("**1 of 2 layers and 1 of 2 inputs of layers are certain, 2 undecided**")
    assert much.endswith("more images would help.")


def test_a_layer_is_certain_undecided_or_held() -> None:
    first, last = told(120).layers
    assert [word(x) for x in (first, replace(first, agreeing=190), last)] == [
        "undecided, 60%",
        "certain",
        "held",
    ]


def test_the_figure_tells_them_apart_by_shape_and_word() -> None:
    figure = votes(told(120, inputs=True))
    ranges, certain, undecided, said = figure.data
    rows = ["<b>weights</b>", "conv&lt;1&gt;", "fc", "<b>inputs</b>", "conv&lt;1&gt;", "fc"]
    assert list(figure.layout.yaxis.ticktext) == rows
    assert list(ranges.base) == [2.78, 7.78, 2.78, 7.78]
    assert [low + span for low, span in zip(ranges.base, ranges.x, strict=True)] == pytest.approx(
        [5.22, 8.22, 5.22, 8.22]
    )
    assert (certain.marker.symbol, list(certain.x), list(certain.y)) == ("circle", [8, 8], [2, 5])
    assert (undecided.marker.symbol, list(undecided.x), list(undecided.y)) == (
        "diamond",
        [4, 4],
        [1, 4],
    )
    assert list(said.text) == ["undecided, 60%", "held"] * 2
    about = undecided.hovertext[0]
    assert about.startswith("<b>conv&lt;1&gt;</b>: 4 bits<br>in 120 of 200 draws (60.0%; 95 %: 53.")
    assert about.endswith("3 to 5 bits<br>undecided: fewer than 95% agree")
    assert certain.hovertext[0] == "<b>fc</b>: 8 bits, held by the limits"
    lone = votes(told())
    assert list(lone.layout.yaxis.ticktext) == ["conv&lt;1&gt;", "fc"]


def test_the_band_lies_behind_the_frontier_and_around_it() -> None:
    band = words.band_of(STUDY)
    figure = frontier(ANALYSIS, STUDY.frontier)
    lines = len(figure.data)
    add_band(figure, "size", band.cost, band.low, band.high, dearest=STUDY.frontier.cost[-1])
    low, high, line = figure.data[:3]
    assert len(figure.data) == lines + 2
    assert (line.name, high.name, high.fill) == ("exact frontier", "95 % of Ω", "tonexty")
    assert low.x == high.x == line.x
    assert all(a < b < c for a, b, c in zip(low.y, line.y, high.y, strict=True))
    plan = STUDY.frontier.plan(0)
    for end, found in zip(omega_band(ANALYSIS, [plan]), (low, high), strict=True):
        assert found.y[0] == pytest.approx(end[0])


def test_it_is_worked_out_once_within_what_is_asked_or_what_the_plan_costs() -> None:
    plan = STUDY.plan(None)
    budgets = words.budgets_of(STUDY, plan, {})
    assert budgets == {"size": plan.size_bytes}
    assert words.budgets_of(STUDY, plan, {"bops": 5.0}) == {"bops": 5.0}
    found = words.certainty_of(STUDY, budgets)
    assert words.certainty_of(STUDY, budgets) is found
    assert found.plan.weight_bits == plan.weight_bits
    assert words.differs(STUDY, plan, found) == ""
    assert [words.is_long(x) for x in (budgets, {"activation_peak": 1.0}, {"a": 1, "b": 2})] == [
        False,
        True,
        True,
    ]


def test_limits_of_the_study_are_kept_to() -> None:
    held = STUDY.keeping(Held(locked=(("fc", 3),)))
    found = words.certainty_of(held, {"size": held.plan(None).size_bytes})
    assert {vote.name: vote.bits for vote in found.layers}["fc"] == 3
    assert [word(vote) for vote in found.layers][-1] == "held"
    fixed = Study.of(ANALYSIS, fixed=dict.fromkeys((x.name for x in ANALYSIS.activations), 8))
    found = words.certainty_of(fixed, {"size": fixed.plan(None).size_bytes})
    assert set(found.plan.activation_bits.values()) == {8}
    assert found.activations == ()
    both = words.certainty_of(held, {"bops": ANALYSIS.uniform(4, 4).costs["bops"]})
    assert both.plan.weight_bits["fc"] == 3


def test_a_long_search_says_when_it_will_end() -> None:
    assert words.waiting(50, 200, 40.0) == (
        "Finding the best plan again under 200 draws … 50 of 200, about 2 min left. "
        "A click elsewhere stops it."
    )


def test_another_plan_than_the_best_is_told() -> None:
    uniform = ANALYSIS.uniform(4)
    found = words.certainty_of(STUDY, words.budgets_of(STUDY, uniform, {}))
    says = words.differs(STUDY, uniform, found)
    assert says.startswith("The verdict is on the best plan of Size ")
    assert "which has other bits in" in says
    says = words.differs(STUDY, ANALYSIS.uniform(4, 4), found)
    assert says.startswith("This plan rounds other things: the verdict is on the best plan of")


def test_every_number_has_its_source() -> None:
    says = words.source(STUDY, told())
    assert "200 bootstrap draws (seed 0) of whole mini-batches, from the 20 of this" in says
    assert "(320 images)" in says
    assert "the best plan within Size 2.0 KiB" in says
    assert "A share of 95% of 200 draws is known to ±3.0%" in says
    plan = STUDY.plan(None)
    assert words.interval_text(STUDY, plan).startswith(f"Ω of this plan: {plan.omega:.3g}, 95 % fr")
    assert words.votes_alt(told(120)).endswith("Undecided: conv<1> 3 to 5 bits.")
    assert words.votes_alt(told()).endswith("Undecided: none.")
    table = words.votes_table(told(120, inputs=True))
    assert list(table["verdict"]) == ["undecided", "held"] * 2
    assert list(table["of its"]) == ["weights", "weights", "input", "input"]
    assert table["draws that agree"][0] == 0.6


def test_a_plan_tells_how_far_off_its_omega_and_predicted_rise_may_be() -> None:
    plan = STUDY.plan(None)
    low, high = (float(end[0]) for end in omega_band(ANALYSIS, [plan]))
    omega, rise = words.sources(STUDY, plan)
    assert f"95 % from {number(low)} to {number(high)}. From 320 images" in omega
    assert f"95 % from {number(low / 2)} to {number(high / 2)}. From 320 images" in rise
    one_batch = replace(
        ANALYSIS,
        batch_sizes=ANALYSIS.batch_sizes[:1],
        batch_traces=ANALYSIS.batch_traces[:1],
        activation_batch_traces=ANALYSIS.activation_batch_traces[:1],
    )
    assert "95 %" not in "".join(words.sources(Study.of(one_batch), plan))


@pytest.mark.usefixtures("runs")
def test_estimating_further_goes_on_starts_anew_or_cannot() -> None:
    run = view(new_run("analyze", "resnet20-cifar10", {"data": "sample"}, None).name)
    going = replace(ANALYSIS, stopped_because="target", relative_sem=0.1, images_left=680)
    asked = offer(going, run, own=False)
    assert asked.options == {"data": "sample", "further": run.id, "relative_sem": 0.05}
    assert "is at most 5 % (half of that" in asked.help
    assert "680 are left" in asked.help
    stored = replace(
        going, provenance=replace(going.provenance, command="hawq-viz analyze x --data full")
    )
    assert offer(stored, None, own=False).options["data"] == "full"
    assert offer(stored, None, own=False).options["further"] == "stored"
    assert "data" not in offer(going, run, own=True).options
    used = replace(ANALYSIS, images_left=0)
    anew = offer(used, run, own=False)
    assert anew.label == "Estimate from all data"
    assert anew.options["data"] == "full"
    assert anew.options["weight_range"] == "mse"
    assert "further" not in anew.options
    for nothing in (offer(used, run, own=True), offer(replace(stored, images_left=0), None, own=0)):
        assert nothing.options == {}
        assert nothing.help.startswith("All 320 images of the data have been used once")


@pytest.mark.usefixtures("runs")
def test_a_run_that_went_on_is_named_so() -> None:
    options = {"data": "sample", "further": "stored", "relative_sem": 0.05}
    run = view(new_run("analyze", "resnet20-cifar10", options, None).name)
    assert analysis_name(run).endswith(", sample data, further, to 5%")
