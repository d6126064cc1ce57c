"""What estimating further would mean for an analysis: what is launched, and what is said of it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.analysis import Analysis

if TYPE_CHECKING:
    from engine.jobs import RunView

QUANTIZER = ("scheme", "weight_granularity", "weight_range", "activation_range")
STORED = "stored"  # in place of a run: the analysis that comes with the network


@dataclass(frozen=True)
class Offer:
    """A button: its label, its help, and what it launches."""

    label: str
    help: str
    options: dict[str, Any] = field(default_factory=dict)  # none: nothing can be done


def offer(analysis: Analysis, run: "RunView | None", *, own: bool) -> Offer:
    """How to get more images into an analysis.

    Args:
        analysis: The one that is looked at.
        run: That made it; None if it came with the network.
        own: Whether the network is the operator's own, which brings its images.
    """
    options = run.options if run else {}
    full = "full" in (options.get("data"), *analysis.provenance.command.split())
    data = {} if own else {"data": "full" if full else "sample"}
    used, target = f"{analysis.images:,} images", f"{100 * analysis.next_target:.3g} %"
    if not analysis.exhausted:
        left = f" {analysis.images_left:,} are left." if analysis.images_left else ""
        fetched = " The full data are fetched once." if full and not own else ""
        return Offer(
            "Estimate further",
            f"Goes on from the {used} of this analysis with others, none used twice, until the "
            f"standard error of every layer is at most {target} (half of that before, if that was "
            f"reached) or none is left.{left} Half the error takes four times the images.{fetched}",
            {
                **data,
                "further": run.id if run else STORED,
                "relative_sem": analysis.next_target,
            },
        )
    if own or full:
        return Offer(
            "Estimate further",
            f"All {used} of the data have been used once, and using them again would claim an "
            "error that they do not have. Give the network more images to calibrate with.",
        )
    return Offer(
        "Estimate from all data",
        f"All {used} of the sample have been used once. This starts anew on the whole data set, "
        f"which is fetched once, until the standard error of every layer is at most {target}.",
        {
            "data": "full",
            "bit_widths": list(analysis.bit_widths),
            "relative_sem": analysis.next_target,
            "seed": analysis.provenance.seed,
            "estimator": analysis.estimator,
            "granularity": analysis.granularity,
            "activations": bool(analysis.activations),
            **{name: analysis.quantizer[name] for name in QUANTIZER if name in analysis.quantizer},
        },
    )
