"""What runs have measured of plans, beside the frontier that was predicted."""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pandas as pd

from engine.results import Evaluation, metric_text
from hawq_viz.figures.costs import cost_of, cost_text
from hawq_viz.viewmodels.limits import digits
from hawq_viz.viewmodels.measured import measured_plans
from hawq_viz.viewmodels.plans import short
from hawq_viz.viewmodels.runs import run_name, when
from hawq_viz.viewmodels.studies import SHORT, Study

if TYPE_CHECKING:
    from engine.jobs import RunView


@dataclass(frozen=True)
class Reached:
    """A plan that was measured, over the cost that is drawn."""

    name: str
    made: str  # when
    rounded: bool  # only, not trained
    cost: float
    omega: float  # by the analysis that is looked at
    evaluation: Evaluation
    reference: Evaluation | None  # the float network on the same images

    @property
    def accuracy(self) -> str:
        """The metric with its interval and the number of images."""
        found = self.evaluation
        low, high = (metric_text("", end) for end in found.interval)
        return (
            f"{found.metric_name} {metric_text('', found.value)} ({low} to {high}) on "
            f"{found.samples:,} images"
        )

    @property
    def loss_rise(self) -> float | None:
        """How much the loss rose above the float network's on the same images."""
        return None if self.reference is None else self.evaluation.loss - self.reference.loss

    @property
    def about(self) -> str:
        """What was measured, in a line."""
        rise = "" if self.loss_rise is None else f", loss {self.loss_rise:+.3g}"
        predicted = f", ½Ω +{short(self.omega / 2, 3)}" if self.rounded else ""
        return f"{self.accuracy}{rise}{predicted}"


def reached(study: Study, seen: Iterable["RunView"]) -> list[Reached]:
    """What these runs have measured, of plans like those of the frontier; fine-tuned ones last."""
    found = []
    for own in measured_plans(seen):
        with suppress(ValueError):  # a latency table that lacks its bits
            plan = study.opened(digits(own.plan.weight_bits), digits(own.plan.activation_bits))
            if plan is None or not study.comparable(plan):
                continue
            uniform = " · uniform rival" if own.stage == "uniform" else ""
            tuned = "" if own.rounded or own.run.kind == "quantize" else " · fine-tuned"
            found.append(
                Reached(
                    f"{run_name(own.run)}{uniform}{tuned}",
                    when(own.run),
                    own.rounded,
                    cost_of(plan, study.cost),
                    plan.omega,
                    own.evaluation,
                    own.reference,
                )
            )
    return sorted(found, key=lambda point: not point.rounded)


def reached_table(study: Study, points: Sequence[Reached]) -> pd.DataFrame:
    """One row a measured plan."""
    return pd.DataFrame(
        {
            "run": point.name,
            "made": point.made,
            SHORT[study.cost]: cost_text(study.cost, point.cost),
            f"{point.evaluation.metric_name} (%)": 100 * point.evaluation.value,
            "95 % from": 100 * point.evaluation.interval[0],
            "to": 100 * point.evaluation.interval[1],
            "images": point.evaluation.samples,
            "loss rise": point.loss_rise,
            "½Ω": point.omega / 2,
        }
        for point in points
    )


def reached_alt(study: Study, points: Sequence[Reached]) -> str:
    """The measured plans in words."""
    told = "; ".join(
        f"{cost_text(study.cost, point.cost)}: {point.accuracy}" for point in points[:8]
    )
    more = f"; and {len(points) - 8} more" if len(points) > 8 else ""
    return f"What {len(points)} plans of finished runs were measured to reach: {told}{more}."


READ = (
    "Each point is a plan that a run has measured; bars are 95 % intervals. Open: rounded only. "
    "Filled: fine-tuned. The line is the float network, on the most images it was measured on."
)
EMPTY = (
    "No plan of this network has been measured yet: “Quantize this plan”, above, measures one and "
    "draws it here and on the frontier."
)
