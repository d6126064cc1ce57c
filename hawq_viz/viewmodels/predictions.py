"""Whether predictions held: ½Ω of each measured plan beside how far the loss really rose."""

import math
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from engine.analysis import Analysis
from engine.certainty import omega_band
from engine.results import BitPlan
from hawq_viz.figures.costs import KIB
from hawq_viz.viewmodels.measured import Difference, MeasuredPlan, difference
from hawq_viz.viewmodels.runs import bits_text

if TYPE_CHECKING:
    from engine.jobs import RunView

WORTH_MEASURING = (3, 4, 5, 6)  # average bits
FEWEST = 3  # plans that a rank correlation is told of
OMEGA_AGREES = 1e-6  # share by which Ω of one plan may differ, found again from its analysis
USUAL = {"rounding": "nearest", "correction": "none", "sums": "float"}  # what Ω reckons with


@dataclass(frozen=True)
class Prediction:
    """One plan on one set of images: what ½Ω said of the loss, and what was measured."""

    plan: BitPlan
    name: str
    predicted: float  # ½Ω
    interval: tuple[float, float] | None  # 95 % of ½Ω by its traces; None without its analysis
    rise: Difference  # of the loss over float32
    images: str  # in words, with their number
    runs: tuple["RunView", ...] = field(repr=False)  # that measured it, the newest first

    @property
    def as_predicted(self) -> bool:
        """Whether it was rounded as Ω reckons: to the nearest, with nothing corrected."""
        told = {name: self.plan.quantizer.get(name, usual) for name, usual in USUAL.items()}
        return told == USUAL


def predictions(
    measured: Iterable[MeasuredPlan], analysis: Analysis | None = None
) -> list[Prediction]:
    """Every plan that was only rounded, once for each set of images, by rising ½Ω.

    Args:
        measured: Of one network; those without a float network beside them are passed over.
        analysis: Tells the error of Ω of the plans that were made from it.
    """
    groups: dict[tuple[object, ...], list[MeasuredPlan]] = {}
    for one in measured:
        if one.rounded and one.reference is not None and one.plan.omega > 0:
            groups.setdefault(_same(one), []).append(one)
    intervals = _intervals([group[0].plan for group in groups.values()], analysis)
    found = []
    for group, interval in zip(groups.values(), intervals, strict=True):
        newest = group[0]
        rise = difference((newest.run, newest.stage), (newest.run, "float"), loss=True)
        assert rise is not None  # both are there, of the same images
        made, samples = newest.evaluation.provenance, newest.evaluation.samples
        found.append(
            Prediction(
                plan=newest.plan,
                name=_name(newest),
                predicted=newest.plan.omega / 2,
                interval=interval,
                rise=rise,
                images=f"{samples:,} images: {made.data}",
                runs=tuple(one.run for one in group),
            )
        )
    return sorted(found, key=lambda one: one.predicted)


def _same(one: MeasuredPlan) -> tuple[object, ...]:
    """What two measurements have in common that count as one: bits, rounding, images."""
    plan, made = one.plan, one.evaluation
    return (
        tuple(plan.weight_bits.items()),
        tuple(plan.activation_bits.items()),
        repr(sorted(plan.quantizer.items())),
        plan.omega,
        str(made.provenance.fingerprint),
        made.samples,
    )


def _name(one: MeasuredPlan) -> str:
    bits = bits_text(
        {"weight_bits": one.plan.weight_bits, "activation_bits": one.plan.activation_bits}
    )
    size = f"{one.plan.size_bytes / KIB:,.1f} KiB"
    called = "" if one.stage == "uniform" or not one.run.title else f"{one.run.title}: "
    return f"{called}{bits}, {size}"


def _intervals(
    plans: Sequence[BitPlan], analysis: Analysis | None
) -> list[tuple[float, float] | None]:
    """The 95 % interval of each plan's ½Ω; None for those of another analysis."""
    own = [i for i, plan in enumerate(plans) if analysis is not None and is_by(analysis, plan)]
    found: list[tuple[float, float] | None] = [None] * len(plans)
    if own and analysis is not None:
        with suppress(ValueError):  # fewer than two mini-batches
            low, high = omega_band(analysis, [plans[i] for i in own])
            for i, edges in zip(own, zip(low, high, strict=True), strict=True):
                found[i] = float(edges[0]) / 2, float(edges[1]) / 2
    return found


def is_by(analysis: Analysis, plan: BitPlan) -> bool:
    """Whether a plan's Ω is this analysis' own."""
    if plan.workload != analysis.workload:
        return False
    with suppress(ValueError):  # of other layers or bit widths
        omega = analysis.plan_of(plan.weight_bits, plan.activation_bits).omega
        return abs(omega - plan.omega) <= OMEGA_AGREES * abs(plan.omega)
    return False


def worth_measuring(
    analysis: Analysis, found: Sequence[Prediction]
) -> list[tuple[BitPlan, BitPlan]]:
    """Plans that would say most, each with its uniform rival: at 3 to 6 bits, unless known."""
    known = {tuple(one.plan.weight_bits.items()) for one in found if not one.plan.activation_bits}
    frontier, plans = analysis.frontier(), []
    for bits in WORTH_MEASURING:
        if bits in analysis.bit_widths:
            uniform = analysis.uniform(bits)
            plan = frontier.within(uniform.size_bytes)
            if tuple(plan.weight_bits.items()) not in known:
                plans.append((plan, uniform))
    return plans


def rank_correlation(found: Sequence[Prediction]) -> float | None:
    """Spearman's: how well ½Ω ranks the plans by their rise; None for too few to tell.

    The correlation of ranks, ties sharing their mean (Spearman, "The proof and measurement of
    association between two things", American Journal of Psychology, 1904).
    """
    if len(found) < FEWEST:
        return None
    ranks = [
        pd.Series(values).rank()
        for values in ([one.predicted for one in found], [one.rise.mean for one in found])
    ]
    if any(rank.nunique() < 2 for rank in ranks):
        return None
    return float(ranks[0].corr(ranks[1]))


def groups(found: Iterable[Prediction]) -> dict[str, list[Prediction]]:
    """Those rounded as Ω reckons, by the images they were measured on."""
    told: dict[str, list[Prediction]] = {}
    for one in found:
        if one.as_predicted:
            told.setdefault(one.images, []).append(one)
    return told


def ranking_sentence(found: Sequence[Prediction]) -> str:
    """How well the order holds, for each set of images."""
    says = []
    for images, group in groups(found).items():
        rho = rank_correlation(group)
        plans = f"{len(group)} plan{'s' if len(group) != 1 else ''}, {images.partition(':')[0]}"
        says.append(f"{'unknown' if rho is None else f'{rho:.2f}'} ({plans})")
    if not says:
        return ""
    return (
        f"**How well the order is kept**, which is what choosing bits needs: Spearman's rank "
        f"correlation {'; '.join(says)}; 1 keeps all of it."
    )


def prediction_table(found: Sequence[Prediction]) -> pd.DataFrame:
    """One row a plan and set of images."""
    return pd.DataFrame(
        {
            "plan": one.name,
            "½Ω": one.predicted,
            "½Ω, 95 % from": one.interval[0] if one.interval else math.nan,
            "½Ω, to": one.interval[1] if one.interval else math.nan,
            "measured rise": one.rise.mean,
            "rise, 95 % from": one.rise.interval[0],
            "rise, to": one.rise.interval[1],
            "told": "image by image" if one.rise.paired else "too wide",
            "rounded": "to the nearest" if one.as_predicted else _rounding(one.plan),
            "images": one.images,
            "runs": len(one.runs),
        }
        for one in found
    )


def _rounding(plan: BitPlan) -> str:
    differs = (
        f"{name} {str(plan.quantizer[name]).replace('_', ' ')}"
        for name, usual in USUAL.items()
        if plan.quantizer.get(name, usual) != usual
    )
    return ", ".join(differs)


def predictions_alt(found: Sequence[Prediction]) -> str:
    """The chart in words."""
    if not found:
        return "No plan has been measured yet."
    first, last = found[0], found[-1]
    return (
        f"Measured rise of the loss against the predicted one, ½Ω, of {len(found)} plans: from "
        f"{first.rise.mean:+.2g} at ½Ω {first.predicted:.2g} ({first.name}) to "
        f"{last.rise.mean:+.2g} at ½Ω {last.predicted:.2g} ({last.name}). "
        "On the dashed line both are the same."
    )


HOW_TO_READ = (
    "On the dashed line the loss rose as ½Ω said. At few bits plans lie above it: rounding moves "
    "weights too far for second order. Bars: 95 %."
)
