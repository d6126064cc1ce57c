"""The frontier against the bit configurations that the authors of HAWQ-V3 published."""

import json
from pathlib import Path

import numpy as np
import pytest

from engine.frontier import greedy_path, monotone_frontier, pareto_frontier

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
