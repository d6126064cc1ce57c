"""Plans within several budgets against enumeration of every choice."""

import numpy as np
import pytest
from every_choice import every_choice
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import engine.budgets
from engine.budgets import NotMet, peak_frontier, within_budgets
from engine.joint import joint_frontier

SHAPES = [(1, 3, 3), (2, 3, 2), (3, 2, 2), (4, 2, 2), (3, 3, 1), (3, 1, 3)]


def total(values, plan, members=None):
    flat = np.reshape(values, (len(values), -1))
    return sum(flat[i][plan[i]] for i in (range(len(plan)) if members is None else members))


def peak(values, plan, sets):
    return max(total(values, plan, members) for members in sets)


@st.composite
def problems(draw, largest=12):
    """Two costs, Ω, sets for the second cost, groups, and allowed pairs with a choice left."""
    shape = draw(st.sampled_from(SHAPES))
    layers, size = shape[0], int(np.prod(shape))
    table = st.lists(st.integers(0, largest), min_size=size, max_size=size)
    one, other, omegas = (np.reshape(draw(table), shape) for _ in range(3))
    group = st.lists(st.integers(0, layers - 1), min_size=layers, max_size=layers)
    groups = [draw(st.one_of(st.just(list(range(layers))), group)) for _ in range(2)]
    allowed = draw(st.lists(st.integers(0, 4).map(bool), min_size=size, max_size=size))
    allowed = np.reshape(allowed, shape)
    sets = draw(st.lists(st.sets(st.integers(0, layers - 1), min_size=1).map(sorted), min_size=1,
                         max_size=3))  # fmt: skip
    plans = every_choice(shape, *groups, allowed)
    assume(len(plans))
    return one, other, omegas, sets, groups, allowed, plans


@given(problems(), st.integers(1, 40), st.integers(1, 30), st.sampled_from([1, 1 / 3, 1e9]))
@settings(deadline=None, max_examples=60)
def test_plans_within_two_budgets_equal_brute_force(problem, first, second, unit):
    one, other, omegas, sets, groups, allowed, plans = problem
    one = one * unit
    arguments = ({"sum": one, "peak": other}, omegas, {"sum": first * unit, "peak": second})
    limits = {
        "weight_groups": groups[0],
        "activation_groups": groups[1],
        "allowed": allowed,
        "sets": {"peak": sets},
    }
    fits = [
        plan
        for plan in plans
        if total(one, plan) <= first * unit * (1 + 1e-12) and peak(other, plan, sets) <= second
    ]
    if fits:
        plan = within_budgets(*arguments, **limits)
        assert tuple(plan) in {tuple(x) for x in fits}
        assert total(omegas, plan) == min(total(omegas, x) for x in fits)
        return
    with pytest.raises(NotMet, match=r"^budgets must be such that some plan meets") as caught:
        within_budgets(*arguments, **limits)
    nearest = caught.value.nearest
    assert nearest["sum"] >= first * unit
    assert nearest["peak"] >= second
    plan = within_budgets(*arguments[:2], nearest, **limits)  # they can be given back
    assert total(one, plan) <= nearest["sum"] * (1 + 1e-12)
    assert peak(other, plan, sets) <= nearest["peak"]
    share = max(nearest["sum"] / (first * unit), nearest["peak"] / second) - 1
    shares = [
        (max(0, total(one, x) / (first * unit) - 1), max(0, peak(other, x, sets) / second - 1))
        for x in plans
    ]
    assert share <= min(max(x) + 0.01 * sum(x) for x in shares) + 1e-9  # but for a hundredth


@given(problems())
@settings(deadline=None, max_examples=40)
@example(
    (
        np.zeros((2, 1, 2)),
        np.array([[[1, 2]], [[3, 5]]]),
        np.array([[[4, 0]], [[7, 2]]]),
        [[0], [0, 1]],
        [[0, 1], [0, 1]],
        np.ones((2, 1, 2), bool),
        every_choice((2, 1, 2), [0, 1], [0, 1], np.ones((2, 1, 2))),
    )
)
def test_frontier_of_peaks_equals_brute_force(problem):
    _, costs, omegas, sets, groups, allowed, plans = problem
    limits = {"weight_groups": groups[0], "activation_groups": groups[1], "allowed": allowed}
    frontier = peak_frontier(costs, omegas, sets, **limits)
    kept = []
    for cost, omega in sorted((peak(costs, x, sets), total(omegas, x)) for x in plans):
        if not kept or omega < kept[-1][1]:
            kept.append((cost, omega))
    assert list(zip(frontier.cost.tolist(), frontier.omega.tolist(), strict=True)) == kept
    for i, (cost, omega) in enumerate(kept):
        assert (peak(costs, frontier.choices(i), sets), total(omegas, frontier.choices(i))) == (
            cost,
            omega,
        )


@given(problems(largest=1000), st.floats(0.01, 0.9))
@settings(deadline=None, max_examples=25)
def test_tolerance_passes_over_peaks_by_less_than_its_share(problem, tolerance):
    _, costs, omegas, sets, groups, allowed, plans = problem
    limits = {"weight_groups": groups[0], "activation_groups": groups[1], "allowed": allowed}
    frontier = peak_frontier(costs, omegas, sets, tolerance=tolerance, **limits)
    points = [(peak(costs, x, sets), total(omegas, x)) for x in plans]
    exact = peak_frontier(costs, omegas, sets, **limits)
    slack = tolerance * (exact.cost[-1] - exact.cost[0])
    for cost, omega in points:
        assert frontier.omega[frontier.cost <= cost + slack + 1e-9].min() <= omega


def network(layers=20, seed=0):
    """Sizes, bit operations and Ω of layers whose Ω spans many powers of ten."""
    generator = np.random.default_rng(seed)
    bits = np.arange(2, 9)
    pair = np.ones((layers, 7, 7))
    macs, sizes = generator.integers(1, 10**9, layers), generator.integers(1, 10**6, layers)
    bops = macs[:, None, None] * bits[:, None] * bits * pair
    size = sizes[:, None, None] * bits[:, None] * pair / 8
    weight, activation = generator.lognormal(size=(2, layers, 1, 1), sigma=3)
    return size, bops, weight * 4.0 ** -bits[:, None] + activation * 4.0**-bits


@pytest.mark.parametrize("bits", [2.1, 3, 4, 6, 7.9])
def test_one_budget_is_a_point_of_the_frontier(bits):
    size, bops, omegas = network()
    groups = np.arange(20)
    groups[[3, 7]] = 2, 6  # two activations have two readers
    for name, costs, budget in (
        ("size", size, size[:, 0, 0].sum() / 2 * bits),
        ("bops", bops[:, :, 2:3], bops[:, 0, 2].sum() / 2 * bits),
    ):
        own = omegas[..., : costs.shape[2]]
        frontier = joint_frontier(costs, own, activation_groups=groups)
        plan = within_budgets({name: costs}, own, {name: budget}, activation_groups=groups)
        assert total(costs, plan) <= budget
        assert_allclose(total(own, plan), frontier.omega[frontier.index_within(budget)], rtol=1e-9)


def test_both_budgets_bind():
    size, bops, omegas = network()
    budgets = {"size": size[:, 2, 2].sum(), "bops": bops[:, 2, 2].sum()}
    both = total(omegas, within_budgets({"size": size, "bops": bops}, omegas, budgets))
    for name, costs in (("size", size), ("bops", bops)):
        one = within_budgets({name: costs}, omegas, {name: budgets[name]})
        assert total(omegas, one) < both
    assert both < omegas[:, 2, 2].sum()  # uniform bits, which meet both exactly


def test_many_plans_a_hair_above_the_budget_do_not_matter():
    """Of equal sizes, a budget that lacks a part in 10^10 allows one step less."""
    costs = np.tile(np.arange(2.0, 9) * 4096, (30, 1))[:, :, None]
    omegas = np.tile(4.0 ** -np.arange(2.0, 9), (30, 1))[:, :, None]
    budget = 30 * 4 * 4096
    plan = within_budgets({"size": costs}, omegas, {"size": budget * (1 - 1e-10)})
    assert total(costs, plan) == budget - 4096
    assert total(costs, within_budgets({"size": costs}, omegas, {"size": budget})) == budget


def test_a_plan_that_the_solver_lets_pass_is_excluded(monkeypatch):
    """It takes a row as met if a part in 10^9 is missing: 3 layers of 0.7 / 3 more than 0.1."""
    excluded = []
    exclude = engine.budgets._Programme.exclude
    monkeypatch.setattr(
        engine.budgets._Programme,
        "exclude",
        lambda programme, plan: excluded.append(plan.tolist()) or exclude(programme, plan),
    )
    costs = np.tile([0.1, 0.1 + 0.7 / 3], (4, 1))[:, :, None]
    omegas = np.array([[9, 1], [8, 1], [7, 1], [6, 1]])[:, :, None]
    plan = within_budgets({"ms": costs}, omegas, {"ms": (0.4 + 0.7) * (1 - 1e-11)})
    assert plan.tolist() == [1, 1, 0, 0]
    assert [1, 1, 1, 0] in excluded


TABLE = np.ones((3, 2, 2))
BAD = [
    (
        lambda: within_budgets({"size": TABLE}, TABLE, {"size": 2}),
        "budgets must be such that some plan meets all of them, got size=2: the nearest that can "
        "be met are size=3.",
    ),
    (
        lambda: within_budgets({"a": TABLE, "b": TABLE / 8}, TABLE, {"a": 2.5, "b": 9}),
        "budgets must be such that some plan meets all of them, got a=2.5 and b=9: the nearest "
        "that can be met are a=3 and b=9.",
    ),
    *(
        (
            lambda value=value: within_budgets({"size": TABLE}, TABLE, {"size": value}),
            f"budgets['size'] must be a number above 0, got {value}.",
        )
        for value in (0, -1, np.nan, np.inf)
    ),
    (
        lambda: within_budgets({"size": TABLE}, TABLE, {"bops": 1}),
        "budgets must be of known costs (size), got 'bops'.",
    ),
    (
        lambda: within_budgets({"size": TABLE[:2]}, TABLE, {"size": 1}),
        "costs['size'] must have the shape of omegas (3, 2, 2), got (2, 2, 2).",
    ),
    (
        lambda: within_budgets({"size": -TABLE}, TABLE, {"size": 1}),
        "costs['size'] must be finite and at least 0, got -1 for pair 0, 0 of layer 0.",
    ),
    (
        lambda: peak_frontier(TABLE, TABLE, [[0]], tolerance=-1),
        "tolerance must be a share of the cost range, at least 0 and below 1, got -1.",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), BAD)
def test_sentences_for_bad_input(call, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    assert str(caught.value) == sentence


@pytest.mark.parametrize("tiny", [1e-30, 5e-324, 1e-7])
def test_a_budget_of_next_to_nothing_has_a_nearest_one_too(tiny: float) -> None:
    costs = np.array([[[3.0], [5.0]], [[2.0], [7.0]]])
    with pytest.raises(NotMet) as caught:
        within_budgets({"a": costs, "b": costs}, 10 - costs, {"a": tiny, "b": 8.0})
    assert caught.value.nearest == {"a": 5.0, "b": 8.0}
