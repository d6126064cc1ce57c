"""Measure networks with rounded activations, and keep what came out for `results.py`.

    python docs/activations.py alone      # each activation rounded, all else float: ½Ω and measured
    python docs/activations.py rounded    # weights and activations rounded, with no training
    python docs/activations.py trained    # the same fine-tuned over some seeds

Writes `activations.json` beside this; what is stored is not measured again. Test images choose
nothing.
"""

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from finetuning import Stored, command, points, unpacked
from torch import Tensor, nn
from torch.nn import functional as F

from engine import Analysis, BitPlan, Recipe, Workload, evaluate, load_workload, quantize
from engine.activations import find_activations
from engine.calibration import calibrate, draw
from engine.layers import fold_batch_norm
from engine.roundoff import measure_roundoff
from engine.workloads import example_image, stored_analysis

WORKLOAD = "resnet20-cifar10"
ALONE_BITS = (2, 3, 4)
ALONE_IMAGES = 5000  # of the training images, which the traces are of too
BATCH = 500
EPOCHS, EVALUATE_EVERY, SEEDS = 0.5, 48, (0, 1, 2)
FOLDER = Path(__file__).parent
PLANS = {  # of W4A4's size; in words
    "uniform": "uniform W4A4",
    "omega": "HAWQ-V2, same size and BOPS",
    "mixed": "W4, mixed activations, same activation memory",
}


def plan_of(name: str, analysis: Analysis) -> BitPlan:
    """Uniform 4 bits, or a plan of least Ω that costs no more."""
    uniform = analysis.uniform(4, 4)
    if name == "uniform":
        return uniform
    if name == "omega":
        return analysis.within({cost: uniform.costs[cost] for cost in ("size", "bops")})
    mixed = analysis.frontier("activation_memory", weights=4)
    return mixed.within(uniform.costs["activation_memory"])


@torch.no_grad()
def losses(model: nn.Module, images: Tensor, targets: Tensor) -> np.ndarray:
    """Loss of each image."""
    parts = zip(images.split(BATCH), targets.split(BATCH), strict=True)
    each = [F.cross_entropy(model(x), y, reduction="none") for x, y in parts]
    return torch.cat(each).double().numpy()


def alone(workload: Workload, analysis: Analysis) -> Iterator[dict[str, Any]]:
    """Round one activation at a time: what ½Ω says of the loss, and what it does."""
    example = example_image(workload.test)
    model = fold_batch_norm(workload.model, example).eval()
    found = find_activations(model, example).found
    pairs = draw(workload.calibration, ALONE_IMAGES, seed=1)
    images = torch.stack([image for image, _ in pairs])
    targets = torch.tensor([int(target) for _, target in pairs])
    seed = int(analysis.quantizer["seed"])
    count = int(analysis.quantizer["calibration_images"])
    fitted = torch.stack([image for image, _ in draw(workload.calibration, count, seed)])
    ranges = calibrate(model, found, fitted, seed=seed)
    told = measure_roundoff(model, found, ranges, pairs, loss=workload.loss, bit_widths=ALONE_BITS)
    before = losses(model, images, targets)
    for bits in ALONE_BITS:
        for a in analysis.activations:
            plan = BitPlan(
                workload=workload.name,
                weight_bits={},
                size_bytes=0.0,
                omega=a.omega[bits],
                activation_bits={a.name: bits},
                quantizer=analysis.quantizer,
            )
            rise = losses(quantize(workload, plan), images, targets) - before
            moved, along = told[a.name].perturbation[bits], told[a.name].first_order[bits]
            yield {
                "activation": a.name,
                "bits": bits,
                "half_omega": a.trace.mean * moved[0] / 2,
                "half_omega_sem": a.trace.sem * moved[0] / 2,
                "first_order": along[0],
                "first_order_sem": along[1],
                "rise": float(rise.mean()),
                "rise_sem": float(rise.std(ddof=1) / len(rise) ** 0.5),
            }


def rounded(workload: Workload, analysis: Analysis) -> Iterator[dict[str, Any]]:
    """Measure plans with no training; sums as floats and as integers."""
    chosen = {"w8a8": analysis.uniform(8, 8), "w4": analysis.uniform(4)}
    chosen["w4a8"] = analysis.uniform(4, 8)
    chosen |= {name: plan_of(name, analysis) for name in PLANS}
    for name, plan in chosen.items():
        for sums in ("float", "integer") if plan.activation_bits else ("float",):
            model = quantize(workload, plan, sums=sums)
            yield {
                "plan": name,
                "sums": sums,
                "bits": asdict(plan),
                "evaluation": asdict(evaluate(model, workload, command=command())),
            }


def section(stored: Mapping[str, Any]) -> list[str]:
    """The part of `results.md` on activations, from what was stored."""
    made = stored["float"]["evaluation"]["provenance"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    lines = ["## ResNet20 on CIFAR-10, activations", ""]
    lines += predicted(stored["alone"])
    lines += together(stored["rounded"], stored["float"]["evaluation"]["value"])
    lines += finetuned(stored)
    commands = ", ".join(f"`{command}`" for command in stored["commands"].values())
    lines += [
        "",
        f"Made by {commands} on {stored['date']}; {versions}; {made['data']}, fingerprint "
        f"{made['fingerprint']}. Every plan and measurement is in "
        "[activations.json](activations.json).",
        "",
    ]
    return lines


def predicted(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Each activation rounded alone: what was said of the loss, and what it did."""
    found = {(row["activation"], row["bits"]): row for row in rows}
    names = list(dict.fromkeys(row["activation"] for row in rows))
    heads = [f"{b} bits: ½Ω | with first order | measured" for b in ALONE_BITS]
    lines = [
        "### One activation rounded, all else float",
        "",
        f"The rise of the mean loss on {ALONE_IMAGES:,} training images (two standard errors), "
        "against ½Ω and against ½Ω plus the first-order term E⟨g, Δa⟩, both of the same images. "
        "Traces are those of the stored analysis.",
        "",
        f"| input of | {' | '.join(heads)} |",
        "|---|" + "---|" * 3 * len(ALONE_BITS),
    ]
    for name in names:
        cells = []
        for bits in ALONE_BITS:
            row = found[name, bits]
            both = row["half_omega"] + row["first_order"]
            cells += [
                f"{row['half_omega']:.4f} (± {2 * row['half_omega_sem']:.4f})",
                f"{both:+.4f} (± {2 * _sem_of_both(row):.4f})",
                f"{row['rise']:+.4f} (± {2 * row['rise_sem']:.4f})",
            ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines.append("")
    for bits in ALONE_BITS:
        own = [row for row in rows if row["bits"] == bits]
        rises, halves = (np.array([row[key] for row in own]) for key in ("rise", "half_omega"))
        both = halves + np.array([row["first_order"] for row in own])
        ranks = [np.argsort(np.argsort(x)) for x in (halves, both, rises)]
        alike = [float(np.corrcoef(x, ranks[2])[0, 1]) for x in ranks[:2]]
        apart = [float(np.median(np.abs(x - rises))) for x in (halves, both)]
        lines.append(
            f"* {bits} bits: measured Σ {rises.sum():.4f}, ½Ω Σ {halves.sum():.4f}, with the "
            f"first-order term {both.sum():.4f}. Median distance from what is measured "
            f"{apart[0]:.5f} and {apart[1]:.5f}, rank correlation {alike[0]:.2f} and "
            f"{alike[1]:.2f}."
        )
    return lines


def _sem_of_both(row: Mapping[str, Any]) -> float:
    return float(np.hypot(row["half_omega_sem"], row["first_order_sem"]))


def together(rows: Sequence[Mapping[str, Any]], reference: float) -> list[str]:
    """Weights and activations rounded after training."""
    words = {"w8a8": "uniform W8A8", "w4a8": "uniform W4A8", "w4": "uniform W4, float activations"}
    found = {(row["plan"], row["sums"]): row for row in rows}
    lines = [
        "",
        "### Weights and activations rounded after training",
        "",
        "The image has 8 bits. *Integer sums*: what enters an addition is put on one scale, as an "
        f"integer kernel needs it. The float network reaches {_percent(reference)}. Values between "
        "two codes go one way or the other with the last digit of a sum, so another number of "
        "threads can move a few images.",
        "",
        "| plan | size | BOPS | activations | Ω | top-1 | with integer sums |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in dict.fromkeys(row["plan"] for row in rows):
        row = found[name, "float"]
        plan, integer = row["bits"], found.get((name, "integer"))
        costs = plan["costs"]
        cells = [
            f"{plan['size_bytes'] / 2**10:.0f} KiB",
            f"{costs['bops'] / 1e9:.3f} G",
            f"{costs['activation_memory'] / 2**10:.0f} KiB" if plan["activation_bits"] else "float",
            f"{plan['omega']:.4f}",
            _percent(row["evaluation"]["value"]),
            _percent(integer["evaluation"]["value"]) if integer else "",
        ]
        lines.append(f"| {({**PLANS, **words})[name]} | {' | '.join(cells)} |")
    return lines


def finetuned(stored: Mapping[str, Any]) -> list[str]:
    """The plans of W4A4's size, fine-tuned."""
    rows, reference = stored["trained"], stored["float"]
    images, recipe = reference["evaluation"]["samples"], stored["recipe"]
    right = {
        name: [unpacked(row["correct"], images) for row in rows if row["plan"] == name]
        for name in PLANS
    }
    minutes = sum(row["seconds"] for row in rows) / 60
    lines = [
        "",
        "### Fine-tuned",
        "",
        f"{recipe['epochs']:g} epoch of the training images ({rows[0]['steps']} steps of "
        f"{recipe['batch_size']}), {len(right['uniform'])} seeds, {minutes:.0f} minutes of "
        f"training on two cores that other work shared. Top-1 on {images:,} test images, mean over "
        "the seeds (each in brackets); differences in points with their 95 % intervals, paired "
        "over the test images. Scales of weights and activations learn.",
        "",
        "| plan | fine-tuned | against float | against uniform W4A4 |",
        "|---|---|---|---|",
    ]
    for name, found in right.items():
        each = ", ".join(_percent(x.mean()) for x in found)
        against = points(found, [unpacked(reference["correct"], images)])
        ahead = "" if name == "uniform" else points(found, right["uniform"])
        mean = _percent(float(np.mean(found)))
        lines.append(f"| {PLANS[name]} | **{mean}** ({each}) | {against} | {ahead} |")
    return lines


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def main() -> None:
    """Measure what is asked for and not stored yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("alone", "rounded", "trained"))
    parser.add_argument("--data", choices=("full", "sample"), default="full")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    parser.add_argument("--plans", choices=PLANS, nargs="+", default=list(PLANS))
    arguments = parser.parse_args()
    workload = load_workload(WORKLOAD, arguments.data)
    analysis = Analysis.load(stored_analysis(WORKLOAD))
    stored = Stored(arguments.folder / "activations.json")
    stored.setdefault("commands", {})[arguments.part] = command()
    stored.measure_float(workload)
    if arguments.part in ("alone", "rounded"):
        part = {"alone": alone, "rounded": rounded}[arguments.part]
        rows = []
        for row in part(workload, analysis):
            rows.append(row)
            print(json.dumps({k: v for k, v in row.items() if k not in ("bits", "evaluation")}))
            if "evaluation" in row:
                print("  ", row["evaluation"]["value"], flush=True)
        stored[arguments.part] = rows
        stored.keep()
        return
    recipe = Recipe(epochs=EPOCHS, evaluate_every=EVALUATE_EVERY)
    stored.train_all(
        workload,
        {name: plan_of(name, analysis) for name in arguments.plans},
        recipe,
        arguments.seeds,
    )


if __name__ == "__main__":
    main()
