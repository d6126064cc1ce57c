"""Whether more images are needed: what redrawn mini-batches say of a frontier and of a plan."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from weakref import WeakKeyDictionary

import pandas as pd
from numpy.typing import NDArray

from engine.certainty import CERTAIN, DRAWS, Certainty, omega_band
from engine.results import BitPlan, Progress
from hawq_viz.figures.certainty import word
from hawq_viz.figures.costs import cost_of, cost_text
from hawq_viz.figures.frontier import thinned
from hawq_viz.figures.theme import number
from hawq_viz.viewmodels.runs import duration
from hawq_viz.viewmodels.studies import SHORT, Study

WAIT = f"Finding the best plan again under {DRAWS} draws …"
KEPT = 64  # verdicts of one study
LITTLE = 0.01  # share of Ω that is not worth more images
WHAT = (
    "Traces are estimated from some images; others would give somewhat different ones. Switched "
    f"on, this draws the analysis' mini-batches {DRAWS} times anew and finds the best plan again "
    "each time: you see how far Ω may be off, which layers would keep their bits, and whether "
    "more images are worth their time."
)
READ_VOTES = (
    "The mark is the plan's bits; the bar runs over what nine draws in ten give. A circle is "
    f"**certain**: at least {CERTAIN:.0%} of the draws agree. A diamond is **undecided**, with the "
    "share that does."
)


@dataclass(frozen=True, eq=False)
class Band:
    """95 % intervals of Ω along a frontier, each plan's by itself."""

    cost: NDArray
    low: NDArray
    high: NDArray


@lru_cache(maxsize=16)
def band_of(study: Study, part: tuple[float, float] | None = None) -> Band:
    """The band on the drawn points of a frontier, or of a part of its costs.

    Raises:
        ValueError: If the analysis has too few mini-batches to tell.
    """
    points = thinned(study.frontier.cost, study.frontier.omega, part=part)
    plans = [study.frontier.plan(int(i)) for i in points]
    return Band(study.frontier.cost[points], *omega_band(study.analysis, plans))


_FOUND: WeakKeyDictionary[Study, dict[tuple[tuple[str, float], ...], Certainty]]
_FOUND = WeakKeyDictionary()


def certainty_of(
    study: Study, budgets: Mapping[str, float], progress: Progress | None = None
) -> Certainty:
    """What redrawn mini-batches say within budgets and the study's limits; worked out once.

    Raises:
        ValueError: If the analysis has too few mini-batches, or no plan keeps to the budgets.
    """
    known = _FOUND.setdefault(study, {})
    asked = tuple(budgets.items())
    if asked not in known:
        own = list(budgets) == [study.cost]
        limits = study.limits if own else study.held.limits(budgets)
        times = study.latency if "latency" in budgets else None
        known[asked] = Certainty.of(
            study.analysis, budgets, latency=times, progress=progress, **limits
        )
        for oldest in list(known)[:-KEPT]:
            del known[oldest]
    return known[asked]


def budgets_of(study: Study, plan: BitPlan, asked: Mapping[str, float]) -> dict[str, float]:
    """Within which budgets plans are found again: those asked for, else what the plan costs."""
    return dict(asked) or {study.cost: cost_of(plan, study.cost)}


def is_long(budgets: Mapping[str, float]) -> bool:
    """Whether each draw is a search of its own, of a second or so."""
    return len(budgets) > 1 or "activation_peak" in budgets


def waiting(done: int, total: int, seconds: float) -> str:
    """How far a long search is, after so many seconds, and when it will end."""
    left = seconds / done * (total - done)
    return f"{WAIT} {done} of {total}, about {duration(left)} left. A click elsewhere stops it."


def verdict(certainty: Certainty) -> str:
    """How many bits are certain, what other images might cost, and what to do, in words."""
    undecided = certainty.undecided
    if not undecided:
        return (
            f"**All {_counted(certainty)} are certain**: each keeps its bits in at least "
            f"{CERTAIN:.0%} of {certainty.draws} draws. More images are not needed for this plan."
        )
    sides = ((certainty.layers, "layers"), (certainty.activations, "inputs of layers"))
    sure = " and ".join(
        f"{sum(vote.certain for vote in own)} of {len(own)} {name}" for own, name in sides if own
    )
    return (
        f"**{sure} are certain, {len(undecided)} undecided**: "
        "other images might give those other bits. A plan made from other images has "
        f"{certainty.median_regret:.2%} more Ω in the median, at most {certainty.high_regret:.2%} "
        f"in 95 % of {certainty.draws} draws: "
        + (
            "that is little, and more images are hardly worth their time."
            if certainty.high_regret < LITTLE
            else "more images would help."
        )
    )


def _counted(certainty: Certainty) -> str:
    """How many layers and inputs there are, in words."""
    sides = ((certainty.layers, "layers"), (certainty.activations, "inputs of layers"))
    return " and ".join(f"{len(own)} {name}" for own, name in sides if own)


def differs(study: Study, plan: BitPlan, certainty: Certainty) -> str:
    """Where the verdict is on another plan than the shown one, in a sentence; else empty."""
    best, where = certainty.plan, _costs_text(certainty.budgets)
    shown = plan.weight_bits | {f"input of {k}": x for k, x in plan.activation_bits.items()}
    own = best.weight_bits | {f"input of {k}": x for k, x in best.activation_bits.items()}
    if shown == own:
        return ""
    if not study.comparable(plan):
        return f"This plan rounds other things: the verdict is on the best plan of {where}."
    changed = sum(shown.get(name) != bits for name, bits in own.items())
    return (
        f"The verdict is on the best plan of {where}, which has other bits in {changed} places "
        f"and {1 - best.omega / plan.omega:.2%} less Ω."
    )


def _costs_text(budgets: Mapping[str, float]) -> str:
    return " and ".join(f"{SHORT[cost]} {cost_text(cost, x)}" for cost, x in budgets.items())


def interval_text(study: Study, plan: BitPlan) -> str:
    """The 95 % interval of the plan's Ω, in words."""
    low, high = (float(end[0]) for end in omega_band(study.analysis, [plan]))
    return (
        f"Ω of this plan: {number(plan.omega)}, 95 % from {number(low)} to {number(high)} "
        f"(the band in the chart; most of it moves all plans alike and changes none)."
    )


def sources(study: Study, plan: BitPlan) -> tuple[str, str]:
    """What Ω and ½Ω of a plan are, how far they may be off, and from what they come, in words."""
    analysis = study.analysis
    found = f"From {analysis.images:,} images; Sensitivity says how."
    intervals = ["", ""]
    with suppress(ValueError):  # of too few mini-batches nothing is known
        low, high = (float(end[0]) for end in omega_band(analysis, [plan]))
        intervals = [
            f" 95 % from {number(share * low)} to {number(share * high)}." for share in (1, 0.5)
        ]
    return (
        "Σ over the layers of average trace × ‖Q(W) − W‖², and over their inputs the same."
        f"{intervals[0]} {found}",
        "Half of Ω: how far the loss rises by rounding alone, to second order."
        f"{intervals[1]} {found} The Runs page holds it against what was measured.",
    )


def source(study: Study, certainty: Certainty) -> str:
    """How the numbers came about, in words."""
    batches, images = len(study.analysis.batch_sizes), study.analysis.images
    error = 1.96 * (CERTAIN * (1 - CERTAIN) / certainty.draws) ** 0.5
    return (
        f"{certainty.draws} bootstrap draws (seed {certainty.seed}) of whole mini-batches, from "
        f"the {batches} of this analysis ({images:,} images), the same for all layers; the best "
        f"plan within {_costs_text(certainty.budgets)} and the same limits, exact in every draw. A "
        f"share of {CERTAIN:.0%} of {certainty.draws} draws is known to ±{error:.1%}. The band is "
        "of each plan by itself; the error of how far rounding moves an input is not in it."
    )


def votes_alt(certainty: Certainty) -> str:
    """The chart of votes in words."""
    undecided = ", ".join(
        f"{vote.name} {vote.low} to {vote.high} bits" for vote in certainty.undecided
    )
    return (
        f"Bits of {_counted(certainty)} with the range that nine draws in ten give. "
        f"Undecided: {undecided or 'none'}."
    )


def votes_table(certainty: Certainty) -> pd.DataFrame:
    """One row a layer or input: its bits, how many draws agree, and the range they give."""
    sides = (("weights", certainty.layers), ("input", certainty.activations))
    return pd.DataFrame(
        {
            "layer": vote.name,
            "of its": side,
            "bits": vote.bits,
            "draws that agree": vote.share,
            "95 % from": vote.interval[0],
            "95 % to": vote.interval[1],
            "fewest of nine in ten": vote.low,
            "most": vote.high,
            "verdict": word(vote).split(",")[0],
        }
        for side, own in sides
        for vote in own
    )
