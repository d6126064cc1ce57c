"""Which plans runs have measured, from made-up numbers."""

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
from made_up import made_up_analysis, made_up_evaluation

from hawq_viz.viewmodels.measured import evaluation_of, measured_plans, on_same_images

ANALYSIS = made_up_analysis()
PLAN, RIVAL = ANALYSIS.frontier().plan(20), ANALYSIS.uniform(3)


def run(kind: str = "quantize", results: dict | None = None, **options) -> SimpleNamespace:
    """What is read of a run, without one on disk."""
    told = {name: made_up_evaluation(value).to_json() for name, value in (results or {}).items()}
    plans = {"plan": asdict(PLAN), "uniform": asdict(RIVAL)}
    return SimpleNamespace(kind=kind, options={**plans, **options}, results=told)


def test_a_quantize_run_has_measured_the_plan_and_its_uniform_rival():
    rounded = run(results={"float": 0.92, "plan": 0.83, "uniform": 0.58})
    ours, theirs = measured_plans([rounded])
    assert (ours.stage, ours.plan, ours.rounded) == ("plan", PLAN, True)
    assert (theirs.stage, theirs.plan, theirs.rounded) == ("uniform", RIVAL, True)
    assert (ours.evaluation.value, ours.reference.value) == (0.83, 0.92)
    assert ours.run is rounded


def test_a_fine_tuning_has_measured_its_plan_twice():
    tuned = run("finetune", {"float": 0.92, "plan": 0.5, "finetuned": 0.91})
    stages = [
        (x.stage, x.rounded, x.plan == PLAN, x.evaluation.value) for x in measured_plans([tuned])
    ]
    assert stages == [("plan", True, True, 0.5), ("finetuned", False, True, 0.91)]


def test_a_run_cut_short_counts_with_what_it_has():
    assert measured_plans([run(), run(results={"float": 0.92})]) == []
    (lonely,) = measured_plans([run(results={"plan": 0.8})])
    assert lonely.reference is None


def test_the_float_network_is_compared_with_on_the_same_images_alone():
    cut = run(results={"plan": 0.8})
    cut.results["float"] = made_up_evaluation(0.92, samples=500).to_json()
    assert measured_plans([cut])[0].reference is None
    whole = made_up_evaluation(0.9)
    elsewhere = replace(whole, provenance=replace(whole.provenance, fingerprint="another"))
    assert on_same_images(whole, made_up_evaluation(0.8))
    assert not on_same_images(whole, elsewhere)


@pytest.mark.parametrize(
    "damage",
    [
        {},
        {"value": "<b>"},
        {"value": float("nan")},
        {"interval": None},
        {"interval": [0.1, "x"]},
        {"loss": None},
        {"provenance": {}},
        {"strange": 1},
    ],
)
def test_what_cannot_be_read_is_passed_over(damage):
    fields = made_up_evaluation(0.8).to_json() | damage if damage else {}
    damaged = run(results={"float": 0.9, "uniform": 0.7})
    damaged.results["plan"] = fields
    assert evaluation_of(damaged, "plan") is None
    assert [x.stage for x in measured_plans([damaged])] == ["uniform"]


@pytest.mark.parametrize(
    "plan",
    [
        None,
        {},
        {"omega": 1.0},
        {**asdict(PLAN), "omega": "x"},
        {**asdict(PLAN), "omega": float("inf")},
    ],
)
def test_a_plan_that_is_none_is_passed_over(plan):
    assert [x.stage for x in measured_plans([run(results={"plan": 0.8}, plan=plan)])] == []
