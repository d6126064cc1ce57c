"""The way from a network to a small one in five steps: what is done, and what comes next."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from engine.results import BitPlan, metric_text
from hawq_viz.viewmodels import runs
from hawq_viz.viewmodels.checklist import plain
from hawq_viz.viewmodels.export import packed_of
from hawq_viz.viewmodels.plans import size_text

if TYPE_CHECKING:
    from engine.jobs import RunView

DONE, NOW, LATER = "done", "now", "later"
RECENT = 8  # runs that are listed
CHOOSE, ANALYZE, PICK, QUANTIZE, TAKE = range(5)
STEP_OF = {"analyze": ANALYZE, "quantize": QUANTIZE, "finetune": QUANTIZE, "export": TAKE}
PAGES = ("home", "sensitivity", "frontier", "quantize", "export", "runs")


@dataclass(frozen=True)
class Step:
    """One step of the way."""

    title: str
    why: str
    state: str  # done, now or later
    label: str  # of its button
    page: str  # that the button leads to, one of `PAGES`

    @property
    def next(self) -> bool:
        """Whether it is what to do now."""
        return self.state == NOW


CHOSEN = Step(
    "Choose",
    "Start with a trained network, and images like those it has learned from.",
    DONE,
    "Choose another",
    "home",
)
WAY = (
    CHOSEN,
    Step(
        "Analyse",
        "Some layers bear rounding, others do not. One number a layer, its Hessian trace, says "
        "which.",
        LATER,
        "Analyse it",
        "sensitivity",
    ),
    Step(
        "Pick a plan",
        "A plan says how many bits each layer keeps. The frontier has the best plan of every size.",
        LATER,
        "Pick a plan",
        "frontier",
    ),
    Step(
        "Quantize",
        "Round the weights as planned, train them a little to make up for it, and measure what is "
        "left.",
        LATER,
        "Quantize it",
        "quantize",
    ),
    Step(
        "Take away",
        "See what the plan has cost against others, and download the small network.",
        LATER,
        "Take it away",
        "export",
    ),
)
AGAIN = ("Choose another", "See it", "Pick another", "See it", "Compare runs")  # labels once done


def steps(
    analyzed: bool, picked: bool, seen: Sequence["RunView"], workload: str
) -> tuple[Step, ...]:
    """The five steps of a network; at most one of them is to be done now, none if all are done.

    Args:
        analyzed: Whether it has an analysis.
        picked: Whether a plan has been picked in this view.
        seen: Runs, of any network.
        workload: The network.
    """
    own = [run for run in seen if run.workload == workload]
    kinds = {run.kind for run in own if run.state == "finished"}
    quantized = not kinds.isdisjoint(runs.QUANTIZING)
    launched = any(run.kind in runs.QUANTIZING for run in own)
    done = (True, analyzed, picked or launched, quantized, "export" in kinds)
    now = done.index(False) if False in done else None
    live = next((run for run in own if run.state in runs.LIVE and run.kind in STEP_OF), None)
    if live is not None:
        now = STEP_OF[live.kind]
    way = []
    for place, (step, is_done) in enumerate(zip(WAY, done, strict=True)):
        if is_done:
            page = "runs" if place == TAKE else step.page
            step = replace(step, state=DONE, label=AGAIN[place], page=page)
        if place == now:
            label = "Watch it" if live is not None else step.label
            step = replace(step, state=NOW, label=label, page=WAY[place].page)
        way.append(step)
    return tuple(way)


def stands_out(way: Sequence[Step]) -> Step:
    """The step whose button is the next action; where all is done, to compare."""
    return next((step for step in way if step.next), way[TAKE])


def latest(seen: Sequence["RunView"], workload: str) -> "RunView | None":
    """The newest run of a network, where it is at work or did not come to its end."""
    newest = next((run for run in seen if run.workload == workload and run.kind in STEP_OF), None)
    return newest if newest is not None and newest.state != "finished" else None


def comes_first(run: "RunView | None", plan: BitPlan | None) -> bool:
    """Whether what an ended run asks for is the next action, before any step.

    Args:
        run: As `latest` gives it.
        plan: That is picked, if one can be.
    """
    if run is None or run.state in runs.LIVE:
        return False
    return run.kind not in runs.QUANTIZING or plan is None or runs.is_of(run, plan)


@dataclass(frozen=True)
class Line:
    """A run in the list of recent ones, and the page that shows it."""

    icon: str
    kind: str
    name: str  # of the plan, or which network
    state: str
    outcome: str
    when: str
    page: str
    view: dict[str, str]  # what that page has to show, as fields of a view


def in_a_row(line: Line) -> str:
    """A recent run as a link says it."""
    told = [line.state, line.outcome] if line.outcome else [line.state]
    return f"**{line.kind}** of {plain(line.name)} · {' · '.join(told)} · {line.when}"


KINDS = {
    "check": ("Look", ":material/checklist:"),
    "analyze": ("Analysis", ":material/bar_chart:"),
    "quantize": ("Rounding", ":material/compress:"),
    "finetune": ("Fine-tuning", ":material/model_training:"),
    "export": ("Files", ":material/inventory_2:"),
}


def recent(seen: Sequence["RunView"]) -> list[Line]:
    """The newest runs, of all networks."""
    return [_line(run, seen) for run in seen[:RECENT]]


def _line(run: "RunView", seen: Sequence["RunView"]) -> Line:
    kind, icon = KINDS[run.kind]
    of = run
    if run.kind == "export":
        of = next((one for one in seen if one.id == run.options.get("of")), run)
    named = runs.run_name(of) if "plan" in of.options else "all layers"
    page, view = _shown_on(run, of)
    return Line(
        icon,
        kind,
        f"{run.workload}, {named}",
        run.state,
        _outcome(run),
        runs.when(run),
        page,
        {"workload": run.workload, **view},
    )


def _shown_on(run: "RunView", of: "RunView") -> tuple[str, dict[str, str]]:
    """The page that shows a run, and what of the view it has to be told."""
    if run.kind == "check":
        return "home", {}
    if run.kind == "analyze":
        return "sensitivity", {"analysis" if run.state == "finished" else "run": run.id}
    plan = of.options.get("plan", {})
    bits = {
        name: "".join(map(str, plan.get(field, {}).values()))
        for name, field in (("bits", "weight_bits"), ("abits", "activation_bits"))
    }
    return WAY[STEP_OF[run.kind]].page, {"run": of.id, **bits}


def _outcome(run: "RunView") -> str:
    """What came out, in a word or two; nothing before there is anything."""
    if run.kind == "check":
        told = run.results.get("checklist", {}).get("findings")
        return "" if told is None else f"{len(told)} findings"
    if run.kind == "analyze":
        told = run.results.get("analysis", {})
        return f"{told['layers']} layers, {told['images']:,} images" if told else ""
    if run.kind == "export":
        file = packed_of(run)
        return size_text(file.file_bytes) if file is not None else ""
    found = [run.results[name] for name in runs.OUTCOMES[run.kind] if name in run.results]
    return metric_text(found[0].get("metric", ""), found[0]["value"]) if found else ""
