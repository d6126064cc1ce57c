"""The frontier and its overlays against enumeration of every plan."""

from itertools import combinations_with_replacement
from math import comb

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import engine.crossing
from engine.frontier import greedy_path, monotone_frontier, pareto_frontier, uniform_points
from engine.results import BitPlan


def every_plan(costs, locked=None, tied=()):
    """All assignments [P, L] that keep locks and ties, in lexicographic order."""
    layers, options = np.shape(costs)
    plans = np.indices((options,) * layers).reshape(layers, -1).T
    for layer, option in (locked or {}).items():
        plans = plans[plans[:, layer] == option]
    for group in tied:
        for layer in group:
            plans = plans[plans[:, layer] == plans[:, group[0]]]
    return plans


def totals(values, plans):
    return np.array([sum(row[o] for row, o in zip(values, plan, strict=True)) for plan in plans])


def pareto(points):
    """Of pairs (cost, Ω), those that no other beats in both: a walk by rising cost."""
    kept = []
    for cost, omega in sorted(set(points)):
        if not kept or omega < kept[-1][1]:
            kept.append((cost, omega))
    return kept


def brute_force(costs, omegas, locked=None, tied=()):
    plans = every_plan(costs, locked, tied)
    points = zip(totals(costs, plans).tolist(), totals(omegas, plans).tolist(), strict=True)
    return pareto(points)


def groups_of(layers, tied):
    """Sets of layers that share their option, by their first layer."""
    groups = [{layer} for layer in range(layers)]
    for together in tied:
        apart = [group for group in groups if not group & set(together)]
        joined = set().union(*(group for group in groups if group & set(together)))
        groups = [*apart, joined] if joined else apart
    return sorted(groups, key=min)


@st.composite
def tables(draw, max_layers=6, max_options=4, largest=12):
    """Costs and Ω [L, B], whole numbers, so that sums are exact and ties are common."""
    layers, options = draw(st.integers(1, max_layers)), draw(st.integers(1, max_options))
    row = st.lists(st.integers(0, largest), min_size=options, max_size=options)
    table = st.lists(row, min_size=layers, max_size=layers)
    return np.array(draw(table)), np.array(draw(table))


@st.composite
def problems(draw, **sizes):
    """Costs, Ω, locks that ties do not contradict, and ties that may overlap."""
    costs, omegas = draw(tables(**sizes))
    layers, options = costs.shape
    layer = st.integers(0, layers - 1)
    tied = draw(st.lists(st.lists(layer, max_size=3).map(tuple), max_size=2))
    locked = draw(st.dictionaries(layer, st.integers(0, options - 1), max_size=2))
    for group in groups_of(layers, tied):
        assume(len({locked[i] for i in group if i in locked}) <= 1)
    return costs, omegas, locked, tied


def check_points(frontier, costs, omegas):
    """Cost and Ω are the sums over the options that the choices name."""
    choices = frontier.all_choices() if hasattr(frontier, "all_choices") else frontier.choices
    assert choices.dtype == np.uint8
    assert_allclose(frontier.cost, totals(costs, choices), rtol=1e-12)
    assert_allclose(frontier.omega, totals(omegas, choices), rtol=1e-12)


@given(problems())
@example((np.array([[1, 2], [1, 2]]), np.array([[5, 1], [5, 1]]), {1: 0}, [(0, 1)]))
def test_frontier_equals_brute_force(problem):
    costs, omegas, locked, tied = problem
    frontier = pareto_frontier(costs, omegas, locked=locked, tied=tied)
    points = list(zip(frontier.cost.tolist(), frontier.omega.tolist(), strict=True))
    assert points == brute_force(costs, omegas, locked, tied)
    check_points(frontier, costs, omegas)
    allowed = {tuple(plan) for plan in every_plan(costs, locked, tied).tolist()}
    assert all(tuple(frontier.choices(i)) in allowed for i in range(len(frontier)))


def test_frontier_of_two_layers():
    costs, omegas = [[1, 2], [10, 20]], [[8, 1], [5, 2]]
    frontier = pareto_frontier(costs, omegas)
    assert frontier.cost.tolist() == [11, 12, 22]  # 21 has Ω 10, more than 12's
    assert frontier.omega.tolist() == [13, 6, 3]
    assert frontier.all_choices().tolist() == [[0, 0], [1, 0], [1, 1]]
    assert len(frontier) == 3


@given(tables(max_layers=5), st.sampled_from([0.1, 1 / 3, 1e-9, 1e12]), st.sampled_from([0.1, 0.7]))
def test_rounding_of_sums_makes_no_points(table, cost_unit, omega_unit):
    costs, omegas = table
    frontier = pareto_frontier(costs * cost_unit, omegas * omega_unit)
    expected = np.array(brute_force(costs, omegas))
    assert_allclose(frontier.cost / cost_unit, expected[:, 0], rtol=1e-12)
    assert_allclose(frontier.omega / omega_unit, expected[:, 1], rtol=1e-12)
    check_points(frontier, costs * cost_unit, omegas * omega_unit)
    assert (np.diff(frontier.cost) > 0).all()
    assert (np.diff(frontier.omega) < 0).all()


def test_costs_that_are_equal_but_for_rounding_are_one_point():
    assert 0.1 + 0.2 > 0.3
    frontier = pareto_frontier([[0, 0.3], [0, 0.2], [0, 0.1]], [[4.5, 0], [4, 0], [1, 0]])
    assert_allclose(frontier.cost, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert_allclose(frontier.omega, [9.5, 8.5, 5.5, 4.5, 4, 1, 0])  # not 5, of the first alone


fractions = st.floats(0, 1, allow_subnormal=False, width=32)


@given(problems(max_layers=5, largest=1000), st.floats(0, 1, exclude_max=True), st.data())
def test_tolerance_passes_over_plans_by_less_than_its_share(problem, tolerance, data):
    costs, omegas, locked, tied = problem
    noise = data.draw(st.lists(fractions, min_size=costs.size, max_size=costs.size))
    costs = costs + np.reshape(noise, costs.shape)  # on no grid
    frontier = pareto_frontier(costs, omegas, locked=locked, tied=tied, tolerance=tolerance)
    check_points(frontier, costs, omegas)
    plans = every_plan(costs, locked, tied)
    cost, omega = totals(costs, plans), totals(omegas, plans)
    assert (np.diff(frontier.cost) > 0).all()
    assert (np.diff(frontier.omega) < 0).all()
    slack = tolerance * np.ptp(cost) + 1e-9
    for plan_cost, plan_omega in zip(cost, omega, strict=True):
        near = frontier.cost <= plan_cost + slack
        assert frontier.omega[near].min() <= plan_omega + 1e-9
    assert_allclose(frontier.cost[0], cost.min())  # the cheapest plan is never passed over
    assert_allclose(frontier.omega[-1], omega.min())  # nor is the least Ω


def test_tolerance_returns_no_plan_that_another_returned_one_beats():
    """On the grid of step 1 options 2, 0 cost 2 and options 1, 1 cost 3; in truth 1.9 and 1.2."""
    costs, omegas = [[0, 0.1, 1.9], [0, 1.1, 9.0]], [[10, 6, 4], [3, 0, 0]]
    frontier = pareto_frontier(costs, omegas, tolerance=2 / 10.9)
    assert frontier.all_choices().tolist() == [[0, 0], [1, 0], [1, 1], [2, 1]]


def test_tolerance_thins_a_frontier_that_doubles_with_every_layer():
    powers = 2.0 ** np.arange(16)
    costs = np.stack([0 * powers, powers], axis=1)
    omegas = costs[:, ::-1]
    assert len(pareto_frontier(costs, omegas)) == 2**16
    thinned = pareto_frontier(costs, omegas, tolerance=0.01)
    assert len(thinned) <= 16 / 0.01 + 16 + 1
    assert len(pareto_frontier(costs, omegas, tolerance=1e-300)) == 2**16


def test_frontier_beyond_memory_asks_for_a_tolerance(monkeypatch):
    monkeypatch.setattr(engine.crossing, "MAX_CANDIDATES", 2000)
    monkeypatch.setattr(engine.crossing, "MAX_CELLS", 2000)
    powers = 2.0 ** np.arange(20)
    costs = np.stack([0 * powers, powers], axis=1)
    with pytest.raises(ValueError, match="tolerance") as caught:
        pareto_frontier(costs, costs[:, ::-1])
    assert str(caught.value) == (
        "tolerance must be larger for these costs, got 0: the frontier grows beyond 2,000 partial "
        "plans; try 0.0001."
    )
    with pytest.raises(ValueError, match=r"got 0\.002: .*; try 0\.02\.$"):
        pareto_frontier(costs, costs[:, ::-1], tolerance=0.002)
    assert len(pareto_frontier(costs, costs[:, ::-1], tolerance=0.05)) > 100


def test_more_layers_than_brute_force_could_take():
    generator = np.random.default_rng(0)
    sizes = generator.integers(1, 1000, 54)
    costs = np.outer(sizes, range(2, 9)) / 8
    omegas = np.outer(generator.lognormal(size=54), 4.0 ** -np.arange(2, 9))
    frontier = pareto_frontier(costs, omegas)
    assert frontier.all_choices().shape == (len(frontier), 54)
    check_points(frontier, costs, omegas)
    assert (frontier.cost * 8 == np.rint(frontier.cost * 8)).all()  # eighths of a byte stay exact
    for overlay in (
        uniform_points(costs, omegas),
        greedy_path(costs, omegas),
        monotone_frontier(costs, omegas, omegas[:, 0] / sizes),
    ):
        for cost, omega in zip(overlay.cost, overlay.omega, strict=True):
            assert frontier.omega[frontier.index_within(cost)] <= omega * (1 + 1e-12)


# --- picking a point


@pytest.fixture
def frontier():
    return pareto_frontier([[1.5, 3.0], [10.0, 20.0]], [[8, 1], [5, 2]])  # costs 11.5, 13, 23


def plan_of(choices):
    bits = {f"layer{i}": 4 + 4 * int(option) for i, option in enumerate(choices)}
    return BitPlan("toy", bits, size_bytes=1.0, omega=2.0, made_by={"cost": "size"})


def test_index_within_takes_the_largest_not_above(frontier):
    assert [frontier.index_within(x) for x in (11.5, 12.9, 13, 22, 23, np.inf)] == [
        0,
        0,
        1,
        1,
        2,
        2,
    ]


def test_nearest(frontier):
    assert [frontier.nearest(x) for x in (-np.inf, 0, 12.25, 12.3, 17, 19, np.inf)] == [
        0, 0, 0, 1, 1, 2, 2,
    ]  # fmt: skip


def test_within_is_the_plan_at_the_budget(frontier):
    named = frontier.named(plan_of)
    assert named.plan(0).weight_bits == {"layer0": 4, "layer1": 4}
    plan = named.within(14.0)
    assert plan.weight_bits == {"layer0": 8, "layer1": 4}
    assert plan.made_by == {"cost": "size", "budget": 14.0}
    assert named.within(np.inf).made_by["budget"] == 23.0  # JSON has no infinity
    assert frontier.plan_of is None  # the frontier itself is as it was


def test_arrays_are_read_only(frontier):
    for array in (frontier.cost, frontier.omega, frontier.all_choices()):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    frontier.choices(0)[0] = 1  # a copy


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (
            lambda f: f.index_within(11),
            "budget must be at least 11.5, the cost of the smallest plan, got 11: raise it or "
            "allow fewer bits.",
        ),
        (lambda f: f.index_within(np.nan), "budget must be a number, got nan."),
        (lambda f: f.nearest(np.nan), "cost must be a number, got nan."),
        (
            lambda f: f.plan(0),
            "frontier must know its layers to make a plan, got bare arrays: call named(plan_of) "
            "first, or take choices(i).",
        ),
        (
            lambda f: f.within(20),
            "frontier must know its layers to make a plan, got bare arrays: call named(plan_of) "
            "first, or take choices(i).",
        ),
    ],
)
def test_sentences_of_a_frontier(frontier, call, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        call(frontier)
    assert str(caught.value) == sentence


def test_the_smallest_that_a_message_names_is_a_budget():
    frontier = pareto_frontier([[0.1], [0.2], [1e6]], [[0], [0], [0]])
    with pytest.raises(ValueError, match=r"at least 1,000,000\.3, .* got 7: ") as caught:
        frontier.index_within(7)
    smallest = str(caught.value).split()[5].rstrip(",").replace(",", "")
    assert frontier.index_within(float(smallest)) == 0


# --- bad input

TABLE = np.ones((3, 2))


def with_value(value):
    table = np.ones((3, 2))
    table[2, 1] = value
    return table


BAD = [
    (
        lambda: pareto_frontier(TABLE, np.ones((2, 2))),
        "omegas must have the shape of costs (3, 2), got (2, 2).",
    ),
    (
        lambda: pareto_frontier(np.ones(3), TABLE),
        "costs must be numbers [layers, options] with at least one layer and 1 to 256 options, "
        "got shape (3,).",
    ),
    (
        lambda: pareto_frontier(TABLE, np.ones((0, 2))),
        "omegas must be numbers [layers, options] with at least one layer and 1 to 256 options, "
        "got shape (0, 2).",
    ),
    (
        lambda: pareto_frontier(np.ones((2, 0)), TABLE),
        "costs must be numbers [layers, options] with at least one layer and 1 to 256 options, "
        "got shape (2, 0).",
    ),
    (
        lambda: pareto_frontier(np.ones((2, 257)), TABLE),
        "costs must be numbers [layers, options] with at least one layer and 1 to 256 options, "
        "got shape (2, 257).",
    ),
    (
        lambda: pareto_frontier([["a", "b"]], TABLE),
        "costs must be numbers [layers, options]: could not convert string to float: 'a'.",
    ),
    *(
        (
            lambda value=value: pareto_frontier(with_value(value), TABLE),
            f"costs must be finite and at least 0, got {value:g} for option 1 of layer 2.",
        )
        for value in (np.nan, np.inf, -1)
    ),
    (
        lambda: pareto_frontier(TABLE, with_value(-0.5)),
        "omegas must be finite and at least 0, got -0.5 for option 1 of layer 2.",
    ),
    (
        lambda: pareto_frontier(TABLE, TABLE, locked={3: 0}),
        "locked must be an index in 0…2, got 3.",
    ),
    (
        lambda: pareto_frontier(TABLE, TABLE, locked={1: -1}),
        "locked[1] must be an index in 0…1, got -1.",
    ),
    (
        lambda: pareto_frontier(TABLE, TABLE, locked={1: 0.5}),
        "locked[1] must be an index in 0…1, got 0.5.",
    ),
    (
        lambda: pareto_frontier(TABLE, TABLE, tied=[(0, 7)]),
        "tied must be an index in 0…2, got 7.",
    ),
    (
        lambda: pareto_frontier(TABLE, TABLE, tied=["ab"]),
        "tied must be an index in 0…2, got 'a'.",
    ),
    (
        lambda: pareto_frontier(TABLE, TABLE, tied=(0, 1)),
        "tied must be groups of layer indices, got 0.",
    ),
    (
        lambda: pareto_frontier(TABLE, TABLE, locked={0: 0, 2: 1}, tied=[(0, 1), (1, 2)]),
        "locked must give tied layers one option, got 0 for layer 0 and 1 for layer 2: "
        "untie them or lock alike.",
    ),
    *(
        (
            lambda value=value: pareto_frontier(TABLE, TABLE, tolerance=value),
            f"tolerance must be a share of the cost range, at least 0 and below 1, got {value}.",
        )
        for value in (-0.1, 1.0, np.nan)
    ),
    (
        lambda: monotone_frontier(TABLE, TABLE, [1, 2]),
        "traces must be one number for each of 3 layers, got shape (2,).",
    ),
    (
        lambda: monotone_frontier(TABLE, TABLE, [1, np.nan, 2]),
        "traces must be finite, got nan for layer 1.",
    ),
    (
        lambda: greedy_path(-TABLE, TABLE),
        "costs must be finite and at least 0, got -1 for option 0 of layer 0.",
    ),
    (
        lambda: uniform_points(TABLE, TABLE, locked={9: 0}),
        "locked must be an index in 0…2, got 9.",
    ),
]


@pytest.mark.parametrize(("call", "sentence"), BAD)
def test_sentences_for_bad_input(call, sentence):
    with pytest.raises(ValueError, match=r".") as caught:
        call()
    assert str(caught.value) == sentence


# --- overlays


@given(problems())
def test_uniform_points(problem):
    costs, omegas, locked, tied = problem
    uniform = uniform_points(costs, omegas, locked=locked, tied=tied)
    assert uniform.name == "uniform"
    check_points(uniform, costs, omegas)
    fixed = {}
    for group in groups_of(len(costs), tied):
        for layer in group & set(locked):
            fixed |= dict.fromkeys(group, locked[layer])
    for option, choices in enumerate(uniform.choices.tolist()):
        assert choices == [fixed.get(layer, option) for layer in range(len(costs))]


def follows_the_rule(plan, traces, groups, locked):
    """Whether bits never fall as the trace rises, over the groups that are not locked."""
    free = [group for group in groups if not group & set(locked)]
    known = [(np.mean([traces[i] for i in sorted(g)]), plan[min(g)]) for g in free]
    return all(bits_a <= bits_b for a, bits_a in known for b, bits_b in known if a <= b)


@given(problems(max_layers=5), st.data())
def test_monotone_frontier_equals_brute_force(problem, data):
    costs, omegas, locked, tied = problem
    layers = len(costs)
    traces = data.draw(st.lists(st.integers(-1, 6), min_size=layers, max_size=layers))
    monotone = monotone_frontier(costs, omegas, traces, locked=locked, tied=tied)
    assert monotone.name == "monotone"
    check_points(monotone, costs, omegas)
    groups = groups_of(layers, tied)
    plans = every_plan(costs, locked, tied)
    plans = [plan for plan in plans if follows_the_rule(plan, traces, groups, locked)]
    found = zip(monotone.cost.tolist(), monotone.omega.tolist(), strict=True)
    expected = zip(totals(costs, plans).tolist(), totals(omegas, plans).tolist(), strict=True)
    assert list(found) == pareto(expected)
    assert all(follows_the_rule(plan, traces, groups, locked) for plan in monotone.choices)


def test_monotone_rule_leaves_the_published_number_of_candidates():
    """HAWQ-V2, section 3: 50 layers and 4 bit widths leave C(53, 3) plans of 4^50."""
    generator = np.random.default_rng(0)
    costs = np.outer(generator.integers(1, 20, 50), (1, 2, 4, 8))
    omegas = np.outer(generator.integers(1, 200, 50), (64, 16, 4, 1))
    traces = generator.permutation(50)
    falling = np.argsort(-traces)
    plans = np.array(list(combinations_with_replacement((3, 2, 1, 0), 50)))  # never rise
    assert len(plans) == comb(53, 3) == 23426
    cost = np.take_along_axis(costs[falling], plans.T, axis=1).sum(axis=0)
    omega = np.take_along_axis(omegas[falling], plans.T, axis=1).sum(axis=0)
    monotone = monotone_frontier(costs, omegas, traces)
    found = list(zip(monotone.cost.tolist(), monotone.omega.tolist(), strict=True))
    assert found == pareto(zip(cost.tolist(), omega.tolist(), strict=True))
    check_points(monotone, costs, omegas)
    assert (np.diff(monotone.choices[:, falling].astype(int), axis=1) <= 0).all()


def slow_greedy(costs, omegas, locked, tied):
    """The path by looking at every step of every group, every time."""
    layers, options = costs.shape
    groups = groups_of(layers, tied)
    cost = [[sum(costs[i, o] for i in group) for o in range(options)] for group in groups]
    omega = [[sum(omegas[i, o] for i in group) for o in range(options)] for group in groups]
    locks = [next((locked[i] for i in group if i in locked), None) for group in groups]
    at = [
        min(range(options), key=lambda o: (cost[g][o], omega[g][o])) if lock is None else lock
        for g, lock in enumerate(locks)
    ]
    path = [list(at)]
    while True:
        steps = []
        for g, lock in enumerate(locks):
            for o in range(options) if lock is None else ():
                dearer, fall = cost[g][o] - cost[g][at[g]], omega[g][at[g]] - omega[g][o]
                if dearer > 0 and fall > 0:
                    steps.append((-fall / dearer, g, dearer, o))
        if not steps:
            break
        _, g, _, o = min(steps)
        at[g] = o
        path.append(list(at))
    of_layer = {layer: g for g, group in enumerate(groups) for layer in group}
    return [[step[of_layer[layer]] for layer in range(layers)] for step in path]


@given(problems())
def test_greedy_path_equals_looking_at_every_step(problem):
    costs, omegas, locked, tied = problem
    greedy = greedy_path(costs, omegas, locked=locked, tied=tied)
    assert greedy.name == "greedy"
    assert_array_equal(greedy.choices, slow_greedy(costs, omegas, locked, tied))
    check_points(greedy, costs, omegas)
    assert (np.diff(greedy.cost) > 0).all()
    assert (np.diff(greedy.omega) < 0).all()
    frontier = pareto_frontier(costs, omegas, locked=locked, tied=tied)
    assert greedy.omega[-1] == frontier.omega[-1]  # it ends where nothing lowers Ω


def test_greedy_can_miss_the_best_plan():
    costs, omegas = [[0, 1], [0, 2]], [[3, 0], [4, 0]]  # the cheap step blocks the better one
    greedy, frontier = greedy_path(costs, omegas), pareto_frontier(costs, omegas)
    assert greedy.cost.tolist() == [0, 1, 3]
    assert frontier.cost.tolist() == [0, 1, 2, 3]
    assert len(greedy) == 3
