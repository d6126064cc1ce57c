"""Fine-tune uniform and HAWQ-V2 plans of the same size over some seeds, and keep what came out.

    python docs/finetuning.py --epochs 1 --seeds 0 1 2

Writes `finetuning.json` beside this after every training and takes it up where it was cut, within
a training too; `results.py` makes the table of it. The settings are `engine.Recipe`'s own. The test
images choose nothing: they measure each network once it is done.
"""

import argparse
import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from torch import nn

from engine import Analysis, BitPlan, Recipe, Workload, evaluate, finetune, load_workload, quantize
from engine.evaluation import correct_images, measured_precision
from engine.finetuning import Checkpoint, Finished, Measurement
from engine.outcomes import paired_difference
from engine.workloads import stored_analysis

WORKLOAD = "resnet20-cifar10"
AVERAGE_BITS = (3, 4)
METHODS = {"uniform": "uniform", "omega": "HAWQ-V2"}
VARIANTS: dict[str, dict[str, Any]] = {  # in words → what differs from the recipe
    "the default": {},
    "batch norms live": {"batch_norm": "live"},
    "labels alone": {"distillation": 0.0},
    "SGD": {"optimizer": "sgd"},
    "step sizes fixed": {"step_sizes": "fixed"},
}
VARIANT_EPOCHS, VARIANT_BITS = 0.5, 3  # of the HAWQ-V2 plan, one seed
KEYS = ("bits", "method", "seed", "variant")  # of a row
FOLDER = Path(__file__).parent


def plans(analysis: Analysis) -> dict[tuple[int, str], BitPlan]:
    """Uniform bits, and the least Ω of no larger size."""
    found = {}
    for bits in AVERAGE_BITS:
        uniform = analysis.uniform(bits)
        found[bits, "uniform"] = uniform
        found[bits, "omega"] = analysis.frontier().within(uniform.size_bytes)
    return found


def packed(correct: np.ndarray) -> str:
    """Whether each image is right, as hexadecimal digits of four images each."""
    return np.packbits(correct).tobytes().hex()


def unpacked(text: str, images: int) -> np.ndarray:
    """Undo `packed`."""
    return np.unpackbits(np.frombuffer(bytes.fromhex(text), dtype=np.uint8))[:images].astype(bool)


def train(
    workload: Workload, plan: BitPlan, recipe: Recipe, seed: int, checkpoint: Path
) -> dict[str, Any]:
    """Train one network, and measure it on every test image."""
    started, curve = perf_counter(), []
    spent_file = checkpoint.with_suffix(".seconds")
    spent = float(spent_file.read_text()) if checkpoint.exists() else 0.0
    curve_file = checkpoint.with_suffix(".curve.json")
    if checkpoint.exists():
        curve = json.loads(curve_file.read_text())
    end: Any = None
    for event in finetune(workload, plan, recipe, seed=seed, checkpoint=checkpoint):
        if isinstance(event, Measurement):
            values = event.held_out.value, event.test.value
            curve = [row for row in curve if row[0] < event.step] + [[event.step, *values]]
            print(
                f"  step {event.step}: held out {values[0]:.2%}, test {values[1]:.2%}", flush=True
            )
        elif isinstance(event, Checkpoint):
            spent_file.write_text(str(spent + perf_counter() - started))
            curve_file.write_text(json.dumps(curve))
        elif isinstance(event, Finished):
            end = event
    seconds = spent + perf_counter() - started
    row = {
        "seed": seed,
        "evaluation": asdict(evaluate(end.model, workload, command=command())),
        **compared(end.model, workload),
        "steps": end.step,
        "best_step": end.best_step,
        "stopped_because": end.stopped_because,
        "seconds": round(seconds, 1),
        "curve": curve,
    }
    for file in (checkpoint, spent_file, curve_file):
        file.unlink()
    return row


def compared(model: nn.Module, workload: Workload) -> dict[str, Any]:
    """What networks are compared by, test image by test image."""
    if workload.metric == "mAP":
        return {"precision": asdict(measured_precision(model, workload))}
    return {"correct": packed(correct_images(model, workload))}


class Stored(dict[str, Any]):
    """What was measured, in a JSON file."""

    def __init__(self, file: Path) -> None:
        super().__init__(json.loads(file.read_text()) if file.exists() else {})
        self.file = file

    def keep(self) -> None:
        """Write all of it; a reader sees the old file or the new."""
        self["date"] = f"{datetime.now(UTC):%Y-%m-%d}"
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self, indent=1) + "\n")
        part.replace(self.file)

    def measure_float(self, workload: Workload) -> None:
        """The network as it was trained, once."""
        if "float" not in self:
            found = evaluate(workload.model, workload, command=command())
            self["float"] = {"evaluation": asdict(found), **compared(workload.model, workload)}
            self.keep()

    def train_all(
        self, workload: Workload, plans: Mapping[str, BitPlan], recipe: Recipe, seeds: Sequence[int]
    ) -> None:
        """Train each plan with each seed, but for what is stored."""
        self["recipe"] = asdict(recipe)
        rows = self.setdefault("trained", [])
        for seed in seeds:
            for name, plan in plans.items():
                if any((row["plan"], row["seed"]) == (name, seed) for row in rows):
                    continue
                print(name, seed, flush=True)
                checkpoint = self.file.with_name(f"{self.file.stem}-{name}-{seed}.checkpoint.pt")
                row = train(workload, plan, recipe, seed, checkpoint)
                print(f"  {row['evaluation']['value']:.2%}", flush=True)
                rows.append({"plan": name, "bits": asdict(plan), **row})
                self.keep()


def command() -> str:
    """That makes the results again."""
    return shlex.join(["python", f"docs/{Path(sys.argv[0]).name}", *sys.argv[1:]])


def section(stored: Mapping[str, Any]) -> list[str]:
    """The part of `results.md` on fine-tuning, from what was stored."""
    rows = stored["rows"]
    reference, images = stored["float"], stored["float"]["evaluation"]["samples"]
    right = {
        (bits, method): [
            unpacked(row["correct"], images)
            for row in rows
            if (row["bits"], row["method"]) == (bits, method) and "variant" not in row
            if "seed" in row
        ]
        for bits in AVERAGE_BITS
        for method in METHODS
    }
    rounded = {
        (row["bits"], row["method"]): row["evaluation"]["value"]
        for row in rows
        if "seed" not in row and "variant" not in row
    }
    seeds = len(right[AVERAGE_BITS[0], "uniform"])
    recipe, value = stored["recipe"], reference["evaluation"]["value"]
    float_right = unpacked(reference["correct"], images)
    lines = [
        "## ResNet20 on CIFAR-10, weights fine-tuned",
        "",
        f"{recipe['epochs']:g} epoch of the training images ({stored['steps']} steps of "
        f"{recipe['batch_size']}), {seeds} seeds. Top-1 on {images:,} test images, mean over the "
        "seeds (each in brackets); differences in points with their 95 % intervals, paired over "
        "the test images: one that holds 0 leaves open which is better. Each pair of plans has the "
        "same size and the same recipe.",
        "",
        "| average bits | plan | rounded only | fine-tuned | against float | against uniform |",
        "|---|---|---|---|---|---|",
    ]
    for (bits, method), found in right.items():
        each = ", ".join(f"{x.mean():.2%}" for x in found)
        ahead = "" if method == "uniform" else points(found, right[bits, "uniform"])
        lines.append(
            f"| {bits} | {METHODS[method]} | {rounded[bits, method]:.2%} | "
            f"**{np.mean(found):.2%}** ({each}) | {points(found, [float_right])} | {ahead} |"
        )
    lines += variants([row for row in rows if "variant" in row], images)
    minutes = sum(row.get("seconds", 0) for row in rows) / 60
    made = reference["evaluation"]["provenance"]
    versions = ", ".join(f"{name} {number}" for name, number in made["versions"].items())
    settings = ", ".join(f"{k} {v}" for k, v in recipe.items() if v is not None)
    lines += [
        "",
        f"The float network reaches {value:.2%} on the same images. Batch norms are folded and "
        "frozen, step sizes learn, and the float network alone teaches (no labels). The best "
        "network is chosen on training images held back; the test images measure it once.",
        "",
        f"Recipe: {settings}.",
        "",
        f"Made by `{made['command']}` on {stored['date']} in {minutes:.0f} minutes of training "
        f"on two cores that other work shared; {versions}; {made['data']}, "
        f"fingerprint {made['fingerprint']}. "
        "Every measurement is in [finetuning.json](finetuning.json).",
        "",
    ]
    return [line.replace("%", " %").replace("95  %", "95 %") for line in lines]


def variants(rows: list[dict[str, Any]], images: int) -> list[str]:
    """What the defaults were chosen by."""
    if not rows:
        return []
    right = {row["variant"]: unpacked(row["correct"], images) for row in rows}
    default = right["the default"]
    lines = [
        "",
        f"What each default is worth: the HAWQ-V2 plan of {VARIANT_BITS} average bits after "
        f"{VARIANT_EPOCHS:g} epoch, one seed, one setting changed at a time.",
        "",
        "| setting | top-1 | against the default |",
        "|---|---|---|",
    ]
    for name, found in right.items():
        ahead = "" if name == "the default" else points([found], [default])
        lines.append(f"| {name} | {found.mean():.2%} | {ahead} |")
    return lines


def points(ours: list[np.ndarray], theirs: list[np.ndarray]) -> str:
    """A difference in points with its interval."""
    mean, (low, high) = paired_difference(ours, theirs)
    return f"{100 * mean:+.2f} ({100 * low:+.2f} to {100 * high:+.2f})"


def main() -> None:
    """Train what is not stored yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--epochs", type=float, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", choices=("full", "sample"), default="full")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the results go")
    arguments = parser.parse_args()
    workload = load_workload(WORKLOAD, arguments.data)
    recipe, file = Recipe(epochs=arguments.epochs), arguments.folder / "finetuning.json"
    stored = Stored(file)
    if Recipe(**stored.setdefault("recipe", asdict(recipe))) != recipe:
        sys.exit(f"{file} is of another recipe: delete it to start anew.")
    rows = stored.setdefault("rows", [])
    stored.measure_float(workload)
    found = plans(Analysis.load(stored_analysis(WORKLOAD)))
    tasks: list[tuple[dict[str, Any], BitPlan, Recipe | None]] = []  # what, and how if trained
    for seed in (None, *arguments.seeds):
        for (bits, method), plan in found.items():
            key = {"bits": bits, "method": method} | ({} if seed is None else {"seed": seed})
            tasks.append((key, plan, None if seed is None else recipe))
    for name, settings in VARIANTS.items():
        key = {"bits": VARIANT_BITS, "method": "omega", "seed": 0, "variant": name}
        how = Recipe(epochs=VARIANT_EPOCHS * arguments.epochs, **settings)
        tasks.append((key, found[VARIANT_BITS, "omega"], how))
    for key, plan, how in tasks:
        if key in [{name: row[name] for name in KEYS if name in row} for row in rows]:
            continue
        print(key, flush=True)
        if how is None:
            rounded = evaluate(quantize(workload, plan), workload, command=command())
            row: dict[str, Any] = {"plan": asdict(plan), "evaluation": asdict(rounded)}
        else:
            name = "-".join(str(value).replace(" ", "-") for value in key.values())
            checkpoint = arguments.folder / f"finetuning-{name}.checkpoint.pt"
            row = train(workload, plan, how, key["seed"], checkpoint)
            if "variant" not in key:
                stored["steps"] = row["steps"]
        print(f"  {row['evaluation']['value']:.2%}", flush=True)
        rows.append(key | row)
        stored.keep()


if __name__ == "__main__":
    main()
