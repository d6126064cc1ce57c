"""The sample networks as shipped: their cards, stored analyses, what the results say of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine import Analysis, Workload, analyze, evaluate, load_workload
from engine.detection import Precision, precision_difference
from engine.workloads import SAMPLE_MODELS, stored_analysis, workload_names

NAME = "resnet20-cifar10"
NETWORKS = {  # the least that a network must reach, its test images and its layers
    NAME: (0.91, 10_000, 22),
    "squeezenext-cifar10": (0.9006, 10_000, 41),
    "inception-cifar10": (0.90, 10_000, 61),
    "retinanet-shapes": (0.50, 2_000, 36),
}
RESULTS = Path(__file__).parents[1] / "docs" / "results.json"


@pytest.fixture(scope="module")
def workload() -> Workload:
    return load_workload(NAME)


def card_of(name: str) -> dict[str, Any]:
    return json.loads((SAMPLE_MODELS / f"{name}.json").read_text())


def test_sample_networks_are_listed_first() -> None:
    assert workload_names()[: len(NETWORKS)] == tuple(NETWORKS)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_card_says_what_its_network_reaches(name: str) -> None:
    card, (least, images, _) = card_of(name), NETWORKS[name]
    assert card["value"] >= least
    assert card["samples"] == images
    resumes = (SAMPLE_MODELS / f"{name}.checkpoint.pt").exists()
    assert card["minutes"] <= 120 or resumes or name == NAME
    last = card["log_tail"][-1]
    assert card["value"] == last[f"test_{card['metric']}"]
    assert last["epoch"] == card["recipe"]["epochs"] + card["recipe"].get("more_epochs", 0)
    workload = load_workload(name)
    assert card["parameters"] == sum(p.numel() for p in workload.model.parameters())
    low, high = evaluate(workload.model, workload).interval  # on fewer of those images
    assert low <= card["value"] <= high


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stored_analysis_is_of_the_full_training_set_at_ten_percent(name: str) -> None:
    analysis, layers = Analysis.load(stored_analysis(name)), NETWORKS[name][2]
    assert (analysis.workload, analysis.stopped_because) == (name, "target")
    assert analysis.provenance.command.startswith(f"hawq-viz analyze {name} --data full")
    assert analysis.relative_sem == 0.1
    assert analysis.median_relative_sem <= 0.1
    assert analysis.exact
    assert len(analysis.layers) == layers
    assert analysis.batch_traces.shape == (len(analysis.batch_sizes), layers)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_stored_analysis_holds_what_the_pages_show_of_a_layer(name: str) -> None:
    analysis = Analysis.load(stored_analysis(name))
    assert analysis.findings is not None
    for layer in analysis.layers:
        assert len(layer.channel_sems) == len(layer.channel_traces)
        for bits in analysis.bit_widths:
            found = analysis.weight_histogram(layer.name, bits)
            assert found is not None
            assert sum(found.counts) == layer.parameters


def test_the_sample_images_run_out_before_ten_percent(workload: Workload) -> None:
    analysis = analyze(workload, bit_widths=(2, 4, 8))
    assert (analysis.images, analysis.stopped_because) == (1000, "images")
    assert 0.1 < analysis.worst_relative_sem < 0.5
    stored = Analysis.load(stored_analysis(NAME))
    for few, many in zip(analysis.layers, stored.layers, strict=True):
        error = (few.trace.sem**2 + many.trace.sem**2) ** 0.5
        assert abs(few.trace.mean - many.trace.mean) < 5 * error
        for bits in analysis.bit_widths:
            counts = (x.weight_histogram(few.name, bits) for x in (analysis, stored))
            assert len(set(counts)) == 1


def test_the_results_are_of_this_network() -> None:
    rows = json.loads(RESULTS.read_text())
    found = {(row["bits"], row["method"]): row for row in rows}
    assert found[0, "float"]["evaluation"]["value"] == pytest.approx(
        card_of(NAME)["value"], abs=5e-4
    )
    analysis = Analysis.load(stored_analysis(NAME))
    for bits in (8, 6, 5, 4, 3):
        uniform, plan = (found[bits, method]["plan"] for method in ("uniform", "omega"))
        assert uniform["size_bytes"] == analysis.parameters * bits / 8
        assert plan["size_bytes"] <= uniform["size_bytes"]
        assert plan["weight_bits"] == analysis.frontier().within(uniform["size_bytes"]).weight_bits
    assert (
        found[3, "omega"]["evaluation"]["interval"][0]
        > found[3, "uniform"]["evaluation"]["interval"][1]
    )


def test_hawq_is_better_than_direct_quantization_of_the_detector() -> None:
    stored = json.loads((RESULTS.parent / "detection.json").read_text())
    networks: dict[str, list[Precision]] = {}
    for row in stored["trained"]:
        found = row["precision"]
        one = Precision(found["value"], tuple(found["without"]), found["images"])
        networks.setdefault(row["plan"], []).append(one)
    assert {name: len(found) for name, found in networks.items()} == dict.fromkeys(networks, 3)
    for name in ("weights", "mixed"):
        assert precision_difference(networks[name], networks["direct"])[1][0] > 0
    analysis = Analysis.load(stored_analysis("retinanet-shapes"))
    plans = {row["plan"]: row["bits"] for row in stored["rounded"]}
    direct = analysis.uniform(4, 4)
    assert plans["direct"]["activation_bits"] == direct.activation_bits
    least = analysis.frontier(activations=4).within(direct.size_bytes)
    assert plans["weights"]["weight_bits"] == least.weight_bits
    assert plans["mixed"]["size_bytes"] <= direct.size_bytes
    memory = "activation_memory"
    assert plans["mixed"]["costs"][memory] <= direct.costs[memory]
