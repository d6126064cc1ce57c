"""Fine-tuning in words and tables: what it is told, how it goes, what it brought."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import pandas as pd

from engine.latency import FLOAT_BITS
from engine.recipe import ACTIVATION_RANGES, BATCH_NORMS, OPTIMIZERS, STEP_SIZES, Recipe
from engine.results import BitPlan, Evaluation, metric_text
from hawq_viz.figures.costs import KIB
from hawq_viz.figures.finetune import ACCURACY, Course, thinned
from hawq_viz.viewmodels.measured import ROUNDING, points_apart, rounded_so
from hawq_viz.viewmodels.runs import RECIPES, bits_text, duration, plain, recipe_of, run_name

if TYPE_CHECKING:
    from engine.jobs import RunView

EPOCHS = {"quick": 1, "full": 3}
LEGEND_LETTERS = 60  # of a name in a legend
LOSS_ROWS = 200  # of the table behind the loss chart

# What a custom recipe may set, with its words; a blank one is left to the engine.
CHOICES = {
    "optimizer": ("Optimizer", OPTIMIZERS),
    "step_sizes": ("Step sizes", STEP_SIZES),
    "batch_norm": ("Batch norm", BATCH_NORMS),
    "activation_ranges": ("Ranges of inputs", ACTIVATION_RANGES),
}
NUMBERS = {
    "epochs": "Epochs",
    "learning_rate": "Learning rate",
    "distillation": "Distillation, 0 … 1",
    "batch_size": "Images a step",
    "weight_decay": "Weight decay",
    "clip_norm": "Longest gradient",
    "evaluate_every": "Steps between tests",
    "seed": "Seed",
}
WHOLE = ("batch_size", "evaluate_every", "seed")
NAMES = {"float": "float32", "plan": "post-training", "finetuned": "fine-tuned"}
STOPPED = {
    "steps": "all steps were done",
    "diverged": "the loss diverged",
}
READ_ACCURACY = (  # how to read the charts
    "Thick: a fixed part of the test images, with its 95 % interval. Thin: training images held "
    "back; they alone choose the ★ step, which is kept."
)
READ_LOSS = "Thin: each mini-batch. Thick: their running average."


def usual(name: str) -> str:
    """What the engine takes where a custom recipe says nothing."""
    if name in ("seed", "learning_rate", "distillation", "evaluate_every"):
        by_itself = {
            "seed": "0",
            "learning_rate": "of the optimizer",
            "distillation": "of the loss",
            "evaluate_every": "20 tests in all",
        }
        return by_itself[name]
    value = getattr(Recipe(), name)
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def finetune_options(
    plan: BitPlan, recipe: str, data: str, custom: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a fine-tuning run is told.

    Args:
        plan: What is fine-tuned.
        recipe: "quick", "full" or "custom".
        data: Which images.
        custom: Settings by name, None where the engine's own is wanted; only read by "custom".

    Raises:
        ValueError: If a setting is out of range.
    """
    chosen = {name: value for name, value in (custom or {}).items() if value is not None}
    if recipe == "custom":
        plan = rounded_so(plan, chosen)
        chosen = {name: value for name, value in chosen.items() if name not in ROUNDING}
    settings: dict[str, Any] = chosen if recipe == "custom" else {"epochs": EPOCHS[recipe]}
    Recipe(**{name: value for name, value in settings.items() if name != "seed"})
    return {"plan": asdict(plan), "data": data, "recipe": recipe, **settings}


def course(run: "RunView") -> Course:
    """What a run has told so far, for the charts."""
    name = run_name(run)
    return Course.of(run, name if len(name) <= LEGEND_LETTERS else f"{name[: LEGEND_LETTERS - 1]}…")


def trained(run: "RunView") -> dict[str, Evaluation]:
    """What a run has measured on all test images so far: float, plan, finetuned."""
    return {name: Evaluation.from_json(run.results[name]) for name in NAMES if name in run.results}


def training_table(shown: Sequence["RunView"], parameters: int) -> pd.DataFrame:
    """One row a network on all test images: float32 once, then each run's, before and after."""
    rows = []
    for run in shown:
        for name, found in trained(run).items():
            if name == "float" and run is not shown[0]:
                continue
            plan = run.options["plan"]
            whole = name == "float"
            bits = f"{FLOAT_BITS} bits" if whole else bits_text(plan)
            low, high = found.interval
            size = parameters * FLOAT_BITS / 8 if whole else plan["size_bytes"]
            rows.append(
                {
                    "network": NAMES[name] if whole else f"{bits}, {NAMES[name]}",
                    "size (KiB)": size / KIB,
                    f"{found.metric_name} (%)": 100 * found.value,
                    "95 % from": 100 * low,
                    "to": 100 * high,
                    "loss": found.loss,
                    "± s.e.": found.loss_sem,
                }
            )
    return pd.DataFrame(rows)


def training_verdict(run: "RunView", others: Iterable["RunView"] = ()) -> str:
    """What a finished run has shown, in a sentence; and against each finished run over it."""
    tuned = trained(run)["finetuned"]
    against = [("float32", (run, "float")), ("rounding alone", (run, "plan"))]
    for other in others:
        bits = bits_text(other.options["plan"])
        same = bits == bits_text(run.options["plan"])
        against.append((plain(run_name(other)) if same else bits, (other, "finetuned")))
    reached = metric_text(tuned.metric, tuned.value)
    apart = points_apart((run, "finetuned"), against, ": ", ", ")
    says = f"Fine-tuned, the plan reaches {reached}{apart}"
    if run.results["training"]["stopped_because"] == "diverged":
        kept = run.results["training"]["best_step"]
        says += f" The loss diverged, so step {kept:,} was kept: try a lower learning rate."
    return says


def images_sentence(run: "RunView") -> str:
    """Which test images the table is about."""
    found = next(iter(trained(run).values()))
    return f"On all {found.samples:,} test images: {found.provenance.data}."


def done(run: "RunView") -> dict[str, str]:
    """What a finished run did, in words."""
    told, options = run.results["training"], run.options
    settings = [
        f"{name.replace('_', ' ')} {options[name]}"
        for name in (*CHOICES, *NUMBERS)
        if options.get(name) is not None and name not in ("epochs", "seed")
    ]
    epochs = options.get("epochs", Recipe().epochs)
    steps, seconds = told["steps"], told["seconds"]
    rate = f", {steps / seconds:.3g} a second" if seconds else ""
    return {
        "Recipe": ", ".join([RECIPES[recipe_of(run)].partition(":")[0], *settings]),
        "Epochs": f"{epochs:g}",
        "Images": str(options.get("data", "sample")),
        "Seed": str(options.get("seed", 0)),
        "Steps": f"{steps:,}{rate}",
        "Best step": f"{told['best_step']:,}, by the held-back images",
        "Stopped because": STOPPED.get(told["stopped_because"], told["stopped_because"]),
        "Time taken": duration(seconds),
        "Command": trained(run)["finetuned"].provenance.command,
    }


def measurement_table(courses: Iterable[Course]) -> pd.DataFrame:
    """One row a measurement on the way."""
    return pd.DataFrame(
        {
            "run": course.name,
            "step": row["step"],
            "test images (%)": 100 * row["test"]["value"],
            "95 % from": 100 * row["test"]["low"],
            "to": 100 * row["test"]["high"],
            "held-back images (%)": 100 * row["held_out"]["value"],
            "best so far": row["best"],
        }
        for course in courses
        for row in course.measurements
    )


def loss_table(courses: Sequence[Course]) -> pd.DataFrame:
    """Some rows of the loss, evenly along the way, with the last."""
    return pd.DataFrame(
        {"run": course.name, "step": row["step"], "loss": row["loss"]}
        for course in courses
        for row in thinned(course.losses, LOSS_ROWS // len(courses))
    )


def accuracy_alt(courses: Sequence[Course]) -> str:
    """The chart of the metric in words."""
    says = []
    for course in courses:
        if not course.measurements:
            says.append(f"{course.name}: nothing measured yet")
            continue
        first, last = course.measurements[0]["test"], course.measurements[-1]
        now = last["test"]
        says.append(
            f"{course.name}: from {first['value']:.1%} at step {course.measurements[0]['step']:,} "
            f"to {now['value']:.1%} ({now['low']:.1%} to {now['high']:.1%}) "
            f"at step {last['step']:,}"
        )
    if reference := courses[0].reference:
        says.append(f"float32: {reference['test']['value']:.1%}")
    metric = courses[0].metric
    what = "Accuracy" if metric == ACCURACY else metric
    return f"{what} against training steps. " + "; ".join(says) + "."


def loss_alt(courses: Sequence[Course]) -> str:
    """The loss chart in words."""
    says = [
        f"{course.name}: {course.losses[0]['loss']:.3g} at step {course.losses[0]['step']:,}, "
        f"{course.losses[-1]['loss']:.3g} at step {course.losses[-1]['step']:,}"
        for course in courses
        if course.losses
    ]
    return "Training loss against steps. " + ("; ".join(says) or "No step yet") + "."
