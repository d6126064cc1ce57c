"""One run of any kind in words: what was asked, what came out, where to go on with it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pandas as pd

from engine.recipe import Recipe
from engine.results import BitPlan
from hawq_viz.figures.costs import cost_text, plan_text
from hawq_viz.viewmodels import export, measured, training
from hawq_viz.viewmodels.measured import evaluation_of
from hawq_viz.viewmodels.plans import short
from hawq_viz.viewmodels.run_table import what
from hawq_viz.viewmodels.runs import bits_text, duration, plan_of, when

if TYPE_CHECKING:
    from engine.jobs import RunView

UNREADABLE = "It has finished, but what it found cannot be read: run it once more."
STAGES = {  # result → whose it is
    "float": "float32",
    "plan": "the plan, rounded",
    "uniform": "uniform bits, rounded",
    "finetuned": "the plan, fine-tuned",
}


def asked(run: "RunView") -> dict[str, str]:
    """What a run was asked to do."""
    told = {"What": what(run), "Network": run.workload}
    if (plan := plan_of(run)) is not None:
        omega = short(plan["omega"], 3)
        told["Plan"] = f"{cost_text('size', plan['size_bytes'])}, {bits_text(plan)}, Ω {omega}"
        told["Bits in forward order"] = plan_text(BitPlan(**plan)).removeprefix("bits ")
        told |= dict(_rounding(plan))
    if "of" in run.options:
        told["Of the run"] = str(run.options["of"])
    told |= dict(_settings(run))
    told["Made"] = when(run)
    if run.seconds:
        told["Worked for"] = duration(run.seconds)
    return told | {"Id": run.id}


def _rounding(plan: dict) -> Iterator[tuple[str, str]]:
    quantizer = plan.get("quantizer") or {}
    if quantizer:
        yield "Rounding", ", ".join(f"{name} {value}" for name, value in quantizer.items())
    made = dict(plan.get("made_by") or {})
    if isinstance(made.get("budget"), int | float):
        made["budget"] = cost_text(made.get("cost", "size"), made["budget"])
    chosen = ", ".join(
        f"{name} {made[name]}" for name in ("cost", "budget", "uniform") if name in made
    )
    if chosen:
        yield "Plan made by", chosen


def _settings(run: "RunView") -> Iterator[tuple[str, str]]:
    yield "Images", "its own" if run.workload_file else str(run.options.get("data", "sample"))
    usual = Recipe() if run.kind == "finetune" else None
    for name, value in run.options.items():
        if name in ("plan", "uniform", "of", "data", "recipe", "seed") or value is None:
            continue
        mark = " (usual)" if usual and getattr(usual, name, None) == value else ""
        yield name.replace("_", " ").capitalize(), f"{value}{mark}"
    if run.kind in ("analyze", "finetune"):
        yield "Seed", str(run.options.get("seed") or 0)


def found_table(run: "RunView") -> pd.DataFrame:
    """One row a network that it has measured so far."""
    rows = []
    for name, words in STAGES.items():
        if (found := evaluation_of(run, name)) is not None:
            low, high = found.interval
            rows.append(
                {
                    "network": words,
                    f"{found.metric_name} (%)": 100 * found.value,
                    "95 % from": 100 * low,
                    "to": 100 * high,
                    "loss": found.loss,
                    "± standard error": found.loss_sem,
                    "images": found.samples,
                }
            )
    return pd.DataFrame(rows)


def source(run: "RunView") -> dict[str, str]:
    """Where its numbers come from: images, versions, the command that makes them again."""
    found = next(filter(None, (evaluation_of(run, name) for name in reversed(STAGES))), None)
    if found is None:
        return {}
    made = found.provenance
    return {
        "Measured on": f"{found.samples:,} images: {made.data}",
        "Fingerprint": made.fingerprint,
        "Versions": ", ".join(f"{name} {number}" for name, number in made.versions.items()),
        "Made": made.created.replace("T", " "),
        "Command": made.command,
    }


def verdict(run: "RunView") -> str:
    """What a finished run has shown, in a sentence, as Markdown."""
    try:
        if run.kind == "finetune":
            return training.training_verdict(run)
        if run.kind == "quantize":
            return measured.verdict(run)
        if run.kind == "export":
            return export.verdict(run)
        if run.kind == "analyze":
            return _analyzed(run)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError):
        return UNREADABLE
    return "It has finished."


def _analyzed(run: "RunView") -> str:
    found = run.results["analysis"]
    error, inputs = found["median_relative_sem"], found.get("activations") or 0
    says = f"The traces of {found['layers']:,} layers"
    says += f" and {inputs:,} of their inputs" if inputs else ""
    says += f" were estimated from {found['images']:,} images"
    return says + (f", to {error:.0%} in the median layer." if error is not None else ".")


PAGES = {  # kind → page that shows it, and what to say of it
    "check": ("home", "See it on Home"),
    "analyze": ("sensitivity", "Show it on Sensitivity"),
    "quantize": ("quantize", "Open it on Quantize"),
    "finetune": ("quantize", "Open it on Quantize"),
    "export": ("export", "Open it on Export"),
}
