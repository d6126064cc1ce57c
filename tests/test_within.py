"""The least Ω within a budget for many tables at once, against all plans and the exact frontier."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine import within
from engine.frontier import pareto_frontier
from engine.joint import joint_frontier
from engine.within import TooMany, least_omegas


def totals(tables, options):
    """Σ over layers of what was chosen; tables [D or 1, L, W, A], options [D, L]."""
    flat = np.broadcast_to(tables, (len(options), *tables.shape[1:]))
    flat = flat.reshape(*options.shape, -1)
    return np.take_along_axis(flat, options[..., None], 2)[..., 0].sum(axis=1)


def brute_force(costs, omega, budget, weight_groups, activation_groups, allowed):
    """The least Ω of all plans within a budget; infinite if there is none."""
    layers, weights, activations = costs.shape
    best = np.inf
    for plan in product(range(weights * activations), repeat=layers):
        pairs = [divmod(option, activations) for option in plan]
        if not all(allowed[i, w, a] for i, (w, a) in enumerate(pairs)):
            continue
        if any(
            (weight_groups[i] == weight_groups[j] and pairs[i][0] != pairs[j][0])
            or (activation_groups[i] == activation_groups[j] and pairs[i][1] != pairs[j][1])
            for i in range(layers)
            for j in range(i)
        ):
            continue
        if sum(costs[i, w, a] for i, (w, a) in enumerate(pairs)) <= budget:
            best = min(best, sum(omega[i, w, a] for i, (w, a) in enumerate(pairs)))
    return best


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_it_finds_what_going_through_all_plans_finds(data) -> None:
    shape = data.draw(st.sampled_from([(1, 3, 2), (3, 2, 2), (4, 3, 1), (3, 1, 4)]))
    layers = shape[0]
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    whole = data.draw(st.booleans())  # whole numbers have many ties
    draw = (lambda size: rng.integers(0, 9, size).astype(float)) if whole else rng.random
    costs, omegas = draw(shape), draw((3, *shape))
    groups = [rng.integers(0, layers, layers) for _ in range(2)]
    allowed = rng.random(shape) < data.draw(st.sampled_from([0.5, 1.0]))
    budget = data.draw(st.floats(0, 1)) * costs.max(axis=(1, 2)).sum()
    limits = {"weight_groups": groups[0], "activation_groups": groups[1], "allowed": allowed}
    best = [brute_force(costs, omega, budget, *groups, allowed) for omega in omegas]
    try:
        found = least_omegas(costs, omegas, budget, **limits)
    except ValueError:
        assert np.isinf(best).all()
        return
    np.testing.assert_allclose(totals(omegas, found), best, rtol=1e-9, atol=1e-12)
    assert (totals(costs[None], found) <= budget * (1 + 1e-9)).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_it_lies_on_the_exact_frontier_of_every_table(seed, place) -> None:
    """Layers as unlike as those of networks: sizes over four powers of ten, traces over six."""
    rng = np.random.default_rng(seed)
    layers, bits = 11, np.arange(2, 9)
    sizes = np.rint(10 ** rng.uniform(1, 5, layers)) * 8
    costs = sizes[:, None] * bits / 8
    moved = sizes[:, None] * 4.0**-bits * rng.uniform(0.8, 1.2, (layers, 7))
    omegas = moved * 10 ** rng.uniform(-3, 3, (4, layers, 1))
    budget = costs[:, 0].sum() + place * (costs[:, -1] - costs[:, 0]).sum()
    found = least_omegas(costs[..., None], omegas[..., None], budget)
    for omega, options in zip(omegas, found, strict=True):
        frontier = pareto_frontier(costs, omega)
        best = frontier.omega[frontier.index_within(budget * (1 + 1e-12))]
        assert omega[np.arange(layers), options].sum() == pytest.approx(best, rel=1e-11)
        assert costs[np.arange(layers), options].sum() <= budget * (1 + 1e-11)


def test_layers_that_share_bits_lie_on_the_exact_frontier_too() -> None:
    rng = np.random.default_rng(0)
    bits = np.array([2, 3, 4, 6, 8])
    macs = np.rint(10 ** rng.uniform(2, 5, 9))
    costs = macs[:, None, None] * bits[:, None] * bits
    traces = 10 ** rng.uniform(-2, 2, (4, 9, 2))
    halves = traces[..., None] * 4.0**-bits  # [4, 9, 2, B]
    omegas = halves[:, :, 0, :, None] + halves[:, :, 1, None, :]
    limits = {
        "weight_groups": [0, 1, 1, 3, 4, 5, 6, 7, 8],
        "activation_groups": [0, 0, 2, 2, 2, 5, 6, 7, 8],
    }
    for omega in omegas:
        frontier = joint_frontier(costs, omega, **limits)
        for i in (0, len(frontier) // 3, len(frontier) - 1):
            found = least_omegas(costs, omega[None], frontier.cost[i], **limits)
            assert totals(omega[None], found)[0] == pytest.approx(frontier.omega[i], rel=1e-11)


def test_one_exact_example() -> None:
    costs, omegas = (
        [[[1], [2]], [[10], [20]]],
        [[[[8], [1]], [[5], [2]]], [[[8], [7]], [[50], [2]]]],
    )
    assert least_omegas(costs, omegas, 15).tolist() == [[1, 0], [1, 0]]
    assert least_omegas(costs, omegas, 21).tolist() == [[1, 0], [0, 1]]
    assert least_omegas(costs, omegas, 1e300).tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize(
    ("omegas", "budget", "sentence"),
    [
        (
            [[[[1.0]]], [[[1.0]]]],
            0.5,
            "budget must be at least 1, the cost of the smallest plan, got",
        ),
        ([[[[1.0]]]], float("nan"), "budget must be at least 1, .* got nan"),
        ([[[1.0]]], 1, r"omegas must be tables of the shape of costs \(1, 1, 1\), got shape"),
    ],
)
def test_bad_arguments_are_named(omegas, budget, sentence) -> None:
    with pytest.raises(ValueError, match=sentence):
        least_omegas([[[1.0]]], omegas, budget)


def test_groups_that_contradict_each_other_are_named() -> None:
    # two layers share both halves, and each leaves the other a pair that it cannot have
    allowed = np.array([[[1, 0], [0, 1]], [[0, 1], [1, 0]]], bool)
    sentence = "allowed must leave every layer an option .* got none for all layers at once"
    with pytest.raises(ValueError, match=sentence):
        least_omegas(
            np.ones((2, 2, 2)),
            np.ones((1, 2, 2, 2)),
            9,
            weight_groups=[0, 0],
            activation_groups=[0, 0],
            allowed=allowed,
        )


@pytest.mark.parametrize("most", [4, 1])  # refused on the way, and at the end
def test_too_many_combinations_are_named(monkeypatch, most) -> None:
    monkeypatch.setattr(within, "MAX_COMBINATIONS", most)
    with pytest.raises(TooMany, match=f"got more than {most}: untie some, or allow fewer bits"):
        least_omegas(np.ones((3, 3, 3)), np.ones((1, 3, 3, 3)), 9, activation_groups=[0, 0, 0])
