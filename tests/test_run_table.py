"""Which runs are listed, and what their rows say."""

from dataclasses import asdict
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_analysis, made_up_evaluation

from engine.jobs.options import OPTIONS
from hawq_viz.viewmodels.run_table import (
    COLUMNS,
    KINDS,
    STATES,
    Filter,
    outcome,
    run_table,
    state_in_short,
)

PLAN = made_up_analysis().uniform(4)


def run(**fields) -> SimpleNamespace:
    """What is read of a run, without one on disk."""
    given = {
        "id": "20260101-000000-finetune-a-0000",
        "kind": "finetune",
        "workload": "a",
        "state": "finished",
        "title": "",
        "remark": "",
        "options": {"plan": asdict(PLAN), "recipe": "quick", "seed": 7},
        "results": {},
        "created": "2026-01-01T00:00:00+00:00",
        "seconds": 90.0,
        "done": 50,
        "total": 120,
        "place": 0,
        "cancelling": False,
    }
    return SimpleNamespace(**given | fields)


RUNS = [
    run(title="Best", remark="for the talk"),
    run(workload="b", kind="analyze", options={"data": "full"}),
    run(state="running", results={"plan": made_up_evaluation(0.6).to_json()}),
]
fields = st.sampled_from(["", "a", "b", "c"])


@given(fields, st.sampled_from(["", *KINDS]), st.sampled_from(["", *STATES]))
def test_every_field_of_a_filter_has_to_fit(network, kind, state):
    found = Filter(network, kind, state).of(RUNS)
    slow = RUNS
    slow = [x for x in slow if not network or x.workload == network]
    slow = [x for x in slow if not kind or x.kind == kind]
    slow = [x for x in slow if not state or x.state == state]
    assert found == slow
    assert bool(Filter(network, kind, state)) == bool(network or kind or state)


@pytest.mark.parametrize(
    ("find", "found"),
    [
        ("", [0, 1, 2]),
        ("BEST", [0]),
        ("talk best", [0]),
        ("talk analysis", []),
        ("uniform 4", [0, 2]),
        ("seed 7", [0, 2]),
        ("full", [1]),
        ("running", [2]),
        (".*", []),
        ("<b>", []),
    ],
)
def test_all_words_of_a_search_have_to_be_somewhere(find, found):
    assert Filter(find=find).of(RUNS) == [RUNS[i] for i in found]


def test_every_kind_of_run_has_words():
    assert set(OPTIONS) == set(KINDS)
    assert len(set(KINDS.values())) == len(KINDS)


def test_a_state_says_how_far_it_is():
    assert state_in_short(run(state="running")) == "▶ running 40%"
    assert state_in_short(run(state="running", total=0)) == "▶ running"
    assert state_in_short(run(state="queued", place=2)) == "◌ queued, 2 ahead"
    assert state_in_short(run(state="queued")) == "◌ queued, next"
    assert state_in_short(run(state="running", cancelling=True)) == "■ cancelling"
    assert state_in_short(run()) == "✓ finished"


def test_a_run_came_to_what_was_measured_last():
    rounded, tuned = made_up_evaluation(0.6), made_up_evaluation(0.9)
    assert outcome(run()) is None
    assert outcome(run(results={"plan": rounded.to_json()})) == rounded
    both = {"plan": rounded.to_json(), "finetuned": tuned.to_json()}
    assert outcome(run(results=both)) == tuned


def test_a_row_for_each_and_the_same_columns_for_none():
    table = run_table(RUNS)
    assert list(table.columns) == list(run_table([]).columns) == list(COLUMNS)
    assert list(table["run"]) == ["Best", "Analysis", "Fine-tuned, quick"]
    assert list(table["seed"]) == ["7", "0", "7"]
    assert list(table["minutes"]) == [1.5] * 3
    assert table["Ω"][0] == pytest.approx(PLAN.omega)
    assert table["measured (%)"][2] == pytest.approx(60)
    spoiled = run(options={"plan": {"omega": None}})
    assert list(run_table([spoiled])["bits"]) == [""]
