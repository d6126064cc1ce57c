"""Measure what post-training can do on all of CIFAR-10's test images, and write `posttraining.md`.

    python docs/posttraining.py

Ranges, learned rounding and corrections, each by name as `quantize` takes it, for uniform bits and
for the HAWQ-V2 plan of the same size. Finished measurements are kept in `posttraining.json`; delete
it to measure again.
"""

import argparse
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from results import cell

from engine import Analysis, BitPlan, evaluate, load_workload, quantize
from engine.rounding import IMAGES, ITERATIONS
from engine.workloads import describe_data, stored_analysis

WORKLOAD = "resnet20-cifar10"
COMMAND = "python docs/posttraining.py"
UNIFORM_BITS = (4, 3)
FOLDER = Path(__file__).parent
METHODS: dict[str, dict[str, str]] = {
    "range min_max": {"weight_range": "min_max"},
    "range percentile": {"weight_range": "percentile"},
    "range mse (default)": {},
    "+ correction bias": {"correction": "bias"},
    "+ correction batch_norm": {"correction": "batch_norm"},
    "+ rounding learned": {"rounding": "learned"},
    "+ rounding learned, correction batch_norm": {
        "rounding": "learned",
        "correction": "batch_norm",
    },
}


def plans_of(analysis: Analysis) -> dict[str, BitPlan]:
    """Uniform bits, and the HAWQ-V2 plan of at most that size."""
    plans = {}
    for bits in UNIFORM_BITS:
        uniform = analysis.uniform(bits)
        plans[f"uniform, {bits} bits"] = uniform
        plans[f"HAWQ-V2, {bits} bits on average"] = analysis.frontier().within(uniform.size_bytes)
    return plans


def table(found: Mapping[str, Any], plans: Mapping[str, BitPlan], about: Mapping[str, str]) -> str:
    """The page, from what was measured."""
    reference = found["float"]["evaluation"]
    lines = [
        "# Post-training, measured",
        "",
        "## ResNet20 on CIFAR-10, weights only",
        "",
        f"Top-1 on {reference['samples']:,} test images with 95 % intervals (Wilson), and the "
        "processor seconds that `quantize` took. Symmetric, one scale per output channel, all "
        "layers quantized. No test image chose anything, no label is used: corrections and learned "
        f"rounding see {IMAGES} calibration images, drawn by seed 0; rounding is learned in "
        f"{ITERATIONS:,} steps a layer.",
        "",
        f"The float network reaches {cell(reference)}.",
        "",
        "| | "
        + " | ".join(f"{name} ({p.size_bytes / 2**10:.0f} KiB)" for name, p in plans.items()),
        "|---" * (len(plans) + 1) + "|",
    ]
    lines[-2] += " |"
    for method in METHODS:
        cells = []
        for name in plans:
            row = found[f"{name}: {method}"]
            cells.append(f"{cell(row['evaluation'])}, {row['seconds']:.0f} s")
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    made = reference["provenance"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    lines += [
        "",
        "* *range*: how far each grid reaches; the others take the range of least squared error.",
        "* *bias*: each layer's output has the float network's mean per channel (Nagel et al., "
        "2019). *batch_norm*: its standard deviation too.",
        "* *rounding learned*: AdaRound (Nagel et al., 2020), layer by layer; codes change, "
        "scales do not.",
        "* Ω is of weights rounded to the nearest. Where their rounding is learned, it no longer "
        "tells which plan errs less; and an output's mean without its spread may be worse than "
        "neither, as with uniform 3 bits.",
        "",
        f"Made by `{COMMAND}` on {made['created'][:10]}, {platform.machine()}; {versions}; "
        f"calibration {about['data']}, fingerprint {about['fingerprint']}; test {made['data']}, "
        f"fingerprint {made['fingerprint']}. Every plan and measurement is in "
        "[posttraining.json](posttraining.json).",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure what is not measured yet, and write."""
    torch.set_num_threads(1)  # processor seconds then mean what they say
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", choices=("full", "sample"), default="full")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    arguments = parser.parse_args()
    workload = load_workload(WORKLOAD, arguments.data)
    command = COMMAND if arguments.data == "full" else f"{COMMAND} --data {arguments.data}"
    analysis = Analysis.load(stored_analysis(WORKLOAD))
    plans, file = plans_of(analysis), arguments.folder / "posttraining.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}

    def measure(name: str, plan: BitPlan | None, settings: Mapping[str, str]) -> None:
        if name in found:
            return
        start = time.process_time()
        model = workload.model if plan is None else quantize(workload, plan, **settings)
        seconds = time.process_time() - start
        evaluation = asdict(evaluate(model, workload, command=command))
        done = asdict(model.plan) if plan is not None else None
        found[name] = {"plan": done, "seconds": seconds, "evaluation": evaluation}
        file.write_text(json.dumps(found, indent=1) + "\n")
        print(f"{name}: {cell(evaluation)}, {seconds:.0f} s", flush=True)

    measure("float", None, {})
    for method, settings in METHODS.items():
        for name, plan in plans.items():
            measure(f"{name}: {method}", plan, settings)
    data, fingerprint = describe_data(workload.calibration)
    about = {"data": data, "fingerprint": fingerprint}
    (arguments.folder / "posttraining.md").write_text(table(found, plans, about))


if __name__ == "__main__":
    main()
