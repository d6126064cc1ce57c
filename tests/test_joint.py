"""The frontier over pairs of bits against enumeration of every choice."""

import numpy as np
import pytest
from every_choice import every_choice
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import engine.crossing
import engine.joint
from engine.frontier import pareto_frontier
from engine.joint import joint_frontier


def totals(values, plans):
    flat = np.reshape(values, (len(values), -1))
    return np.array([sum(row[o] for row, o in zip(flat, plan, strict=True)) for plan in plans])


def brute_force(costs, omegas, plans):
    """Of the choices' (cost, Ω), those that no other beats in both: a walk by rising cost."""
    kept = []
    for cost, omega in sorted(zip(totals(costs, plans), totals(omegas, plans), strict=True)):
        if not kept or omega < kept[-1][1]:
            kept.append((cost, omega))
    return kept


@st.composite
def problems(draw, largest=12):
    """Costs and Ω [L, W, A] of whole numbers, groups, and allowed pairs with a choice left."""
    layers, weights, activations = draw(
        st.sampled_from([(1, 3, 3), (2, 3, 2), (3, 2, 2), (4, 2, 2), (3, 3, 1), (3, 1, 3)])
    )
    shape = (layers, weights, activations)
    number = st.integers(0, largest)
    size = layers * weights * activations
    costs, omegas = (
        np.reshape(draw(st.lists(number, min_size=size, max_size=size)), shape) for _ in range(2)
    )
    group = st.lists(st.integers(0, layers - 1), min_size=layers, max_size=layers)
    groups = [draw(st.one_of(st.just(list(range(layers))), group)) for _ in range(2)]
    allowed = np.reshape(
        draw(st.lists(st.integers(0, 4).map(bool), min_size=size, max_size=size)), shape
    )
    assume(len(every_choice(shape, *groups, allowed)))
    return costs, omegas, *groups, allowed


RING = (  # four layers between two weights and two activations, each with each
    np.arange(16).reshape(4, 2, 2),
    np.arange(16)[::-1].reshape(4, 2, 2) ** 2,
    [0, 0, 1, 1],
    [0, 1, 0, 1],
    np.ones((4, 2, 2), bool),
)


@given(problems())
@example(RING)
def test_joint_frontier_equals_brute_force(problem):
    costs, omegas, weight_groups, activation_groups, allowed = problem
    plans = every_choice(costs.shape, weight_groups, activation_groups, allowed)
    frontier = joint_frontier(
        costs,
        omegas,
        weight_groups=weight_groups,
        activation_groups=activation_groups,
        allowed=allowed,
    )
    found = list(zip(frontier.cost.tolist(), frontier.omega.tolist(), strict=True))
    assert found == brute_force(costs, omegas, plans)
    choices = frontier.all_choices()
    assert choices.dtype == np.uint8
    assert_array_equal(frontier.cost, totals(costs, choices))
    assert_array_equal(frontier.omega, totals(omegas, choices))
    assert {tuple(x) for x in choices.tolist()} <= {tuple(x) for x in plans.tolist()}


fractions = st.floats(0, 1, allow_subnormal=False, width=32)


@given(problems(largest=1000), st.floats(0, 1, exclude_max=True), st.booleans(), st.data())
@settings(deadline=None)
def test_tolerance_passes_over_plans_by_less_than_its_share(problem, tolerance, dense, data):
    costs, omegas, weight_groups, activation_groups, allowed = problem
    noise = data.draw(st.lists(fractions, min_size=costs.size, max_size=costs.size))
    costs = costs + np.reshape(noise, costs.shape)
    plans = every_choice(costs.shape, weight_groups, activation_groups, allowed)
    with pytest.MonkeyPatch.context() as patch:
        if dense:  # however few the choices are
            patch.setattr(engine.crossing.math, "prod", lambda _: 10**9)
        frontier = joint_frontier(
            costs,
            omegas,
            weight_groups=weight_groups,
            activation_groups=activation_groups,
            allowed=allowed,
            tolerance=tolerance,
        )
    assert_allclose(frontier.cost, totals(costs, frontier.options))
    assert_allclose(frontier.omega, totals(omegas, frontier.options))
    assert (np.diff(frontier.cost) > 0).all()
    assert (np.diff(frontier.omega) < 0).all()
    assert {tuple(x) for x in frontier.options.tolist()} <= {tuple(x) for x in plans.tolist()}
    cost, omega = totals(costs, plans), totals(omegas, plans)
    slack = tolerance * np.ptp(cost) + 1e-9
    for plan_cost, plan_omega in zip(cost, omega, strict=True):
        near = frontier.cost <= plan_cost + slack
        assert frontier.omega[near].min() <= plan_omega + 1e-9
    assert_allclose(frontier.cost[0], cost.min())
    assert_allclose(frontier.omega[-1], omega.min())


def test_the_cheapest_plan_is_never_passed_over():
    costs = [[[1, 0], [0, 0]], [[0, 0], [2, 7]]]
    omegas = [[[1, 0], [0, 0]], [[0, 0], [0, 0]]]
    allowed = [[[1, 0], [0, 1]], [[0, 1], [1, 1]]]
    frontier = joint_frontier(costs, omegas, weight_groups=[0, 0], allowed=allowed, tolerance=0.75)
    assert frontier.cost.tolist() == [1, 2]
    assert frontier.omega.tolist() == [1, 0]


def test_steps_of_a_grid_and_sorted_sums_find_the_same(monkeypatch):
    generator = np.random.default_rng(0)
    macs = generator.lognormal(size=20)
    bits = np.arange(2, 9)
    costs = macs[:, None, None] * bits[:, None] * bits
    omegas = generator.lognormal(size=(20, 1, 1), sigma=2) * 4.0 ** -bits[:, None]
    omegas = omegas + generator.lognormal(size=(20, 1, 1), sigma=2) * 4.0**-bits
    frontier = joint_frontier(costs, omegas, tolerance=0.01)
    monkeypatch.setattr(engine.crossing, "MAX_CELLS", 0)
    sparse = joint_frontier(costs, omegas, tolerance=0.01)
    assert len(frontier) > 300
    at = [sparse.index_within(cost * 1.01) for cost in frontier.cost]
    assert (sparse.omega[at] <= frontier.omega * (1 + 1e-12)).all()
    assert_allclose(frontier.cost[[0, -1]], [costs[:, 0, 0].sum(), costs[:, -1, -1].sum()])


def test_without_pairs_it_is_the_frontier_of_the_layers():
    generator = np.random.default_rng(1)
    costs = np.outer(generator.integers(1, 500, 20), range(2, 9)) / 8
    omegas = np.outer(generator.lognormal(size=20), 4.0 ** -np.arange(2, 9))
    tied = [(0, 3), (4, 5, 9)]
    expected = pareto_frontier(costs, omegas, tied=tied)
    groups = np.arange(20)
    groups[[3, 5, 9]] = [0, 4, 4]
    for axis, name in ((2, "weight_groups"), (1, "activation_groups")):
        found = joint_frontier(
            np.expand_dims(costs, axis), np.expand_dims(omegas, axis), **{name: groups}
        )
        assert_allclose(found.cost, expected.cost)
        assert_allclose(found.omega, expected.omega)


def test_all_layers_may_share_their_weights_bits():
    generator = np.random.default_rng(2)
    costs = generator.integers(1, 9, (30, 3, 3))
    omegas = generator.integers(1, 9, (30, 3, 3))
    found = joint_frontier(costs, omegas, weight_groups=np.zeros(30))
    each = [pareto_frontier(costs[:, w], omegas[:, w]) for w in range(3)]
    points = sorted((c, o) for x in each for c, o in zip(x.cost, x.omega, strict=True))
    least = np.minimum.accumulate([omega for _, omega in points])
    for (cost, _), omega in zip(points, least, strict=True):
        assert found.omega[found.index_within(cost)] <= omega
    assert len(np.unique(found.options // 3, axis=1)[0]) >= 1
    assert all(len(set(row // 3)) == 1 for row in found.options)


def with_value(value):
    table = np.ones((3, 2, 2))
    table[2, 1, 0] = value
    return table


TABLE = np.ones((3, 2, 2))
FIRST = np.array([[[1, 1], [0, 0]]] * 3)  # the first option of the weight alone
BAD = [
    (
        lambda: joint_frontier(TABLE, np.ones((3, 2, 1))),
        "omegas must have the shape of costs (3, 2, 2), got (3, 2, 1).",
    ),
    (
        lambda: joint_frontier(np.ones((3, 2)), TABLE),
        "costs must be numbers [layers, weights, activations] with at least one layer and 1 to "
        "256 pairs, got shape (3, 2).",
    ),
    (
        lambda: joint_frontier(np.ones((3, 32, 9)), TABLE),
        "costs must be numbers [layers, weights, activations] with at least one layer and 1 to "
        "256 pairs, got shape (3, 32, 9).",
    ),
    (
        lambda: joint_frontier(TABLE, np.ones((0, 2, 2))),
        "omegas must be numbers [layers, weights, activations] with at least one layer and 1 to "
        "256 pairs, got shape (0, 2, 2).",
    ),
    (
        lambda: joint_frontier([[["a"]]], TABLE),
        "costs must be numbers [layers, weights, activations]: could not convert string to "
        "float: 'a'.",
    ),
    *(
        (
            lambda value=value: joint_frontier(with_value(value), TABLE),
            f"costs must be finite and at least 0, got {value:g} for pair 1, 0 of layer 2.",
        )
        for value in (np.nan, np.inf, -1)
    ),
    (
        lambda: joint_frontier(TABLE, TABLE, tolerance=1),
        "tolerance must be a share of the cost range, at least 0 and below 1, got 1.",
    ),
    (
        lambda: joint_frontier(TABLE, TABLE, weight_groups=[0, 1]),
        "weight_groups must be one number for each of 3 layers, got shape (2,).",
    ),
    (
        lambda: joint_frontier(TABLE, TABLE, activation_groups=[[0, 1, 1]]),
        "activation_groups must be one number for each of 3 layers, got shape (1, 3).",
    ),
    (
        lambda: joint_frontier(TABLE, TABLE, allowed=np.ones((3, 2))),
        "allowed must have the shape of costs (3, 2, 2), got (3, 2).",
    ),
    (
        lambda: joint_frontier(TABLE, TABLE, allowed=with_value(0) * 0),
        "allowed must leave every layer an option that its groups share, got none for layer 0: "
        "allow more, or untie it.",
    ),
    (
        lambda: joint_frontier(
            TABLE, TABLE, allowed=[FIRST[0], FIRST[0][::-1], FIRST[0]], weight_groups=[0, 1, 1]
        ),
        "allowed must leave every layer an option that its groups share, got none for layer 1: "
        "allow more, or untie it.",
    ),
    (
        lambda: joint_frontier(
            np.ones((4, 2, 2)),
            np.ones((4, 2, 2)),
            weight_groups=[0, 0, 1, 1],
            activation_groups=[0, 1, 0, 1],
            allowed=[np.eye(2), np.eye(2), np.eye(2), 1 - np.eye(2)],
        ),
        "allowed must leave every layer an option that its groups share, got none for all layers "
        "at once: allow more, or untie some.",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), BAD)
def test_sentences_for_bad_input(call, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    assert str(caught.value) == sentence


def test_layers_joined_in_too_many_ways(monkeypatch):
    monkeypatch.setattr(engine.joint, "MAX_CASES", 2)
    with pytest.raises(ValueError, match=r".") as caught:
        joint_frontier(*RING[:2], weight_groups=RING[2], activation_groups=RING[3])
    assert str(caught.value) == (
        "weight_groups and activation_groups must leave layers that are chosen in turn, got "
        "layers joined in more than 2 ways: untie some, or allow fewer bits."
    )
