"""Predicted against measured: closed forms, what is drawn, and what it does not count."""

import math
from dataclasses import asdict, replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_analysis, made_up_evaluation
from scipy.stats import spearmanr

from engine.outcomes import Outcomes
from engine.results import BitPlan
from hawq_viz.figures.predictions import SymmetricLog, predicted_and_measured
from hawq_viz.viewmodels.measured import Difference, difference, measured_plans
from hawq_viz.viewmodels.predictions import (
    Prediction,
    is_by,
    prediction_table,
    predictions,
    predictions_alt,
    rank_correlation,
    ranking_sentence,
    worth_measuring,
)

ANALYSIS = made_up_analysis()
PLAN, RIVAL = ANALYSIS.frontier().plan(20), ANALYSIS.uniform(3)


def run(folder, losses: dict[str, float], kind: str = "quantize", number: int = 0, **plans):
    """What is read of a run that measured these losses on 1 000 images."""
    found = {name: made_up_evaluation(0.9, loss=loss).to_json() for name, loss in losses.items()}
    options = {"plan": asdict(PLAN), "uniform": asdict(RIVAL)}
    options |= {name: asdict(plan) for name, plan in plans.items()}
    return SimpleNamespace(
        id=f"run-{number}", title="", kind=kind, folder=folder, options=options, results=found
    )


def point(predicted: float, rise: float, half: float = 0.01, **fields) -> Prediction:
    interval = rise - half, rise + half
    rises = Difference(rise, interval, paired=True)
    runs = (SimpleNamespace(id="x"),)
    given = {"plan": PLAN, "name": "<b>", "interval": (predicted / 2, 2 * predicted)}
    return Prediction(
        **{**given, "predicted": predicted, "rise": rises, "images": "10 images: x", "runs": runs}
        | fields
    )


def test_half_omega_is_set_against_the_rise_over_float32(tmp_path):
    losses = {"float": 0.30, "plan": 0.35, "uniform": 0.29}
    ours, theirs = predictions(measured_plans([run(tmp_path, losses)]))
    assert [ours.predicted, theirs.predicted] == sorted([PLAN.omega / 2, RIVAL.omega / 2])
    by_plan = {one.plan.omega: one.rise for one in (ours, theirs)}
    assert by_plan[PLAN.omega].mean == pytest.approx(0.05)
    assert by_plan[RIVAL.omega].mean == pytest.approx(-0.01)
    half = 1.959964 * math.hypot(0.01, 0.01)  # both evaluations have a standard error of 0.01
    low, high = by_plan[PLAN.omega].interval
    assert ((high - low) / 2, by_plan[PLAN.omega].paired) == (pytest.approx(half), False)


def test_images_kept_one_by_one_make_the_error_that_of_their_differences(tmp_path):
    rng = np.random.default_rng(0)
    whole = rng.gamma(0.3, 1, 1000)
    moved = whole + rng.normal(0.02, 0.1, 1000)
    for name, losses in (("float", whole), ("plan", moved)):
        Outcomes(None, losses).save(tmp_path / "outcomes" / f"{name}.safetensors")
    seen = run(tmp_path, {"float": whole.mean(), "plan": moved.mean()})
    (found,) = predictions(measured_plans([seen]))
    gaps = moved - whole
    half = 1.959964 * gaps.std(ddof=1) / math.sqrt(1000)
    assert found.rise.paired
    assert found.rise.mean == pytest.approx(gaps.mean())
    assert found.rise.interval[1] - found.rise.mean == pytest.approx(half, rel=1e-6)
    Outcomes(None, whole[:9]).save(tmp_path / "outcomes" / "plan.safetensors")  # of other images
    (found,) = predictions(measured_plans([seen]))
    assert not found.rise.paired
    (tmp_path / "outcomes" / "plan.safetensors").write_text("cut")
    assert not difference((seen, "plan"), (seen, "float"), loss=True).paired


def test_one_plan_on_the_same_images_counts_once(tmp_path):
    again = [run(tmp_path, {"float": 0.3, "plan": 0.35}, number=i) for i in range(3)]
    (found,) = predictions(measured_plans(again))
    assert [one.id for one in found.runs] == ["run-0", "run-1", "run-2"]
    cut = run(tmp_path, {"plan": 0.35})
    assert predictions(measured_plans([cut])) == []
    tuned = run(tmp_path, {"float": 0.3, "finetuned": 0.2}, kind="finetune")
    assert predictions(measured_plans([tuned])) == []


def test_what_omega_does_not_reckon_with_is_apart_and_not_ranked(tmp_path):
    learned = replace(PLAN, quantizer={**PLAN.quantizer, "rounding": "learned"})
    seen = run(tmp_path, {"float": 0.3, "plan": 0.31, "uniform": 0.5}, plan=learned)
    found = predictions(measured_plans([seen]))
    usual = {one.plan.omega: one.as_predicted for one in found}
    assert usual == {PLAN.omega: False, RIVAL.omega: True}
    assert "unknown (1 plan, 1,000 images)" in ranking_sentence(found)
    assert set(prediction_table(found)["rounded"]) == {"rounding learned", "to the nearest"}
    drawn = [t for t in predicted_and_measured(found).data if t.customdata is not None]
    assert sorted(trace.marker.symbol for trace in drawn) == ["circle", "circle-open"]


def test_the_error_of_half_omega_is_that_of_its_traces(tmp_path):
    rng = np.random.default_rng(0)
    noisy = replace(ANALYSIS, batch_traces=ANALYSIS.batch_traces * rng.uniform(0.8, 1.2, (8, 6)))
    assert is_by(ANALYSIS, PLAN)
    assert not is_by(ANALYSIS, replace(PLAN, omega=2 * PLAN.omega))
    assert not is_by(ANALYSIS, replace(PLAN, workload="another"))
    assert not is_by(ANALYSIS, BitPlan("resnet20-cifar10", {"other": 4}, 1.0, 1.0))
    one = run(tmp_path, {"float": 0.3, "plan": 0.35})
    (found,) = predictions(measured_plans([one]), noisy)
    low, high = found.interval
    assert low < found.predicted < high
    (found,) = predictions(measured_plans([one]))
    assert found.interval is None
    assert prediction_table([found])["½Ω, to"].isna().all()


@given(st.lists(st.tuples(st.floats(1e-6, 10), st.floats(-1, 10)), min_size=3, max_size=9))
def test_the_rank_correlation_is_spearmans(pairs):
    found = [point(x, y) for x, y in pairs]
    ours = rank_correlation(found)
    xs, ys = zip(*pairs, strict=True)
    if len(set(xs)) < 2 or len(set(ys)) < 2:
        assert ours is None
    else:
        assert ours == pytest.approx(float(spearmanr(xs, ys).statistic), abs=1e-9)


def test_two_plans_have_no_rank_correlation():
    assert rank_correlation([point(0.1, 0.1), point(0.2, 0.3)]) is None
    exact = [point(0.1, 0.1), point(0.2, 0.3), point(0.3, 5.0)]
    assert rank_correlation(exact) == pytest.approx(1)
    assert "correlation 1.00 (3 plans, 10 images); 1 keeps all of it." in ranking_sentence(exact)
    assert ranking_sentence([]) == ""


@given(st.floats(1e-6, 1), st.lists(st.floats(-100, 100), min_size=2, max_size=9))
def test_the_axis_keeps_order_and_sign(threshold, values):
    scale = SymmetricLog(threshold)
    ranked = sorted(values)
    drawn = [scale(value) for value in ranked]
    assert all(a <= b for a, b in pairwise(drawn))
    assert all(math.copysign(1, scale(v)) == math.copysign(1, v) for v in values)
    assert scale(-values[0]) == -scale(values[0])
    assert scale(9 * threshold) == pytest.approx(1)


def test_ticks_are_round_numbers_on_both_sides_of_zero():
    assert SymmetricLog(0.01).ticks(-0.02, 0.5) == pytest.approx([-0.01, 0, 0.01, 0.03, 0.1, 0.3])
    assert len(SymmetricLog(1e-6).ticks(0, 100)) <= 12


def test_every_point_is_inside_the_axes_with_its_bars():
    found = [point(1e-4, -0.02, 0.05), point(1e-3, 0.0, 0.004), point(0.2, 1.3, 0.02)]
    figure = predicted_and_measured(found, ["x"])
    low, high = (10.0**edge for edge in figure.layout.xaxis.range)
    bottom, top = figure.layout.yaxis.range
    (trace,) = [t for t in figure.data if t.customdata is not None]
    assert list(trace.customdata) == [0, 1, 2]
    for i, one in enumerate(found):
        assert low < one.predicted - trace.error_x.arrayminus[i] + 1e-12
        assert one.predicted + trace.error_x.array[i] < high
        assert bottom < trace.y[i] - trace.error_y.arrayminus[i]
        assert trace.y[i] + trace.error_y.array[i] < top
    assert "&lt;b&gt;" in trace.hovertext[0]
    ring = figure.data[-1]
    assert list(ring.x) == list(trace.x)  # all are of the selected run
    assert not predicted_and_measured(found, ["y"]).data[-1].x
    line = next(t for t in figure.data if t.mode == "lines")
    scale = SymmetricLog(0.01)
    assert list(line.y) == pytest.approx([scale(x) for x in line.x])


def test_the_chart_in_words():
    says = predictions_alt([point(0.1, -0.01), point(0.3, 0.5)])
    assert "of 2 plans: from -0.01 at ½Ω 0.1" in says
    assert predictions_alt([]) == "No plan has been measured yet."
    assert not [t for t in predicted_and_measured([]).data if t.customdata is not None]


def test_plans_worth_measuring_are_those_not_yet_known(tmp_path):
    plans = worth_measuring(ANALYSIS, [])
    assert [rival.weight_bits["fc"] for _, rival in plans] == [3, 4, 5, 6]
    assert all(plan.size_bytes <= rival.size_bytes for plan, rival in plans)
    known = run(tmp_path, {"float": 0.3, "plan": 0.4}, plan=plans[1][0])
    left = worth_measuring(ANALYSIS, predictions(measured_plans([known])))
    assert [rival.weight_bits["fc"] for _, rival in left] == [3, 5, 6]
