"""Two runs beside each other, in words and tables: A and B."""

import json
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from engine.analysis import COSTS
from engine.recipe import Recipe
from engine.results import BitPlan
from hawq_viz.figures.costs import NAMES, cost_text
from hawq_viz.viewmodels.measured import Difference, difference, errors, evaluation_of, how
from hawq_viz.viewmodels.run_table import KINDS, OUTCOMES
from hawq_viz.viewmodels.runs import bits_text, plan_of, run_title, when

if TYPE_CHECKING:
    from engine.jobs import RunView

A, B = "A", "B"
NOT_SET = "–"
STAGES = {"plan": "rounded, before training", "float": "float32"}  # compared beside the outcome
SEED = "seed"
ONE_SIZE = 0.005  # share by which sizes may differ and still read the same


def names(a: "RunView", b: "RunView") -> tuple[str, str]:
    """What to call the two: told apart by when they were made where they are called the same."""
    found = run_title(a), run_title(b)
    if found[0] == found[1]:
        found = f"{found[0]} ({when(a)})", f"{found[1]} ({when(b)})"
    return f"{A}: {found[0]}", f"{B}: {found[1]}"


def last_measured(run: "RunView") -> str:
    """Which of its results says what a run came to; empty if none does."""
    return next((name for name in OUTCOMES if evaluation_of(run, name) is not None), "")


def verdict(a: "RunView", b: "RunView") -> str:
    """What came of B against A, in a sentence or two."""
    sizes = [plan["size_bytes"] if (plan := plan_of(run)) else 0.0 for run in (a, b)]
    says = []
    if all(sizes) and a.workload == b.workload:
        factor = sizes[1] / sizes[0]
        says.append(
            "Both are of one size."
            if abs(factor - 1) < ONE_SIZE
            else f"B has {factor:.2f}× A's size."
        )
    ended = last_measured(a), last_measured(b)
    found = difference((b, ended[1]), (a, ended[0])) if all(ended) else None
    says += why_not(a, b)
    if found is None:
        return " ".join(says)
    says.append(f"B ends {found.points} A{errors([found])}")
    return " ".join(says)


def why_not(a: "RunView", b: "RunView") -> list[str]:
    """What of the two cannot be compared, and why, in sentences."""
    says = []
    if a.workload != b.workload:
        says.append(f"They are of different networks, {a.workload} and {b.workload}.")
    seen = [evaluation_of(run, last_measured(run)) for run in (a, b)]
    missing = [name for name, found in zip((A, B), seen, strict=True) if found is None]
    if missing:
        says.append(f"{' and '.join(missing)} measured no quantized network.")
    if seen[0] is None or seen[1] is None:
        return says
    if seen[0].metric != seen[1].metric:
        says.append(f"A was measured in {seen[0].metric_name}, B in {seen[1].metric_name}.")
    if difference((a, last_measured(a)), (b, last_measured(b)), loss=True) is None:
        says.append(
            "They were measured on different images, so that no difference of accuracies is told: "
            "run one again on the images of the other."
        )
    return says


def measured_table(a: "RunView", b: "RunView") -> pd.DataFrame:
    """Quality and loss of both, as they ended and before; and the difference where it can be."""
    rows = []
    ended = last_measured(a), last_measured(b)
    stages = [("as it ended", *ended)] if any(ended) else []
    trained = "finetuned" in ended
    stages += [(words, name, name) for name, words in STAGES.items() if trained or name == "float"]
    for words, ours, theirs in stages:
        found = evaluation_of(a, ours), evaluation_of(b, theirs)
        if not any(found):
            continue
        for loss in (False, True):
            told = difference((b, theirs), (a, ours), loss=loss)
            metric = next(x.metric_name for x in found if x)
            rows.append(
                {
                    "network": words,
                    "of": "loss" if loss else metric,
                    A: _measured(found[0], loss=loss),
                    B: _measured(found[1], loss=loss),
                    "B − A": _difference(told, loss=loss),
                    "interval": how(told.paired) if told else "cannot be told",
                }
            )
    return pd.DataFrame(rows)


def _measured(found: Any, *, loss: bool) -> str:
    if found is None:
        return NOT_SET
    if loss:
        return f"{found.loss:.4f} ± {found.loss_sem:.4f}"
    low, high = found.interval
    return f"{found.value:.2%} ({low:.1%} … {high:.1%})"


def _difference(found: Difference | None, *, loss: bool) -> str:
    if found is None:
        return NOT_SET
    low, high = found.interval
    if loss:
        return f"{found.mean:+.4f} ({low:+.4f} … {high:+.4f})"
    return f"{100 * found.mean:+.2f} ({100 * low:+.2f} … {100 * high:+.2f}) points"


def costs_table(a: "RunView", b: "RunView") -> pd.DataFrame:
    """Every cost that either plan has, with Ω; and B as a multiple of A."""
    plans = [plan_of(run) or {} for run in (a, b)]
    told = [{**plan.get("costs", {}), "size": plan["size_bytes"]} if plan else {} for plan in plans]
    rows = [
        _cost_row(NAMES[cost].capitalize(), *(x.get(cost) for x in told), cost)
        for cost in COSTS
        if any(cost in x for x in told)
    ]
    rows += [_cost_row("Ω", *(plan.get("omega") for plan in plans), "")] if any(plans) else []
    return pd.DataFrame(rows, columns=["cost", A, B, "B / A"])


def _cost_row(name: str, ours: float | None, theirs: float | None, cost: str) -> dict[str, str]:
    def text(value: float | None) -> str:
        if value is None:
            return NOT_SET
        return cost_text(cost, value) if cost else f"{value:.3g}"

    ratio = f"{theirs / ours:.2f}×" if ours and theirs is not None else NOT_SET
    return {"cost": name, A: text(ours), B: text(theirs), "B / A": ratio}


def plans_of(a: "RunView", b: "RunView") -> tuple[BitPlan, BitPlan] | None:
    """The plans of both; None where their layers are not the same, or one has none."""
    fields = plan_of(a), plan_of(b)
    if fields[0] is None or fields[1] is None:
        return None
    plans = BitPlan(**fields[0]), BitPlan(**fields[1])
    same = a.workload == b.workload and all(
        not ours or not theirs or ours.keys() == theirs.keys()
        for ours, theirs in (
            (plans[0].weight_bits, plans[1].weight_bits),
            (plans[0].activation_bits, plans[1].activation_bits),
        )
    )
    return plans if same else None


def no_bits(a: "RunView", b: "RunView") -> str:
    """Why the bits of two runs cannot be laid side by side."""
    missing = [name for name, run in ((A, a), (B, b)) if plan_of(run) is None]
    if missing:
        return f"There are no bits to lay side by side: {' and '.join(missing)} has no plan."
    return "Their bits cannot be laid side by side: they are not of the same layers."


def bits_table(a: BitPlan, b: BitPlan) -> pd.DataFrame:
    """One row a weight, then one an input: its bits in both plans, and the difference."""
    rows = []
    for side, ours, theirs in (
        ("weights", a.weight_bits, b.weight_bits),
        ("input", a.activation_bits, b.activation_bits),
    ):
        for layer in ours or theirs:
            bits = ours.get(layer), theirs.get(layer)
            both = bits[0] is not None and bits[1] is not None
            rows.append(
                {
                    "layer": layer,
                    "of": side,
                    A: _bits(bits[0]),
                    B: _bits(bits[1]),
                    "B − A": f"{bits[1] - bits[0]:+d}" if both and bits[0] != bits[1] else "",
                }
            )
    return pd.DataFrame(rows, columns=["layer", "of", A, B, "B − A"])


def _bits(bits: int | None) -> str:
    return "float" if bits is None else str(bits)


def bits_differ(a: BitPlan, b: BitPlan) -> str:
    """In how many layers two plans differ, in a sentence."""
    table = bits_table(a, b)
    parts = []
    for side, words in (("weights", "layers"), ("input", "inputs of layers")):
        own = table[table["of"] == side]
        if len(own):
            parts.append(f"{int((own[A] != own[B]).sum())} of {len(own)} {words}")
    return f"The bits differ in {' and '.join(parts)}."


def settings_that_differ(a: "RunView", b: "RunView") -> pd.DataFrame:
    """What was asked of the two, on what and with which versions: only what is not the same."""
    ours, theirs = dict(_settings(a)), dict(_settings(b))
    seen = [dict(_measured_with(run)) for run in (a, b)]
    if all(seen):  # what only one has measured is no setting
        ours, theirs = ours | seen[0], theirs | seen[1]
    rows = [
        {"setting": name, A: ours.get(name, NOT_SET), B: theirs.get(name, NOT_SET)}
        for name in dict.fromkeys([*ours, *theirs])
        if ours.get(name, NOT_SET) != theirs.get(name, NOT_SET)
    ]
    return pd.DataFrame(rows, columns=["setting", A, B])


def _settings(run: "RunView") -> Iterator[tuple[str, str]]:
    """Everything that may explain another result, in words."""
    yield "network", run.workload
    yield "kind", KINDS.get(run.kind, run.kind)
    for name, value in (("network's file", run.workload_file), ("weights", run.weights)):
        if value:
            yield name, value
    usual = {**vars(Recipe()), SEED: 0} if run.kind == "finetune" else {SEED: 0}
    for name, value in {**usual, "data": "sample", **run.options}.items():
        if name not in ("plan", "uniform"):
            given = usual.get(name) if value is None else value
            yield name.replace("_", " "), _text(given)
    if plan := plan_of(run):
        yield "bits", bits_text(plan)
        yield "size", cost_text("size", plan["size_bytes"])
        for part in ("quantizer", "made_by"):
            for name, value in dict(plan.get(part) or {}).items():
                if value in (None, {}, []):
                    continue
                words = "plan made by" if part == "made_by" else part
                if name == "budget" and isinstance(value, int | float):
                    value = cost_text(plan["made_by"].get("cost", "size"), value)
                yield f"{words}: {name.replace('_', ' ')}", _text(value)
    summary = run.results.get("analysis", {})
    for name in ("images", "data", "stopped_because"):
        if name in summary:
            yield f"analysis: {name.replace('_', ' ')}", _text(summary[name])


def _measured_with(run: "RunView") -> Iterator[tuple[str, str]]:
    """On what a run was measured, and with which versions."""
    found = evaluation_of(run, last_measured(run))
    if found is not None:
        made = found.provenance
        yield "metric", found.metric_name
        yield "test images", f"{found.samples:,}"
        yield "data measured on", made.data
        yield "fingerprint of these", made.fingerprint
        for package, number in made.versions.items():
            yield f"version of {package}", str(number)


def _text(value: Any) -> str:
    if value is None:
        return NOT_SET
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:g}"
    return json.dumps(value, ensure_ascii=False)


def drawn_alone(a: "RunView", b: "RunView") -> str:
    """Why only one course of training is drawn; empty where both are drawn over each other."""
    if "finetune" not in (a.kind, b.kind) or a.kind != b.kind:
        return "Only one of them was trained."
    metrics = {run.results.get("float", {}).get("metric", "top-1") for run in (a, b)}
    return "B was measured in another metric: only A is drawn." if len(metrics) > 1 else ""


def bits_alt(a: BitPlan, b: BitPlan, called: Sequence[str]) -> str:
    """The chart of the bits in words."""
    return f"Bits of each layer in forward order, {called[0]} against {called[1]}. " + bits_differ(
        a, b
    )
