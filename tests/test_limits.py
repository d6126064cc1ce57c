"""Locks, ties and allowed bits: in the link, on the frontier, in the table of layers."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up import made_up_activations, made_up_analysis

from hawq_viz.view import View, decode, encode
from hawq_viz.viewmodels import layers, limits, plans
from hawq_viz.viewmodels.limits import NOTHING, Held
from hawq_viz.viewmodels.studies import Study

ANALYSIS = made_up_analysis()
BOTH = made_up_activations(ANALYSIS)
NAMES = ANALYSIS.names
STUDY = Study.of(ANALYSIS)
edits = st.lists(st.tuples(st.integers(0, 30), st.none() | st.integers(1, 8)), max_size=12)
moves = st.lists(st.tuples(st.integers(0, 9), st.none() | st.integers(0, 25)), max_size=25)


@given(edits)
def test_locks_are_what_was_last_asked_of_each_place(asked):
    text, wanted = "", {}
    for place, bits in asked:
        text = limits.lock(text, place, bits)
        wanted[place] = bits
    assert limits.locks(text) == {place: bits for place, bits in wanted.items() if bits}
    assert decode(encode(View(locked=text))).locked == text


@given(moves)
def test_a_place_is_in_the_group_it_was_last_moved_to(asked):
    text = ""
    for place, number in asked:
        joined = [i for i, own in limits.group_of(text).items() if own == number and i != place]
        text = limits.tie(text, place, number)
        groups = limits.group_of(text)
        assert (place in groups) is (number is not None)
        if number is not None:
            assert {i for i in groups if groups[i] == groups[place]} == {place, *joined}
    assert decode(encode(View(tied=text))).tied == text


def test_names_are_read_from_positions_and_others_passed_over():
    held = Held.of(BOTH, "0:8,99:4,1:1", "3:2,77:2", "1-2-99,4-88,5", "2349")
    assert held.locked == ((NAMES[0], 8),)
    assert held.inputs == (("fc", 2),)
    assert held.tied == ((NAMES[1], NAMES[2]),)
    assert held.widths == (2, 3, 4)
    assert Held.of(ANALYSIS, "", "0:4", "3", "2345678") == NOTHING
    assert not NOTHING


def test_a_cost_is_told_of_what_it_chooses_alone():
    held = Held((("fc", 8),), (("fc", 4),), (("fc", NAMES[0]),), (2, 4))
    assert held.limits(["size"]).keys() == {"locked", "tied", "bit_widths"}
    assert held.limits(["activation_memory"]).keys() == {
        "locked_activations",
        "activation_bit_widths",
    }
    assert len(held.limits(["bops"])) == 5
    assert held.on(["size"]).inputs == ()
    assert held.summary == "2 locks, 1 tie, 2, 4 bits only"


def test_the_frontier_is_the_best_of_all_plans_that_keep_to_it():
    small = replace(ANALYSIS, layers=ANALYSIS.layers[:3], bit_widths=(2, 3, 4, 8))
    names = small.names
    held = Held(((names[0], 8),), (), (names[1:],), (2, 4))
    free = Study.of(small)
    study = free.keeping(held)
    whole = [
        small.plan_of(dict(zip(names, bits, strict=True)))
        for bits in product(small.bit_widths, repeat=3)
    ]
    kept = [plan for plan in whole if held.kept_by(plan)]
    assert [tuple(plan.weight_bits.values()) for plan in kept] == [(8, 2, 2), (8, 4, 4)]
    assert sorted(plan.size_bytes for plan in kept) == study.frontier.cost.tolist()
    assert study.free is free.frontier
    for plan in kept:
        best = min(x.omega for x in whole if x.size_bytes <= plan.size_bytes)
        assert study.price(plan) == pytest.approx(plan.omega / best)
        assert study.above_frontier(plan) == pytest.approx(1)
    loose = small.plan_of(dict.fromkeys(names, 3))
    best = min(x.omega for x in whole if x.size_bytes <= loose.size_bytes)
    assert study.above_frontier(loose) == pytest.approx(loose.omega / best)
    assert plans.opened_says(study, loose).endswith("It does not keep to what is held.")


@pytest.mark.parametrize("cost", ["size", "bops", "activation_memory"])
def test_every_plan_keeps_to_what_is_held(cost):
    held = Held(((NAMES[0], 3),), (("fc", 2),), ((NAMES[1], NAMES[4]),), (2, 3, 5))
    study = Study.of(BOTH, cost).keeping(held)
    own = held.on([cost])
    for point in range(0, len(study.frontier), 7):
        plan = study.frontier.plan(point)
        assert own.kept_by(plan)
        assert study.bits(point) == (plan.weight_bits, plan.activation_bits)


def test_what_others_would_choose_keeps_to_it_too():
    held = Held(((NAMES[0], 5),), (), ((NAMES[1], NAMES[4]),), (2, 3, 5))
    study = STUDY.keeping(held)
    assert {overlay.name for overlay in study.overlays} == {"monotone", "greedy"}
    for overlay in study.overlays:
        assert (overlay.choices[:, 0] == 2).all()
        assert (overlay.choices[:, 1] == overlay.choices[:, 4]).all()
        best = [study.frontier.omega[study.point(cost)] for cost in overlay.cost]
        assert (overlay.omega >= np.array(best) * (1 - 1e-12)).all()
    assert STUDY.keeping(Held(((NAMES[0], 8),), (), (), (2, 3))).overlays == ()


def test_limits_that_contradict_each_other_are_said_and_nothing_is_held():
    held = Held(((NAMES[0], 8), (NAMES[1], 4)), (), (NAMES[:2],))
    study = STUDY.keeping(held)
    assert study.refused.startswith("locked must give tied layers the same bits, got 8 for ")
    assert study.frontier is STUDY.frontier
    assert study.held == NOTHING
    assert study.free is None
    assert STUDY.keeping(Held(((NAMES[0], 8),), (), (NAMES[:2],), (2, 3))).refused.startswith(
        "limits must leave every layer some bits"
    )


def test_several_budgets_keep_to_what_is_held():
    study = Study.of(BOTH, "bops").keeping(Held(((NAMES[0], 2),), (("fc", 3),)))
    plan = study.within({"size": 1e9})
    assert plan.weight_bits[NAMES[0]] == 2
    assert not plan.activation_bits
    assert study.within({"bops": 1e18}).activation_bits["fc"] == 3


def test_what_limits_cost_in_words():
    plan = STUDY.plan(None)
    assert plans.limits_says(STUDY, plan) == ""
    study = STUDY.keeping(Held(((NAMES[0], 2),)))
    says = plans.limits_says(study, study.plan(None))
    assert says.startswith("Held: 1 lock. That costs **")
    assert says.endswith("× Ω** at this size.")
    free = STUDY.keeping(Held(((NAMES[0], plan.weight_bits[NAMES[0]]),)))
    assert plans.limits_says(free, plan) == "Held: 1 lock. That costs next to nothing at this size."


def test_the_table_of_layers_shows_the_plan_and_what_is_held():
    study = Study.of(BOTH, "bops")
    plan = BOTH.uniform(4, 6)
    shown = layers.layer_table(study, plan, "0:8", "3:2", "1-4,5")
    first, second, *_, last = shown["rows"]
    assert (first["name"], first["bits"], first["lock"], first["tie"]) == ("conv<1>", 4, 8, None)
    assert (second["tie"], last["tie"], shown["groups"]) == (0, 1, ["A", "B", "C"])
    assert last["input"] == {
        "place": 3,
        "bits": 6,
        "best": study.best(plan).activation_bits["fc"],
        "lock": 2,
    }
    assert shown["rows"][3]["shared"] == {"bits": 6, "with": "layer1.0.conv1"}
    assert shown["rows"][4]["input"] is None
    assert (shown["weights"], shown["inputs"]) == (True, True)
    over_size = layers.layer_table(STUDY, STUDY.plan(None), "", "", "")
    assert all(row["best"] == row["bits"] for row in over_size["rows"])
    assert not over_size["inputs"]


@pytest.mark.parametrize(
    ("edit", "changed"),
    [
        (["lock", 2, 3], {"locked": "0:8,2:3"}),
        (["lock", 0, None], {"locked": ""}),
        (["input_lock", 3, 2], {"alocked": "3:2"}),
        (["tie", 3, 1], {"tied": "1-2,3"}),
        (["tie", 1, None], {"tied": "2"}),
        (["bits", 5, 2], {"bits": "444442", "abits": "8666"}),
        (["input_bits", 0, 2], {"bits": "444444", "abits": "2666"}),
    ],
)
def test_an_edit_of_the_table_changes_the_view(edit, changed):
    assert layers.edited(BOTH, BOTH.uniform(4, 6), edit, "0:8", "", "1-2") == changed


@pytest.mark.parametrize(
    "edit",
    [
        None,
        "lock",
        {"lock": 1},
        [],
        ["lock", 6, 4],
        ["lock", -1, 4],
        ["lock", 0, 9],
        ["lock", "0", 4],
        ["bits", 0, None],
        ["bits", 0, 1.5],
        ["input_bits", 4, 4],
        ["tie", 0, 26],
        ["tie", 0, -1],
        ["<b>", 0, 1],
    ],
)
def test_what_cannot_be_an_edit_changes_nothing(edit):
    assert layers.edited(BOTH, BOTH.uniform(4, 6), edit, "0:8", "", "1-2") == {}
