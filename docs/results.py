"""Measure rounded networks on all of CIFAR-10's test images, and write `results.md` beside this.

    python docs/results.py
    python docs/results.py --page    # only the page, from what was measured before

What `finetuning.py`, `activations.py` and `detection.py` have measured goes onto the page too.

Every plan is as large as a uniform one. Ω is compared with the plain rounding error ‖ΔW‖², of the
weights as trained and with batch norms folded into them.
"""

import argparse
import json
import platform
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import activations
import detection
import finetuning
import numpy as np

from engine import Analysis, BitPlan, Evaluation, Workload, evaluate, load_workload, quantize
from engine.frontier import pareto_frontier
from engine.layers import find_layers
from engine.perturbation import analyze, squared_error
from engine.quantizers import Quantizer
from engine.workloads import example_image, stored_analysis

WORKLOAD = "resnet20-cifar10"
COMMAND = "python docs/results.py"
UNIFORM_BITS = (8, 6, 5, 4, 3)
FOLDER = Path(__file__).parent
COLUMNS = {
    "uniform": "uniform",
    "omega": "HAWQ-V2",
    "omega_by_channel": "HAWQ-V2, Ω by channel",
    "error": "‖ΔW‖² only",
    "error_folded": "‖ΔW‖² only, folded",
}

Planner = Callable[[float], BitPlan]  # a size in bytes → the plan that fits it


def planners(workload: Workload, analysis: Analysis) -> dict[str, Planner]:
    """A way to choose bits for each column but the first."""
    by_channel = analyze(
        workload, granularity="channel", relative_sem=analysis.relative_sem, seed=0
    )
    folded = [[layer.perturbation[b] for b in analysis.bit_widths] for layer in analysis.layers]
    return {
        "omega": analysis.frontier().within,
        "omega_by_channel": by_channel.frontier().within,
        "error": planner(analysis, unfolded_errors(workload, analysis)),
        "error_folded": planner(analysis, np.array(folded)),
    }


def planner(analysis: Analysis, errors: np.ndarray) -> Planner:
    """Choose by Σ of these errors [layers, bit widths] instead of Ω."""
    _, costs, _ = analysis.options()
    return pareto_frontier(costs, errors).named(analysis.plan).within


def unfolded_errors(workload: Workload, analysis: Analysis) -> np.ndarray:
    """‖ΔW‖² of the weights as trained, before any batch norm is folded into them."""
    model, example = workload.model, example_image(workload.test)
    quantizer = Quantizer()
    errors = {
        layer.name: [
            float(squared_error(layer.channels.rows(weight), bits, quantizer).sum())
            for bits in analysis.bit_widths
        ]
        for layer in find_layers(model, example)
        for weight in [model.get_parameter(layer.parameter).detach()]
    }
    return np.array([errors[name] for name in analysis.names])


def measurements(
    workload: Workload, analysis: Analysis
) -> Iterator[tuple[int, str, BitPlan | None, Evaluation]]:
    """Measure the float network, then each plan at each size."""
    yield 0, "float", None, evaluate(workload.model, workload, command=COMMAND)
    choose = planners(workload, analysis)
    for bits in UNIFORM_BITS:
        uniform = analysis.uniform(bits)
        plans = {"uniform": uniform}
        plans |= {name: within(uniform.size_bytes) for name, within in choose.items()}
        for name, plan in plans.items():
            model = quantize(workload, plan)
            yield bits, name, plan, evaluate(model, workload, command=COMMAND)


def table(rows: list[dict[str, object]], analysis: Analysis) -> list[str]:
    """The part on rounding alone, from what was measured."""
    found = {(row["bits"], row["method"]): row for row in rows}
    reference = found[0, "float"]["evaluation"]
    lines = [
        "# Measured results",
        "",
        "## ResNet20 on CIFAR-10, weights rounded after training",
        "",
        f"Top-1 on {reference['samples']:,} test images with 95 % intervals (Wilson); no test "
        "image chose anything. Weights only, symmetric, one scale per output channel of least "
        "squared error; all layers are quantized, the first and the last too. Every plan is at "
        "most as large as the uniform one of its row.",
        "",
        f"The float network reaches {cell(reference)}.",
        "",
        "| average bits | size | " + " | ".join(COLUMNS.values()) + " |",
        "|---|---|" + "---|" * len(COLUMNS),
    ]
    for bits in UNIFORM_BITS:
        size = found[bits, "uniform"]["plan"]["size_bytes"] / 2**10
        cells = [cell(found[bits, name]["evaluation"]) for name in COLUMNS]
        lines.append(f"| {bits} | {size:.0f} KiB | " + " | ".join(cells) + " |")
    lines += [
        "",
        "* *HAWQ-V2*: least Ω = Σ Tr(H)/n · ‖ΔW‖² at that size, exactly. *By channel* sums the "
        "same over output channels, which does not change when batch norms are folded.",
        "* *‖ΔW‖² only*: least rounding error at that size, with no Hessian. Which weights it is "
        "taken of matters: those trained, or those with batch norms folded in, which are the ones "
        "that are rounded. The rounded network is the same either way, only the plan differs.",
        "",
        f"Traces: {analysis.images:,} of the training images, each once, in "
        f"{len(analysis.batch_sizes)} mini-batches; relative standard error "
        f"{analysis.median_relative_sem:.0%} in the median layer, "
        f"{analysis.worst_relative_sem:.0%} in the worst.",
        "",
        "### Predicted and measured",
        "",
        "½Ω predicts the rise of the loss to second order. Where rounding moves the weights far, "
        "as at 3 bits, the loss rises more than that, but the order of plans holds. On the test "
        "images:",
        "",
        "| average bits | uniform: ½Ω | measured | HAWQ-V2: ½Ω | measured |",
        "|---|---|---|---|---|",
    ]
    for bits in UNIFORM_BITS:
        cells = []
        for name in ("uniform", "omega"):
            row = found[bits, name]
            rise = row["evaluation"]["loss"] - reference["loss"]
            cells += [f"{row['plan']['omega'] / 2:.3g}", f"{rise:+.3g}"]
        lines.append(f"| {bits} | " + " | ".join(cells) + " |")
    made = reference["provenance"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    lines += [
        "",
        f"Made by `{COMMAND}` on {made['created'][:10]}, "
        f"{platform.machine()}; {versions}; {made['data']}, fingerprint {made['fingerprint']}; "
        f"analysis by `{analysis.provenance.command}`. Every plan and measurement is in "
        "[results.json](results.json).",
        "",
    ]
    return lines


def cell(evaluation: dict[str, object]) -> str:
    """Accuracy and interval in percent."""
    low, high = evaluation["interval"]
    return f"{evaluation['value']:.2%} ({low:.1%}–{high:.1%})".replace("%", " %")


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=("full", "sample"), default="full")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    parser.add_argument("--page", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    analysis, folder = Analysis.load(stored_analysis(WORKLOAD)), arguments.folder
    if not arguments.page:
        measure(load_workload(WORKLOAD, arguments.data), analysis, folder)
    lines = table(json.loads((folder / "results.json").read_text()), analysis)
    for part in (finetuning, activations, detection):
        stored = folder / f"{part.__name__}.json"
        if stored.exists():
            lines += part.section(json.loads(stored.read_text()))
    (folder / "results.md").write_text("\n".join(lines))


def measure(workload: Workload, analysis: Analysis, folder: Path) -> None:
    """Measure every plan, and keep it in `results.json`."""
    rows: list[dict[str, object]] = []
    for bits, method, plan, evaluation in measurements(workload, analysis):
        row = {"bits": bits, "method": method, "plan": plan and asdict(plan)}
        rows.append({**row, "evaluation": asdict(evaluation)})
        print(f"{bits} bits, {method}: {cell(asdict(evaluation))}", flush=True)
    (folder / "results.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
