"""A run as one HTML file: what was done, what came out, and how to make it again.

Everything is read from the run's folder and the analysis its plan was made from; nothing is
computed anew but frontiers, and no torch is needed.
"""

import json
import math
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

import pandas as pd

from engine import jobs
from engine.analysis import Analysis
from engine.latency import FLOAT_BITS
from engine.results import BitPlan, Evaluation, FormatError, Provenance
from engine.workloads import stored_analysis
from hawq_viz.document import (
    Html,
    chart,
    code,
    document,
    facts,
    folded,
    paragraph,
    section,
    table,
)
from hawq_viz.figures import bits, finetune, frontier, quantize, sensitivity
from hawq_viz.figures.costs import KIB, NAMES, cost_of, cost_text
from hawq_viz.viewmodels import activations, analyses, costs, export, measured, plans, runs
from hawq_viz.viewmodels import training as training_words
from hawq_viz.viewmodels.studies import Study

NETWORKS = {
    "float": "float32",
    "plan": "the plan, rounded",
    "uniform": "uniform bits, rounded",
    "finetuned": "the plan, fine-tuned",
}
OMEGA_AGREES = 1e-9  # relative: of one analysis Ω comes out the same but for its last digits


def report(run: jobs.RunView, analysis: Analysis | None = None) -> str:
    """The report of a finished run.

    Args:
        run: Of any kind that measures.
        analysis: That its plan was made from, as `analysis_of` finds it; without one, the report
            says so in place of sensitivities and frontier.

    Raises:
        ValueError: If the run has not finished, or has nothing of its own to report.
    """
    if run.kind not in ("analyze", *runs.QUANTIZING):
        raise ValueError(
            f"run must be an analysis, a quantization or a fine-tuning to be reported, got "
            f"{run.id}, which is none: name the run it was made from."
        )
    if run.state != "finished":
        raise ValueError(
            f"run must have finished to be reported, got {run.id}, which is {run.state}: "
            "wait for its end, or resume it."
        )
    if run.kind == "analyze":
        assert analysis is not None  # the run has made it
        title = f"Sensitivities of {run.workload}"
        parts = [*_sensitivities(analysis), _frontier(analysis, None), _again(run, None, analysis)]
        return document(title, [_origin(run), paragraph(_analyzed(analysis)), *parts])
    plan = runs.planned(run)
    title = f"{run.workload} at {plans.size_text(plan.size_bytes)}, {runs.bits_text(asdict(plan))}"
    parts = [
        _origin(run),
        _done(run, plan, analysis),
        *_measured(run),
        *_bits(plan, analysis),
        *([_frontier(analysis, plan), *_sensitivities(analysis)] if analysis else [_without()]),
        _again(run, plan, analysis),
    ]
    return document(title, parts)


def analysis_of(run: jobs.RunView) -> Analysis | None:
    """The analysis that a run's plan was made from; None if it is not here any more.

    It is the one by which the plan's bits have the plan's Ω: the analysis that comes with the
    network, or one that a run has made.

    Raises:
        FormatError: If the run is an analysis whose file is damaged.
    """
    if run.kind == "analyze":
        return Analysis.load(run.artefact("analysis.json"))
    plan = runs.planned(run)
    for candidate in _candidates(run):
        with suppress(ValueError):  # of other layers or bit widths
            again = candidate.plan_of(plan.weight_bits, plan.activation_bits)
            if abs(again.omega - plan.omega) <= OMEGA_AGREES * abs(plan.omega):
                return candidate
    return None


def _candidates(run: jobs.RunView) -> Iterable[Analysis]:
    if run.workload_file is None:
        with suppress(FormatError):
            yield Analysis.load(stored_analysis(run.workload))
    for other in jobs.list_runs():
        if analyses.is_analysis(other, run.workload) and other.workload_file == run.workload_file:
            with suppress(FormatError):
                yield Analysis.load(other.artefact("analysis.json"))


def _origin(run: jobs.RunView) -> Html:
    called = f"It is called “{run.title}”." if run.title else ""
    return paragraph(f"Report of the run {run.id}, begun {runs.when(run)}.", called, run.remark)


def _analyzed(analysis: Analysis) -> str:
    """What an analysis was, in two sentences."""
    inputs = f" and {len(analysis.activations)} of their inputs" if analysis.activations else ""
    return (
        f"The average Hessian traces of {len(analysis.layers)} layers{inputs} of "
        f"{analysis.workload} were estimated from {analysis.images:,} images, each used once. "
        f"The standard error is {analysis.median_relative_sem:.0%} in the median layer and "
        f"{analysis.worst_relative_sem:.0%} in the worst."
    )


def _done(run: jobs.RunView, plan: BitPlan, analysis: Analysis | None) -> Html:
    """The whole run in one paragraph."""
    inputs = f"; what they read is rounded in {len(plan.activation_bits)} places."
    says = (
        f"{run.workload} was quantized after training: the weights of {len(plan.weight_bits)} "
        f"layers take {plans.size_text(plan.size_bytes)}"
    )
    if analysis is not None:
        summary = plans.summarize(analysis, plan)
        says += f", {summary.compression} smaller than float32, at {summary.average_bits}"
    says += inputs if plan.activation_bits else "; what they read stays float."
    if run.kind == "finetune":
        told = run.results["training"]
        trained = f"Then it was trained for {told['steps']:,} steps."
        verdict = training_words.training_verdict(run)
    else:
        trained, verdict = "", measured.verdict(run)
    return paragraph(says, export.chosen_because(plan), trained, verdict)


def _measured(run: jobs.RunView) -> list[Html]:
    """What was measured on the test images, and how the training went."""
    found = {
        name: Evaluation.from_json(run.results[name]) for name in NETWORKS if name in run.results
    }
    images = measured.images_sentence(found)
    parts = [table(_measured_table(run, found), f"{images} Intervals hold 95 %.")]
    if run.kind == "quantize":
        figure = quantize.accuracies(found, measured.network_names(run.options))
        parts.insert(0, chart(figure, measured.accuracies_alt(found, run.options)))
        return [section("What was measured", *parts)]
    course = training_words.course(run)
    curves = [
        chart(
            finetune.accuracy([course]),
            training_words.accuracy_alt([course]),
            training_words.READ_ACCURACY,
        ),
        chart(
            finetune.loss([course]),
            training_words.loss_alt([course]),
            training_words.READ_LOSS,
        ),
        folded(
            "The numbers as a table",
            table(training_words.measurement_table([course]), "Measurements on the way"),
        ),
        facts(training_words.done(run), "What was done"),
    ]
    return [section("What was measured", *parts), section("How the training went", *curves)]


def _measured_table(run: jobs.RunView, found: Mapping[str, Evaluation]) -> pd.DataFrame:
    """One row a network."""
    rows = []
    for name, evaluation in found.items():
        plan = run.options.get("plan" if name == "finetuned" else name)
        low, high = evaluation.interval
        rows.append(
            {
                "network": NETWORKS[name],
                "bits": runs.bits_text(plan) if plan else f"{FLOAT_BITS} bits",
                "weights (KiB)": plan["size_bytes"] / KIB if plan else math.nan,
                f"{evaluation.metric_name} (%)": 100 * evaluation.value,
                "95 % from": 100 * low,
                "to": 100 * high,
                "loss": evaluation.loss,
                "± (standard error)": evaluation.loss_sem,
                "images": evaluation.samples,
            }
        )
    return pd.DataFrame(rows)


def _bits(plan: BitPlan, analysis: Analysis | None) -> list[Html]:
    """Bits of each layer."""
    if analysis is None:
        rows = [{"layer": name, "bits": bits} for name, bits in plan.weight_bits.items()]
        rows += [
            {"layer": f"input of {name}", "bits": bits}
            for name, bits in plan.activation_bits.items()
        ]
        return [section("Bits", table(pd.DataFrame(rows), "From the input to the output"))]
    figure = chart(
        bits.plan_bits(analysis, plan), plans.plan_alt(plan), costs.how_to_read_bits(plan)
    )
    numbers = table(plans.plan_table(analysis, plan), "Bits of each layer and what they cost")
    return [section("Bits", figure, folded("The numbers as a table", numbers))]


def _frontier(analysis: Analysis, plan: BitPlan | None) -> Html:
    """The plans there are, and the chosen one among them."""
    cost = _cost(analysis, plan)
    fixed = {}
    if plan is not None:
        fixed = plan.weight_bits if cost.startswith("activation") else plan.activation_bits
    study = Study.of(analysis, cost, fixed=fixed)
    figure = frontier.frontier(
        analysis,
        study.frontier,
        cost=cost,
        picked=plan,
        overlays=study.overlays,
        uniform=study.uniform,
    )
    best, most = study.frontier.cost[0], study.frontier.cost[-1]
    says = f"{len(study.frontier):,} plans from {cost_text(cost, best)} to {cost_text(cost, most)}"
    if plan is not None:
        ratio = study.above_frontier(plan) if study.comparable(plan) else 1.0
        says += (
            f"; the chosen one has {cost_text(cost, cost_of(plan, cost))} and Ω {plan.omega:.3g}"
        )
        says += f", {ratio:.2f}× the least at that cost" if ratio > 1.0005 else ""
    told = (
        f"{NAMES[cost].capitalize()} against Ω. Each point is one choice of bits for all layers; "
        "none that costs no more has a smaller Ω. Half of Ω is the predicted rise of the loss."
    )
    numbers = table(plans.frontier_table(study), "Some of these plans, evenly along the frontier")
    return section(
        "The plans there are",
        paragraph(f"{says}."),
        chart(figure, f"{NAMES[cost].capitalize()} against Ω, log axis: {says}.", told),
        folded("The numbers as a table", numbers),
    )


def _cost(analysis: Analysis, plan: BitPlan | None) -> str:
    """The cost over which a plan is shown: that it was chosen by, where one was."""
    if plan is None or not plan.activation_bits or not analysis.activations:
        return "size"
    chosen = plan.made_by.get("cost")
    if chosen in ("size", "bops", "activation_memory", "activation_peak"):  # a table has the rest
        return str(chosen)
    return "bops" if plan.weight_bits else "activation_memory"


def _sensitivities(analysis: Analysis) -> list[Html]:
    """Traces with their intervals and Ω, of weights and of inputs; how they were found."""
    says = [_plain(analyses.exactness(analysis)), _plain(analyses.below_error(analysis))]
    parts = [
        paragraph(*says),
        chart(
            sensitivity.traces(analysis),
            analyses.traces_alt(analysis),
            analyses.READ_TRACES,
        ),
        folded("The traces as a table", table(analyses.trace_table(analysis), "Average traces")),
        chart(
            sensitivity.omega_heatmap(analysis),
            analyses.omegas_alt(analysis),
            "Ω is the trace times what rounding moves the weights, squared.",
        ),
        folded("Ω as a table", table(analyses.omega_table(analysis), "Ω at each bit width")),
    ]
    weights = section("How sensitive the weights are", *parts)
    if not analysis.activations:
        return [weights]
    inputs = [
        paragraph(_plain(activations.exactness(analysis))),
        chart(
            sensitivity.activation_traces(analysis, half=False),
            activations.traces_alt(analysis),
            "The same for one value of a layer's input, at the first layer that reads it.",
        ),
        folded("The traces as a table", table(activations.trace_table(analysis), "Average traces")),
        chart(
            sensitivity.activation_heatmap(analysis, half=False),
            activations.omegas_alt(analysis),
            "Ω of rounding the input. The first-order term in the table is not in Ω.",
        ),
        folded("Ω as a table", table(activations.omega_table(analysis), "Ω at each bit width")),
    ]
    return [weights, section("How sensitive their inputs are", *inputs)]


def _without() -> Html:
    return section(
        "How sensitive the layers are",
        paragraph(
            "The analysis that the plan was made from is not here any more, so neither "
            "sensitivities nor the frontier can be shown."
        ),
    )


def _again(run: jobs.RunView, plan: BitPlan | None, analysis: Analysis | None) -> Html:
    """Commands, settings, seeds, data and versions."""
    parts: list[Html] = []
    commands: dict[str, str] = {}
    if analysis is not None:
        commands["the analysis"] = analysis.provenance.command
        parts.append(facts(analyses.settings(analysis), "How the sensitivities were found"))
    if plan is not None:
        if "command" in plan.made_by:
            commands["the plan"] = plan.made_by["command"]
        parts += [
            facts(_quantizer(plan), "How weights and inputs were rounded"),
            folded("The plan in Python", code(export.plan_again(plan))),
            folded("plan.json, for --plan", code(plans.plan_file(plan).decode())),
        ]
    made: dict[str, Provenance] = {"the analysis": analysis.provenance} if analysis else {}
    for name, found in run.results.items():
        if name in NETWORKS:
            made[NETWORKS[name]] = Evaluation.from_json(found).provenance
            commands[NETWORKS[name]] = made[NETWORKS[name]].command
    lines = [f"# {name}\n{command}" for name, command in commands.items()]
    parts.insert(0, code("\n".join(lines)))
    parts.append(table(_provenances(made), "Data, seeds and versions"))
    options = json.dumps(
        {x: y for x, y in run.options.items() if x not in ("plan", "uniform")}, indent=1
    )
    parts.append(folded("What the run was told", code(options)))
    return section("How to make it again", *parts)


def _quantizer(plan: BitPlan) -> dict[str, Any]:
    told = {name.replace("_", " "): value for name, value in plan.quantizer.items()}
    return told or {"quantizer": "its usual settings"}


def _provenances(made: Mapping[str, Provenance]) -> pd.DataFrame:
    """One row a result: on which images, by which versions."""
    return pd.DataFrame(
        {
            "result": name,
            "images": found.data,
            "their fingerprint": found.fingerprint,
            "seed": str(found.seed),
            "made": found.created.replace("T", " "),
            "versions": ", ".join(f"{x} {version}" for x, version in found.versions.items()),
        }
        for name, found in made.items()
    )


def _plain(markdown: str) -> str:
    """A sentence for the pages without its marks."""
    return markdown.replace("`", "")
