"""Any run in words: what it is, how far, and what to do next."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from engine.jobs.options import QUANTIZING as QUANTIZING
from engine.results import BitPlan, metric_text
from hawq_viz.viewmodels.plans import size_text

if TYPE_CHECKING:
    from engine.jobs import RunView

RECIPES = {
    "quick": "Quick: 1 epoch",
    "full": "Full: 3 epochs",
    "custom": "Custom",
    "post": "Post-training only",
}
NO_RECIPE = "post"  # a run of kind "quantize": rounded and measured, nothing trained
LIVE = ("queued", "running")
TITLES = {"check": "the look at the network", "analyze": "the analysis", "export": "the files"}
BITS_OF = ("weight_bits", "activation_bits")  # fields of a plan


@dataclass(frozen=True)
class Action:
    """The one obvious thing to do with a run."""

    name: str  # cancel, resume, finetune or another
    label: str
    icon: str
    why: str


ACTIONS = {
    action.name: action
    for action in (
        Action("cancel", "Cancel", ":material/stop:", "Stop; what is done so far is kept"),
        Action("resume", "Resume", ":material/play_arrow:", "Go on with it"),
        Action("finetune", "Fine-tune it", ":material/model_training:", "One epoch, same images"),
        Action("another", "Pick another plan", ":material/timeline:", "Back to the frontier"),
    )
}


def next_action(run: "RunView") -> Action:
    """What to do now: the same for every run of that kind in that state."""
    if run.state in LIVE:
        name = "cancel"
    elif run.state != "finished":
        name = "resume"
    else:
        name = "finetune" if run.kind == "quantize" else "another"
    return ACTIONS[name]


def asks_first(run: "RunView", plan: BitPlan) -> bool:
    """Whether what a run asks for comes before a launch of the picked plan."""
    if run.state in LIVE:
        return True
    return is_of(run, plan) and next_action(run).name != "another"


def state_text(run: "RunView") -> str:
    """How a run ended that did not finish: the sentence, and the next step."""
    if run.state == "cancelled":
        where = f" after {run.done:,} of {run.total:,} {run.note}" if run.total else ""
        says = f"Cancelled{where}."
    else:
        says = run.error or "It ended without a word."
    does = "goes on from its last checkpoint" if run.kind == "finetune" else "does it once more"
    return f"{says}  \n**Next:** “{ACTIONS['resume'].label}” {does}."


def plain(text: str) -> str:
    """A text for a place that reads Markdown, which shows it as it stands."""
    shown = re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", text)
    return shown.replace("\n", "  \n")


def run_title(run: "RunView") -> str:
    """Any run in a sentence: what people call it, else what it is. For plain text, as all here."""
    if run.title:
        return run.title
    return f"{TITLES[run.kind]} of {when(run)}" if run.kind in TITLES else run_name(run)


def run_name(run: "RunView") -> str:
    """A run of a plan for a legend: what people call it, else what it is of."""
    return run.title or facts(run)


def facts(run: "RunView") -> str:
    """What a run of a plan is of: size, bits, recipe, seed."""
    if (plan := plan_of(run)) is None:
        return "a plan that cannot be read"
    recipe = RECIPES[recipe_of(run)].partition(":")[0].lower()
    parts = [size_text(plan["size_bytes"]), bits_text(plan), recipe]
    quantizer = plan.get("quantizer", {})
    if quantizer.get("rounding", "nearest") != "nearest":
        parts.append(f"{quantizer['rounding']} rounding")
    if quantizer.get("correction", "none") != "none":
        parts.append(f"{quantizer['correction'].replace('_', ' ')} corrected")
    if quantizer.get("sums", "float") != "float":
        parts.append(f"{quantizer['sums']} sums")
    if run.kind == "finetune":
        parts.append(f"seed {run.options.get('seed') or 0}")
    return " · ".join(parts)


def listed_name(run: "RunView", plan: BitPlan | None = None) -> str:
    """A run in a list: what it is, what came out, when; marked if it is of this plan."""
    found = [run.results[name] for name in OUTCOMES[run.kind] if name in run.results]
    outcome = metric_text(found[0].get("metric", ""), found[0]["value"]) if found else ""
    told = outcome if run.state == "finished" else run.state
    picked = plan is not None and is_of(run, plan)
    mark = " · picked plan" if picked else ""
    called = f"{run.title} · {facts(run)}" if run.title else facts(run)
    return f"{called}: {told}{mark} ({when(run)})"


def any_name(run: "RunView") -> str:
    """Any run in a list of all: what it is, of which network, when."""
    return f"{run_title(run)} · {run.workload} ({when(run)})"


OUTCOMES = {"quantize": ("plan",), "finetune": ("finetuned",)}


def recipe_of(run: "RunView") -> str:
    """The recipe a run follows; one that came from elsewhere is a custom one."""
    if run.kind == "quantize":
        return NO_RECIPE
    recipe = run.options.get("recipe")
    return recipe if isinstance(recipe, str) and recipe in RECIPES else "custom"


def bits_text(plan: Mapping[str, Any]) -> str:
    """Bits of a plan, given by its fields, in a word or two.

    The first activation is the network's input, which may keep its own bits.
    """
    weights, inputs = (list(plan.get(name, {}).values()) for name in BITS_OF)
    if not inputs:
        return ("uniform " if len(set(weights)) == 1 else "") + f"{_span(weights)} bits"
    inputs = inputs[1:] or inputs
    sides = [f"{side}{_span(bits)}" for side, bits in (("W", weights), ("A", inputs)) if bits]
    same = all(len(set(bits)) <= 1 for bits in (weights, inputs))
    return f"uniform {''.join(sides)}" if same else " ".join(sides)


def _span(bits: Sequence[int]) -> str:
    low, high = min(bits), max(bits)
    return str(low) if low == high else f"{low}–{high}"


def plan_of(run: "RunView") -> Mapping[str, Any] | None:
    """The fields of the plan that a run was given; None if it has none that can be read."""
    plan = run.options.get("plan")
    try:
        BitPlan(**plan)
        bits_text(plan)
        return plan if math.isfinite(plan["size_bytes"] + plan["omega"]) else None
    except (TypeError, ValueError, AttributeError, KeyError):
        return None


def is_of(run: "RunView", plan: BitPlan) -> bool:
    """Whether a run is of a plan's bits."""
    own = plan_of(run)
    return own is not None and all(own.get(name, {}) == getattr(plan, name) for name in BITS_OF)


def when(run: "RunView") -> str:
    """When a run was made, on the clock of this machine."""
    made = made_at(run)
    return made.strftime("%-d %b %H:%M:%S") if made else run.created


def made_at(run: "RunView") -> datetime | None:
    """The same as a moment; None where a damaged run does not know."""
    try:
        return datetime.fromisoformat(run.created).astimezone()
    except (ValueError, OverflowError):
        return None


def duration(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes / 60:.1f} h"


def runs_of(
    seen: Iterable["RunView"], kinds: Iterable[str], workload: str, plan: BitPlan | None = None
) -> list["RunView"]:
    """Those of these kinds and a workload, and of a plan's bits if one is given, in their order."""
    return [
        run
        for run in seen
        if run.kind in kinds and run.workload == workload and (plan is None or is_of(run, plan))
    ]


def watched(seen: Iterable["RunView"], kind: str, workload: str, run_id: str) -> "RunView | None":
    """The run to show: the one in the URL, else the newest that is not over."""
    own = runs_of(seen, (kind,), workload)
    named = [run for run in own if run.id == run_id]
    alive = [run for run in own if run.state in LIVE]
    return next(iter(named + alive), None)


def share_done(run: "RunView") -> float:
    """How much of a run is done, 0…1."""
    return min(1.0, run.done / run.total) if run.total else 0.0


def progress_text(run: "RunView") -> str:
    """How far a run is, in a line: its place in the queue, or done, rate and time left."""
    if run.cancelling:
        return "Cancelling …"
    if run.state == "queued":
        ahead = f"{run.place} run{'s' if run.place != 1 else ''} ahead" if run.place else "next"
        return f"Queued: {ahead}."
    if not run.total:
        return "At work …" if run.results else "Starting a worker …"
    says = f"{run.note}: {run.done:,} of {run.total:,}"
    if run.note.endswith("steps") and (rate := run.steps_per_second):
        says += f", {rate:.3g} steps/s"
    if run.eta_seconds is not None:
        says += f", about {duration(run.eta_seconds)} left"
    return says


def in_turn(seen: Iterable["RunView"]) -> list["RunView"]:
    """Those at work, then those that wait, the next first."""
    alive = [run for run in seen if run.state in LIVE]
    return sorted(alive, key=lambda run: (run.state == "queued", run.place, run.created))


def queue_text(waiting: Sequence["RunView"]) -> str:
    """How many work and wait."""
    queued = sum(run.state == "queued" for run in waiting)
    return f"Queue: {len(waiting) - queued} at work, {queued} waiting"


def planned(run: "RunView") -> BitPlan:
    """The plan that a run was given."""
    return BitPlan(**run.options["plan"])
