"""The frontier against the bit configurations that the authors of HAWQ-V3 published."""

import json
from pathlib import Path

import numpy as np
import pytest
from small_analysis import make_analysis

from engine.analysis import ActivationSensitivity, Histogram, LayerSensitivity
from engine.frontier import greedy_path, monotone_frontier, pareto_frontier
from engine.joint import joint_frontier
from engine.results import TraceEstimate

PUBLISHED = json.loads((Path(__file__).parent / "published/hawq_v3_published.json").read_text())
BITS = np.array([4, 8])
IMPROVED = ("resnet50", "modelsize", 0.25)  # theirs is not the best within its budget


def costs_of(network, cost):
    figures = PUBLISHED[network]
    if cost == "modelsize":
        return np.outer(figures["params_million"], BITS)
    if cost == "bops":
        return np.outer(figures["macs_million"], BITS**2)
    return np.transpose([figures["latency_int4_T4_ms"], figures["latency_int8_T4_ms"]])


def omegas_of(network):
    figures = PUBLISHED[network]
    perturbations = np.transpose([figures["dW2_int4"], figures["dW2_int8"]])
    return np.array(figures["avg_trace"])[:, None] * perturbations


def total(values, bits):
    return sum(row[list(BITS).index(b)] for row, b in zip(values, bits, strict=True))


def budget_of(costs, share):
    cheapest, dearest = costs.sum(axis=0)
    return cheapest + share * (dearest - cheapest)


INSTANCES = [
    (network, cost, share)
    for network in ("resnet18", "resnet50")
    for cost in ("modelsize", "bops", "latency")
    for share in (0.75, 0.5, 0.25)
]


@pytest.mark.parametrize(("network", "cost", "share"), INSTANCES)
def test_published_configurations(network, cost, share):
    costs, omegas = costs_of(network, cost), omegas_of(network)
    published = PUBLISHED[network]["weight_bits"][f"{cost}_{share}"]
    budget = budget_of(costs, share)
    assert total(costs, published) <= budget

    frontier = pareto_frontier(costs, omegas, tied=PUBLISHED[network]["tied_layers"])
    i = frontier.index_within(budget)
    bits = BITS[frontier.choices(i)].tolist()

    if (network, cost, share) != IMPROVED:
        assert bits == published
        return
    assert total(omegas, published) == pytest.approx(0.08311, abs=5e-6)
    assert frontier.omega[i] == pytest.approx(total(omegas, bits))
    assert frontier.omega[i] <= 0.07495
    assert total(costs, bits) <= budget
    for pair in PUBLISHED[network]["tied_layers"]:
        assert len({bits[layer] for layer in pair}) == 1


def analysis_of(network):
    """Their figures as an analysis, in which rounding activations costs nothing."""
    figures, omegas = PUBLISHED[network], omegas_of(network)
    by_bits = [dict(zip((4, 8), map(float, own), strict=True)) for own in omegas]
    nothing = dict.fromkeys((4, 8), 0.0)
    layers, activations = [], []
    for name, omega, trace, parameters, macs in zip(
        figures["layers"],
        by_bits,
        figures["avg_trace"],
        figures["params_million"],
        figures["macs_million"],
        strict=True,
    ):
        estimate = TraceEstimate(trace, 0.0, 50, exact=True)
        n, operations = round(parameters * 2**20), round(macs * 10**6)
        layers.append(
            LayerSensitivity(name, "conv2d", (n,), n, operations, estimate, omega, omega, ())
        )
        activations.append(
            ActivationSensitivity(
                name, (name,), (1,), 1, False, False, estimate, 50, nothing, nothing, nothing,
                nothing, nothing, dict.fromkeys((4, 8), (1.0, 0.0)), Histogram(0, 1, (1,)),
            )
        )  # fmt: skip
    return make_analysis(layers=tuple(layers), activations=tuple(activations), bit_widths=(4, 8))


@pytest.mark.parametrize("share", [0.75, 0.5, 0.25])
@pytest.mark.parametrize("network", ["resnet18", "resnet50"])
def test_published_bit_operations_with_weights_and_activations_chosen(network, share):
    """HAWQ-V3 gives a layer's weight and its input the same bits, and tied layers theirs."""
    figures, omegas = PUBLISHED[network], omegas_of(network)
    published = figures["weight_bits"][f"bops_{share}"]
    costs = np.array(figures["macs_million"])[:, None, None] * BITS[:, None] * BITS
    budget = budget_of(np.stack([costs[:, 0, 0], costs[:, 1, 1]], axis=1), share)
    groups = np.arange(len(costs))
    for one, other in figures["tied_layers"]:
        groups[other] = one
    frontier = joint_frontier(
        costs,
        omegas[:, :, None] + [0, 0],
        weight_groups=groups,
        allowed=np.tile(np.eye(2), (len(costs), 1, 1)),
    )
    pairs = np.divmod(frontier.choices(frontier.index_within(budget)), 2)
    assert [BITS[own].tolist() for own in pairs] == [published, published]

    analysis = analysis_of(network)
    limits = {
        "tied": [[analysis.names[i] for i in pair] for pair in figures["tied_layers"]],
        "same_bits": True,
    }
    for plan in (
        analysis.frontier("bops", tolerance=0, **limits).within(budget * 1e6),
        analysis.within({"bops": budget * 1e6}, **limits),
    ):
        assert list(plan.weight_bits.values()) == published
        assert list(plan.activation_bits.values()) == published


def test_the_rule_of_thumb_is_up_to_77_percent_worse():
    """Bits never fewer where the trace is larger, against the best of all 2^52 plans."""
    worst_monotone = worst_greedy = 0.0
    for network, cost, share in INSTANCES:
        costs, omegas = costs_of(network, cost), omegas_of(network)
        budget = budget_of(costs, share)
        frontier = pareto_frontier(costs, omegas)
        best = frontier.omega[frontier.index_within(budget)]
        monotone = monotone_frontier(costs, omegas, PUBLISHED[network]["avg_trace"])
        greedy = greedy_path(costs, omegas)
        worst_monotone = max(worst_monotone, monotone.omega[monotone.cost <= budget].min() / best)
        worst_greedy = max(worst_greedy, greedy.omega[greedy.cost <= budget].min() / best)
    assert worst_monotone == pytest.approx(1.77, abs=0.005)
    assert 1 < worst_greedy < 1.36
