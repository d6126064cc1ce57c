"""Measure a detector with rounded weights and activations, and keep it for `results.py`.

    python docs/detection.py rounded    # with no training
    python docs/detection.py trained    # fine-tuned over some seeds

Writes `detection.json` beside this; what is stored is not measured again. Test images choose
nothing.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetuning import Stored, command

from engine import Analysis, BitPlan, Recipe, load_workload, quantize
from engine.detection import Precision, precision_difference
from engine.evaluation import measured_precision
from engine.workloads import stored_analysis

WORKLOAD = "retinanet-shapes"
BITS = 4
EPOCHS, BATCH_SIZE, EVALUATE_EVERY, EVALUATION_IMAGES = 0.5, 32, 56, 500
SEEDS = (0, 1, 2)
FOLDER = Path(__file__).parent
PLANS = {  # in words; the first three have the weights' size in common
    "direct": "direct: uniform W4A4",
    "weights": "HAWQ-V2 weights, A4",
    "mixed": "HAWQ-V2 weights, mixed activations",
}
WEIGHTS_ALONE = {
    "w4": "uniform W4, float activations",
    "w4_omega": "HAWQ-V2 weights, float activations",
}
OTHERS = {"w8a8": "uniform W8A8"}


def plans(analysis: Analysis) -> dict[str, BitPlan]:
    """Uniform 4 bits; and of no larger size, and memory of activations, the least Ω."""
    direct = analysis.uniform(BITS, BITS)
    size, memory = direct.size_bytes, direct.costs["activation_memory"]
    return {
        "w8a8": analysis.uniform(8, 8),
        "w4": analysis.uniform(BITS),
        "w4_omega": analysis.frontier().within(size),
        "direct": direct,
        "weights": analysis.frontier(activations=BITS).within(size),
        "mixed": analysis.separate(size, memory),
    }


def precision(stored: Mapping[str, Any]) -> Precision:
    """What `asdict` made of a measured precision."""
    return Precision(stored["value"], tuple(stored["without"]), stored["images"])


def section(stored: Mapping[str, Any]) -> list[str]:
    """The part of `results.md` on the detector, from what was stored."""
    reference, rows = stored["float"], stored["rounded"]
    made, whole = reference["evaluation"]["provenance"], precision(reference["precision"])
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    lines = [
        "## A small RetinaNet on shapes",
        "",
        f"mAP@[.5:.95] on {whole.images:,} test images with 95 % intervals (jackknife over "
        "images). Backbone, pyramid and both heads are quantized, the first and the last layers "
        "too; the image has 8 bits. The loss that traces are of is the one trained with, focal "
        "and smooth L1. *HAWQ-V2* plans are no larger than uniform 4 bits, and mixed activations "
        "need no more memory.",
        "",
        f"The float network reaches {cell(whole)}.",
        "",
        "### Rounded after training",
        "",
        "| plan | size | activations | Ω | mAP |",
        "|---|---|---|---|---|",
    ]
    words = {**OTHERS, **WEIGHTS_ALONE, **PLANS}
    for row in rows:
        plan = row["bits"]
        memory = plan["costs"]["activation_memory"] / 2**10
        held = f"{memory:.0f} KiB" if plan["activation_bits"] else "float"
        lines.append(
            f"| {words[row['plan']]} | {plan['size_bytes'] / 2**10:.0f} KiB | {held} | "
            f"{plan['omega']:.4f} | {cell(precision(row['precision']))} |"
        )
    few = [bits for bits in rows[-1]["bits"]["activation_bits"].values() if bits < BITS]
    lines += [
        "",
        f"*Mixed activations* have less Ω than uniform ones but no higher mAP here: {len(few)} of "
        "them get 2 or 3 bits, for which second order says too little on ResNet20 above.",
    ]
    lines += finetuned(stored, whole)
    commands = ", ".join(f"`{one}`" for one in stored["commands"].values())
    lines += [
        "",
        f"Made by {commands} on {stored['date']}; {versions}; {made['data']}, fingerprint "
        f"{made['fingerprint']}. Every plan and measurement is in "
        "[detection.json](detection.json).",
        "",
    ]
    return lines


def finetuned(stored: Mapping[str, Any], whole: Precision) -> list[str]:
    """The plans of uniform 4 bits' size, fine-tuned."""
    rows, recipe = stored.get("trained", []), stored.get("recipe")
    found = {
        name: [precision(row["precision"]) for row in rows if row["plan"] == name] for name in PLANS
    }
    if not all(found.values()):
        return []
    minutes = sum(row["seconds"] for row in rows) / 60
    lines = [
        "",
        "### Fine-tuned",
        "",
        f"{recipe['epochs']:g} epoch of the training images ({rows[0]['steps']} steps of "
        f"{recipe['batch_size']}), {len(found['direct'])} seeds, {minutes:.0f} minutes of training "
        "on two cores that other work shared. Mean over the seeds (each in brackets); differences "
        "in points with their 95 % intervals, paired over the test images. Step sizes learn; the "
        "targets alone teach.",
        "",
        "| plan | fine-tuned | against float | against direct |",
        "|---|---|---|---|",
    ]
    for name, own in found.items():
        each = ", ".join(f"{100 * one.value:.1f}" for one in own)
        mean = 100 * sum(one.value for one in own) / len(own)
        ahead = "" if name == "direct" else points(own, found["direct"])
        lines.append(
            f"| {PLANS[name]} | **{mean:.1f}** ({each}) | {points(own, [whole])} | {ahead} |"
        )
    return lines


def points(ours: Sequence[Precision], theirs: Sequence[Precision]) -> str:
    """A difference in points with its interval."""
    mean, (low, high) = precision_difference(ours, theirs)
    return f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def cell(found: Precision) -> str:
    """mAP and interval, times 100."""
    low, high = found.interval
    return f"{100 * found.value:.1f} ({100 * low:.1f}–{100 * high:.1f})"


def main() -> None:
    """Measure what is asked for and not stored yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("part", choices=("rounded", "trained"))
    parser.add_argument("--data", choices=("full", "sample"), default="full")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS))
    arguments = parser.parse_args()
    workload = load_workload(WORKLOAD, arguments.data)
    chosen = plans(Analysis.load(stored_analysis(WORKLOAD)))
    stored = Stored(arguments.folder / "detection.json")
    stored.setdefault("commands", {})[arguments.part] = command()
    stored.measure_float(workload)
    if arguments.part == "rounded":
        stored["rounded"] = []
        for name, plan in chosen.items():
            found = measured_precision(quantize(workload, plan), workload)
            print(f"{name}: {cell(found)}", flush=True)
            row = {"plan": name, "bits": asdict(plan), "precision": asdict(found)}
            stored["rounded"].append(row)
        stored.keep()
        return
    recipe = Recipe(
        epochs=EPOCHS,
        batch_size=BATCH_SIZE,
        evaluate_every=EVALUATE_EVERY,
        evaluation_images=EVALUATION_IMAGES,
    )
    stored.train_all(workload, {name: chosen[name] for name in PLANS}, recipe, arguments.seeds)


if __name__ == "__main__":
    main()
