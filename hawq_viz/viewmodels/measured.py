"""What rounding alone was measured to leave, in words and tables."""

import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from numpy.typing import NDArray

from engine.analysis import Analysis
from engine.jobs.folders import OUTCOMES
from engine.jobs.options import QUANTIZING
from engine.latency import FLOAT_BITS
from engine.outcomes import Outcomes, paired_difference
from engine.results import DEVIATIONS, BitPlan, Evaluation, FormatError, metric_text
from hawq_viz.figures.costs import KIB, cost_text
from hawq_viz.viewmodels.plans import Summary, size_text
from hawq_viz.viewmodels.runs import bits_text

if TYPE_CHECKING:
    from engine.jobs import RunView


# How weights may be rounded, with its words; a blank one is left to the plan, or the engine.
ROUNDING = {
    "rounding": (
        "Rounding",
        {"nearest": "to the nearest", "learned": "learned from images (minutes)"},
    ),
    "correction": (
        "Correction of outputs",
        {"none": "none", "bias": "of their mean", "batch_norm": "of mean and spread"},
    ),
    "sums": (
        "What is added",
        {"float": "on scales of its own", "integer": "on one scale, for integers"},
    ),
}


@dataclass(frozen=True)
class MeasuredPlan:
    """A plan and what a run has measured of its network."""

    run: "RunView"
    stage: str  # as the run's result is called: plan or uniform (rounded), or finetuned
    plan: BitPlan
    evaluation: Evaluation
    reference: Evaluation | None  # the float network on the same images, where that was measured

    @property
    def rounded(self) -> bool:
        """Whether it was only rounded, not trained."""
        return self.stage != "finetuned"


STAGES = {"plan": "plan", "uniform": "uniform", "finetuned": "plan"}  # result → option: its plan


def measured_plans(runs: Iterable["RunView"]) -> list[MeasuredPlan]:
    """Every plan that these runs have measured on all their test images, in their order.

    A run that goes on, or was cut, counts with what it has measured; what cannot be read is passed
    over.
    """
    found = []
    for run in runs:
        whole = evaluation_of(run, "float")
        for stage, option in STAGES.items():
            evaluation = evaluation_of(run, stage)
            if run.kind not in QUANTIZING or evaluation is None:
                continue
            with suppress(KeyError, TypeError, ValueError, AttributeError):
                plan = BitPlan(**run.options[option])
                if not math.isfinite(plan.omega + plan.size_bytes):
                    continue
                plan.quantizer.keys()  # refuses what is no dictionary
                same = whole is not None and on_same_images(whole, evaluation)
                found.append(MeasuredPlan(run, stage, plan, evaluation, whole if same else None))
    return found


def evaluation_of(run: "RunView", name: str) -> Evaluation | None:
    """What a run has measured under a name; None if it has not, or that cannot be read."""
    with suppress(KeyError, TypeError, ValueError, AttributeError):
        found = Evaluation.from_json(run.results[name])
        numbers = (found.value, *found.interval, found.samples, found.loss, found.loss_sem)
        return found if all(map(math.isfinite, numbers)) else None
    return None


@dataclass(frozen=True)
class Difference:
    """How two networks differ in the mean over the same images, with its 95 % interval."""

    mean: float
    interval: tuple[float, float]
    paired: bool  # image by image; else as if the images were others, which is too wide

    @property
    def clear(self) -> bool:
        """Whether the interval leaves out zero."""
        return not self.interval[0] <= 0 <= self.interval[1]

    @property
    def half(self) -> float:
        """Half of the interval: it lies evenly about the mean."""
        return (self.interval[1] - self.interval[0]) / 2

    @property
    def points(self) -> str:
        """How many points of a metric one has more or less, with the interval."""
        side = "above" if self.mean >= 0 else "below"
        return f"{abs(100 * self.mean):.1f} ± {100 * self.half:.1f} points {side}"


Measured = tuple["RunView", str]  # a run, and which of its networks: the name of the result


def difference(ours: Measured, theirs: Measured, *, loss: bool = False) -> Difference | None:
    """What one network has more than another, of the metric or of the loss.

    None where it cannot be told: not both are measured, or on other images or in another metric.
    """
    a, b = evaluation_of(*ours), evaluation_of(*theirs)
    if a is None or b is None or not on_same_images(a, b) or (a.metric != b.metric and not loss):
        return None
    each = [_each(*which, loss=loss) for which in (ours, theirs)]
    if each[0] is not None and each[1] is not None and len(each[0]) == len(each[1]) >= 2:
        return Difference(*paired_difference(*each), paired=True)
    mean = a.loss - b.loss if loss else a.value - b.value
    sems = (a.loss_sem, b.loss_sem) if loss else (a.sem, b.sem)
    half = DEVIATIONS * math.hypot(*sems)
    return Difference(mean, (mean - half, mean + half), paired=False)


def _each(run: "RunView", name: str, *, loss: bool) -> NDArray[Any] | None:
    path = run.folder / OUTCOMES / f"{name}.safetensors"
    with suppress(OSError, FormatError):
        found = _outcomes(path, path.stat().st_mtime_ns)
        return found.losses if loss else found.right
    return None


@lru_cache(maxsize=512)
def _outcomes(path: Path, changed: int) -> Outcomes:  # noqa: ARG001 — a key of the cache
    return Outcomes.load(path)


def on_same_images(a: Evaluation, b: Evaluation) -> bool:
    """Whether two networks were measured on the same images, with the same labels."""
    (x, y) = ((found.provenance.fingerprint, found.samples) for found in (a, b))
    return x == y


def rounded_so(plan: BitPlan, chosen: Mapping[str, Any]) -> BitPlan:
    """The plan with what was chosen of `ROUNDING`; what is None stays as it was."""
    told = {name: chosen[name] for name in ROUNDING if chosen.get(name) is not None}
    return replace(plan, quantizer=plan.quantizer | told)


def quantize_options(
    summary: Summary, data: str, rounding: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a quantize run is told: the plan, its uniform rival, the images, and how to round."""
    return {
        "plan": asdict(rounded_so(summary.plan, rounding or {})),
        "uniform": asdict(rounded_so(summary.rival, rounding or {})),
        "data": data,
    }


def evaluations(run: "RunView") -> dict[str, Evaluation]:
    """The networks a quantize run has measured so far: float, plan, uniform."""
    return {
        name: Evaluation.from_json(run.results[name])
        for name in ("float", "plan", "uniform")
        if name in run.results
    }


def network_names(options: Mapping[str, Any]) -> dict[str, str]:
    """What to call the networks of a quantize run in a chart: by their bits and costs."""
    plan, uniform = options["plan"], options.get("uniform")
    names = {"float": "float32", "plan": f"HAWQ-V2, {_costs_text(plan)}"}
    if uniform:
        names["uniform"] = f"{bits_text(uniform)}, {_costs_text(uniform)}"
    return names


def _costs_text(plan: Mapping[str, Any]) -> str:
    """Size; and bit operations where inputs are rounded, as plans of one size differ in them."""
    size = size_text(plan["size_bytes"])
    bops = plan.get("costs", {}).get("bops")
    if bops is None or not plan.get("activation_bits"):
        return size
    return f"{size},\n{cost_text('bops', bops)} BOPS"


def accuracy_table(analysis: Analysis, run: "RunView") -> pd.DataFrame:
    """One row a network: its size, what was measured, and how the loss rose against ½Ω."""
    names = network_names(run.options)
    rows = []
    for name, evaluation in evaluations(run).items():
        plan = run.options.get(name) or {
            "size_bytes": analysis.parameters * FLOAT_BITS / 8,
            "omega": 0.0,
        }
        low, high = evaluation.interval
        rise = difference((run, name), (run, "float"), loss=True) if name != "float" else None
        rows.append(
            {
                "network": names[name].partition(",")[0],
                "size (KiB)": plan["size_bytes"] / KIB,
                f"{evaluation.metric_name} (%)": 100 * evaluation.value,
                "95 % from": 100 * low,
                "to": 100 * high,
                "loss": evaluation.loss,
                "± s.e.": evaluation.loss_sem,
                "loss rise": rise.mean if rise else math.nan,
                "± 95 %": rise.half if rise else math.nan,
                "½Ω": plan["omega"] / 2,
            }
        )
    return pd.DataFrame(rows)


def verdict(run: "RunView") -> str:
    """What a finished quantize run has shown, in a sentence or two."""
    plan = evaluations(run)["plan"]
    rival = network_names(run.options).get("uniform", "").partition(",")[0]
    against = [("float32", (run, "float")), (rival, (run, "uniform"))]
    kept = metric_text(plan.metric, plan.value)
    return f"The plan keeps {kept}{points_apart((run, 'plan'), against, ', ', ' and ')}"


def points_apart(
    ours: Measured, against: Iterable[tuple[str, Measured]], colon: str, comma: str
) -> str:
    """The end of a sentence: how far one network is from others, and how certain that is.

    Args:
        ours: The one that the sentence is about.
        against: The others by their names; those that cannot be held against it are left out.
        colon: Before the first.
        comma: Between them.
    """
    found = [(name, difference(ours, theirs)) for name, theirs in against]
    told = [(name, apart) for name, apart in found if apart is not None]
    says = comma.join(f"{apart.points} {name}" for name, apart in told)
    return (colon if told else "") + says + errors([apart for _, apart in told])


def errors(told: Sequence[Difference]) -> str:
    """The end of a sentence with differences: what their errors are, and what to make of them."""
    ways = {found.paired for found in told}
    known = [how(paired) for paired in (True, False) if paired in ways]
    says = f" (95 % intervals, {' or '.join(known)})." if known else "."
    if not all(found.clear for found in told):
        says += " A difference within its ± is not certain: more test images would tell."
    return says


def how(paired: bool) -> str:
    """How differences were told, in words."""
    return "image by image" if paired else "as of independent images: too wide"


def images_sentence(found: Mapping[str, Evaluation]) -> str:
    """Which test images, and how many."""
    evaluation = next(iter(found.values()))
    return f"Measured on {evaluation.samples:,} images: {evaluation.provenance.data}."


def accuracies_alt(found: Mapping[str, Evaluation], options: Mapping[str, Any]) -> str:
    """The accuracies in words."""
    names = {name: " ".join(text.split()) for name, text in network_names(options).items()}
    metric = next((x.metric_name for x in found.values()), "")
    return f"Measured, {metric}: " + "; ".join(
        f"{names[name]}: {x.value:.2%} ({x.interval[0]:.2%} to {x.interval[1]:.2%})"
        for name, x in found.items()
    )
