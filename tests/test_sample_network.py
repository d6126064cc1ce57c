"""The sample network as shipped: its card, its stored analysis, what the results say of it."""

import json
from pathlib import Path

import pytest

from engine import Analysis, Workload, analyze, evaluate, load_workload
from engine.workloads import SAMPLE_MODELS, stored_analysis

NAME = "resnet20-cifar10"
RESULTS = Path(__file__).parents[1] / "docs" / "results.json"


@pytest.fixture(scope="module")
def workload() -> Workload:
    return load_workload(NAME)


@pytest.fixture(scope="module")
def card() -> dict[str, object]:
    return json.loads((SAMPLE_MODELS / f"{NAME}.json").read_text())


def test_the_card_says_what_the_network_reaches(workload: Workload, card: dict) -> None:
    assert card["value"] >= 0.91
    assert card["samples"] == 10_000
    assert card["recipe"]["epochs"] <= 90
    assert card["value"] == card["log_tail"][-1]["test_top1"]
    assert card["log_tail"][-1]["epoch"] == card["recipe"]["epochs"]
    low, high = evaluate(workload.model, workload).interval  # on 1 000 of those images
    assert low <= card["value"] <= high


def test_the_stored_analysis_is_of_the_full_training_set_at_ten_percent() -> None:
    analysis = Analysis.load(stored_analysis(NAME))
    assert (analysis.workload, analysis.stopped_because) == (NAME, "target")
    assert analysis.provenance.data == "CIFAR-10, 50000 training images"
    assert analysis.relative_sem == 0.1
    assert analysis.median_relative_sem <= 0.1
    assert analysis.exact
    assert len(analysis.layers) == 22
    assert analysis.batch_traces.shape == (len(analysis.batch_sizes), 22)


def test_the_sample_images_run_out_before_ten_percent(workload: Workload) -> None:
    analysis = analyze(workload, bit_widths=(2, 4, 8))
    assert (analysis.images, analysis.stopped_because) == (1000, "images")
    assert 0.1 < analysis.worst_relative_sem < 0.5
    stored = Analysis.load(stored_analysis(NAME))
    for few, many in zip(analysis.layers, stored.layers, strict=True):
        error = (few.trace.sem**2 + many.trace.sem**2) ** 0.5
        assert abs(few.trace.mean - many.trace.mean) < 5 * error


def test_the_results_are_of_this_network(card: dict) -> None:
    rows = json.loads(RESULTS.read_text())
    found = {(row["bits"], row["method"]): row for row in rows}
    assert found[0, "float"]["evaluation"]["value"] == pytest.approx(card["value"], abs=5e-4)
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
