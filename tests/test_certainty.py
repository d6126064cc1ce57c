"""Plans found again under redrawn mini-batches, against doing it one by one."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import made_up_activations, made_up_analysis, varied

from engine import certainty as module
from engine.certainty import Certainty, Redrawn, Vote, omega_band
from engine.results import wilson_interval
from engine.within import TooMany

WEIGHTS = made_up_analysis()
BOTH = made_up_activations(WEIGHTS)
SIZES = [16] * 30 + [7]  # the last mini-batch is smaller


def middle(analysis, cost="size", place=0.5, **limits):
    frontier = analysis.frontier(cost, tolerance=0, **limits)
    return frontier.plan(int(place * len(frontier)))


def test_redrawn_traces_are_means_of_the_mini_batches_drawn() -> None:
    analysis = varied(BOTH, sizes=SIZES)
    redrawn = Redrawn.of(analysis, draws=30, seed=5)
    rng = np.random.default_rng(5)
    counts = rng.multinomial(len(SIZES) - 1, np.full(len(SIZES), 1 / len(SIZES)), size=30)
    for factors, rows, records in (
        (redrawn.weights, analysis.batch_traces, analysis.layers),
        (redrawn.inputs, analysis.activation_batch_traces, analysis.activations),
    ):
        for draw, times in enumerate(counts):
            drawn = np.repeat(np.arange(len(SIZES)), times)
            sizes = np.array(SIZES)[drawn]
            for i, record in enumerate(records):
                mean = max(float((sizes * rows[drawn, i]).sum() / sizes.sum()), record.trace.sem)
                assert factors[draw, i] == pytest.approx(mean / record.trace.for_omega, rel=1e-9)


def test_their_spread_is_the_standard_error_of_the_analysis() -> None:
    for batches in (4, 40):
        analysis = varied(WEIGHTS, spread=0.05, batches=batches)
        redrawn = Redrawn.of(analysis, draws=4000, seed=1)
        for factors, layer in zip(redrawn.weights.T, analysis.layers, strict=True):
            if not layer.trace.floored:
                assert factors.std() == pytest.approx(layer.trace.relative_sem, rel=0.08)


def test_a_trace_below_its_error_counts_as_that_error() -> None:
    analysis = varied(WEIGHTS, spread=0.2)
    layers = list(analysis.layers)
    layers[1] = replace(layers[1], trace=replace(layers[1].trace, mean=0.0, sem=1e9))
    rows = analysis.batch_traces.copy()
    rows[:, 1] -= rows[:, 1].mean()
    floored = replace(analysis, layers=tuple(layers), batch_traces=rows)
    assert (Redrawn.of(floored).weights[:, 1] == 1).all()


def test_mini_batches_that_are_alike_leave_everything_certain() -> None:
    certainty = Certainty.of(BOTH, {"bops": middle(BOTH, "bops").costs["bops"]}, draws=50)
    assert len(certainty.votes) == len(BOTH.layers) + len(BOTH.activations)
    assert all(vote.share == 1 and vote.low == vote.bits == vote.high for vote in certainty.votes)
    assert certainty.undecided == ()
    assert (certainty.regrets == 0).all()
    plans = [middle(BOTH, "bops"), BOTH.uniform(4, 4)]
    for end in omega_band(BOTH, plans, draws=50):
        np.testing.assert_allclose(end, [plan.omega for plan in plans], rtol=1e-12)


@pytest.mark.parametrize(
    ("cost", "place", "limits"),  # at a place where draws differ
    [
        ("size", 0.5, {}),
        ("size", 0.5, {"activations": 8, "locked": {"fc": 8}, "bit_widths": (2, 4, 8)}),
        ("size", 0.5, {"tied": [["layer2.0.conv1", "layer2.0.conv2"], ["layer1.0.conv1", "fc"]]}),
        ("activation_memory", 0.4, {"weights": 4, "locked_activations": {"fc": 5}}),
        ("bops", 0.49, {"bit_widths": (2, 4, 8), "activation_bit_widths": (4, 8)}),
        ("bops", 0.83, {"same_bits": True}),
    ],
)
def test_it_is_what_frontiers_of_each_draw_say(cost, place, limits) -> None:
    analysis, draws = varied(BOTH, spread=1.5, batches=12), 20
    budget = middle(analysis, cost, place, **limits).costs[cost]
    certainty = Certainty.of(analysis, {cost: budget}, draws=draws, seed=3, **limits)
    redrawn = Redrawn.of(analysis, draws=draws, seed=3)
    found = []
    for weights, inputs in zip(redrawn.weights, redrawn.inputs, strict=True):
        drawn = replace(
            analysis,
            layers=tuple(map(scaled, analysis.layers, weights)),
            activations=tuple(map(scaled, analysis.activations, inputs)),
        )
        found.append(drawn.frontier(cost, tolerance=0, **limits).within(budget))
    plan = analysis.frontier(cost, tolerance=0, **limits).within(budget)
    assert (certainty.plan.weight_bits, certainty.plan.activation_bits) == (
        plan.weight_bits,
        plan.activation_bits,
    )
    assert certainty.plan.omega == pytest.approx(plan.omega)
    for vote in certainty.layers:
        bits = [one.weight_bits[vote.name] for one in found]
        assert vote.bits == plan.weight_bits[vote.name]
        assert vote.agreeing == bits.count(vote.bits)
        assert (vote.low, vote.high) == (sorted(bits)[0], sorted(bits)[18])
    for vote in certainty.activations:
        bits = [one.activation_bits[vote.name] for one in found]
        assert vote.agreeing == bits.count(vote.bits)
    regrets = [
        analysis.plan_of(one.weight_bits, one.activation_bits).omega / plan.omega - 1
        for one in found
    ]
    np.testing.assert_allclose(certainty.regrets, np.maximum(regrets, 0), atol=1e-9)
    assert certainty.median_regret == pytest.approx(np.median(certainty.regrets))
    assert certainty.high_regret == pytest.approx(np.quantile(certainty.regrets, 0.95))
    assert any(vote.share < 1 for vote in certainty.votes)
    told = bool(certainty.layers), bool(certainty.activations)
    assert told == (cost != "activation_memory", cost != "size")


def scaled(record, factor):
    return replace(record, omega={bits: factor * x for bits, x in record.omega.items()})


def test_limits_leave_some_no_choice() -> None:
    analysis = varied(BOTH)
    budget = analysis.uniform(4).size_bytes
    limits = {"locked": {"fc": 5}, "tied": [["fc", "layer2.0.conv2"]]}
    votes = {vote.name: vote for vote in Certainty.of(analysis, {"size": budget}, **limits).layers}
    assert [name for name, vote in votes.items() if not vote.free] == ["layer2.0.conv2", "fc"]
    assert votes["fc"].certain
    assert votes["fc"].bits == 5


@pytest.mark.parametrize("budgets", [("size", "bops"), ("activation_peak",)])
def test_several_budgets_and_the_peak_are_kept_to(budgets) -> None:
    analysis = varied(BOTH, spread=0.5)
    asked = {cost: analysis.uniform(4, 4).costs[cost] for cost in budgets}
    told = []
    certainty = Certainty.of(analysis, asked, draws=4, progress=lambda *x: told.append(x))
    best = analysis.within(asked)
    assert certainty.plan.weight_bits == best.weight_bits
    assert certainty.plan.activation_bits == best.activation_bits
    assert certainty.budgets == asked
    assert told[-1] == (5, 5, "draws of the mini-batches")


def test_layers_joined_in_too_many_ways_go_the_long_way(monkeypatch) -> None:
    analysis = varied(BOTH, spread=0.5)
    budget = {"bops": middle(analysis, "bops").costs["bops"]}
    short = Certainty.of(analysis, budget, draws=4)

    def refuse(*_, **__):
        raise TooMany

    monkeypatch.setattr(module, "least_omegas", refuse)
    assert Certainty.of(analysis, budget, draws=4).votes == short.votes


@settings(max_examples=10, deadline=None)
@given(st.floats(1e-3, 1e3), st.integers(0, 1000))
def test_a_factor_common_to_all_traces_changes_nothing(factor, seed) -> None:
    one, other = (varied(BOTH, spread=0.8, seed=seed, factor=x) for x in (1.0, factor))
    budget = {"bops": middle(one, "bops").costs["bops"]}
    votes = [Certainty.of(analysis, budget, draws=20).votes for analysis in (one, other)]
    assert votes[0] == votes[1]


def test_an_error_common_to_all_layers_leaves_everything_certain_but_not_the_band() -> None:
    rng = np.random.default_rng(0)
    common = rng.uniform(0.5, 1.5, (WEIGHTS.batch_traces.shape[0], 1))
    shaken = replace(WEIGHTS, batch_traces=np.abs(WEIGHTS.batch_traces) * common)
    layers = [replace(x, trace=replace(x.trace, sem=0.0)) for x in WEIGHTS.layers]
    shaken = replace(shaken, layers=tuple(layers))
    plan = middle(WEIGHTS)
    certainty = Certainty.of(shaken, {"size": plan.size_bytes}, draws=50)
    assert certainty.undecided == ()
    low, high = omega_band(shaken, [plan], draws=200)
    assert low[0] < plan.omega < high[0]
    assert high[0] - low[0] > 0.1 * plan.omega


def test_the_band_is_percentiles_of_redrawn_sums() -> None:
    analysis = varied(BOTH)
    plans = [middle(analysis), middle(analysis, activations=8), analysis.uniform(None, 4)]
    redrawn = Redrawn.of(analysis, draws=60, seed=2)
    low, high = omega_band(analysis, plans, draws=60, seed=2)
    for i, plan in enumerate(plans):
        sums = []
        for weights, inputs in zip(redrawn.weights, redrawn.inputs, strict=True):
            total = 0.0
            for layer, factor in zip(analysis.layers, weights, strict=True):
                if plan.weight_bits:
                    total += factor * layer.omega[plan.weight_bits[layer.name]]
            for x, factor in zip(analysis.activations, inputs, strict=True):
                if plan.activation_bits:
                    total += factor * x.omega[plan.activation_bits[x.name]]
            sums.append(total)
        np.testing.assert_allclose((low[i], high[i]), np.percentile(sums, (2.5, 97.5)))


def test_a_share_of_draws_has_an_error() -> None:
    vote = Vote("fc", 4, agreeing=190, draws=200, low=4, high=5, free=True)
    assert (vote.share, vote.certain) == (0.95, True)
    assert vote.interval == wilson_interval(190, 200)
    assert not replace(vote, agreeing=189).certain


def test_draws_follow_from_the_seed() -> None:
    analysis = varied(WEIGHTS, spread=1.0)
    budget = {"size": middle(analysis).size_bytes}
    one, same, other = (Certainty.of(analysis, budget, seed=seed) for seed in (0, 0, 1))
    assert one.votes == same.votes
    assert (one.draws, one.seed, other.seed) == (200, 0, 1)
    assert (one.regrets == same.regrets).all()
    assert (one.regrets != other.regrets).any()


def test_bad_arguments_are_named() -> None:
    budget = {"size": middle(WEIGHTS).size_bytes}
    with pytest.raises(ValueError, match="draws must be at least 2, got 1: 200 are usual"):
        Certainty.of(WEIGHTS, budget, draws=1)
    single = replace(WEIGHTS, batch_sizes=np.array([32]), batch_traces=WEIGHTS.batch_traces[:1])
    sentence = "analysis must hold at least 2 mini-batches, got 1: analyze more images"
    with pytest.raises(ValueError, match=sentence):
        Certainty.of(single, budget)
    without = replace(BOTH, activation_batch_traces=np.zeros((0, 0)))
    with pytest.raises(ValueError, match=r"activations\] \(8, 4\), got \(0, 0\): analyze again"):
        Certainty.of(without, budget)
    with pytest.raises(ValueError, match=r"budgets must name one of size, .* at least, got none"):
        Certainty.of(WEIGHTS, {})
    with pytest.raises(ValueError, match="budget must be at least"):
        Certainty.of(WEIGHTS, {"size": 1.0})
