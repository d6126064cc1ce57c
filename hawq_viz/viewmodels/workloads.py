"""The chosen network in words: what it does, on which data, how well, and how it was analyzed."""

import json
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from engine.analysis import Analysis
from engine.latency import FLOAT_BITS
from engine.models import torchvision_names
from engine.results import BitPlan, Evaluation, metric_text, wilson_interval
from engine.workloads import OWN_WEIGHTS, SAMPLE_MODELS
from hawq_viz.figures.costs import NAMES, cost_of, cost_text
from hawq_viz.viewmodels.plans import Summary, size_text
from hawq_viz.viewmodels.studies import Study

if TYPE_CHECKING:
    from engine.jobs import RunView

PHOTOS = "sorts photos into the 1,000 classes of ImageNet"
TASKS = {  # what it is called, what it does
    "resnet20-cifar10": ("ResNet20", "sorts small photos into the 10 classes of CIFAR-10"),
    "squeezenext-cifar10": ("SqueezeNext", "sorts small photos into the 10 classes of CIFAR-10"),
    "inception-cifar10": ("Inception", "sorts small photos into the 10 classes of CIFAR-10"),
    "retinanet-shapes": ("RetinaNet", "finds the shapes in made-up pictures"),
    "efficientnet-lite0-imagenet": ("EfficientNet-Lite0", PHOTOS),
    "resnet50-imagenet": ("ResNet50", PHOTOS),
    "inception-v3-imagenet": ("Inception v3", PHOTOS),
    "squeezenext-imagenet": ("SqueezeNext", PHOTOS),
    "retinanet-resnet50-coco": ("RetinaNet with ResNet50", "finds objects in the photos of COCO"),
}
SAMPLES = {  # how a name ends, and the images that come along
    "-cifar10": "2,000 photos come along; all 60,000 are fetched once",
    "-shapes": "they are made as they are needed",
    "-coco": "some photos come along; all are read from the folder HAWQ_VIZ_COCO names",
}
BY_FOLDER = "some photos come along; all are read from the folder HAWQ_VIZ_IMAGENET names"


@dataclass(frozen=True)
class Fact:
    """One number of a network, and where it is from."""

    label: str
    text: str
    source: str


def called(workload: str) -> str:
    """The name of a network for people."""
    network, _, digest = workload.partition(OWN_WEIGHTS)
    name, _ = TASKS.get(network, (network.removeprefix(torchvision_names.PREFIX), ""))
    return f"{name} with your weights {digest}" if digest else name


def does(workload: str) -> str:
    """What a network does, in a few words."""
    network = workload.partition(OWN_WEIGHTS)[0]
    if network.startswith(torchvision_names.PREFIX):
        return PHOTOS
    return TASKS.get(network, ("", "a network of your own"))[1]


def images(workload: str) -> str:
    """Which images it is analyzed, trained and measured on; of an own network nothing is known."""
    network = workload.partition(OWN_WEIGHTS)[0]
    if network not in TASKS and not network.startswith(torchvision_names.PREFIX):
        return "those that it brings"
    return next((says for end, says in SAMPLES.items() if network.endswith(end)), BY_FOLDER)


def facts(workload: str, analysis: Analysis | None, seen: Iterable["RunView"]) -> list[Fact]:
    """What is known of a network: accuracy, layers, weights, size.

    Args:
        workload: Its name.
        analysis: Of it, if there is one.
        seen: Runs, newest first: any of the network that measured it in float32 tells its accuracy.
    """
    found = [_accuracy(workload, seen)]
    if analysis is not None:
        made = f"The analysis shown: {analysis.provenance.command}"
        operations = sum(layer.macs for layer in analysis.layers)
        found += [
            Fact("Layers", f"{len(analysis.layers)}", f"Those with weights to round. {made}"),
            Fact(
                "Weights",
                _count(analysis.parameters),
                f"{analysis.parameters:,} in those layers; {operations:,} multiply-accumulates an "
                f"image. {made}",
            ),
            Fact(
                "As float32",
                size_text(analysis.parameters * FLOAT_BITS / 8),
                f"The weights of those layers, {FLOAT_BITS // 8} bytes each.",
            ),
        ]
    elif card := _card(workload):
        found.append(
            Fact(
                "Weights", _count(card["parameters"]), f"{card['parameters']:,}: {card['command']}"
            )
        )
    return [fact for fact in found if fact is not None]


def _count(number: int) -> str:
    """A number as a card has room for."""
    return f"{number:,}" if number < 1e6 else f"{number / 1e6:.2f} M"


def _accuracy(workload: str, seen: Iterable["RunView"]) -> Fact | None:
    """How well it does in float32: as was published with it, or as a run measured it."""
    if card := _card(workload):
        metric, value, samples = card["metric"], card["value"], card["samples"]
        says = f"On {samples:,} test images of {card['data']['name']}."
        if metric == "top-1":
            low, high = wilson_interval(round(value * samples), samples)
            says = f"95 % interval {low:.1%} to {high:.1%}. {says}"
        return Fact(
            "Accuracy" if metric == "top-1" else "Quality", metric_text(metric, value), says
        )
    for run in seen:
        if run.workload == workload and "float" in run.results:
            measured = Evaluation.from_json(run.results["float"])
            low, high = measured.interval
            return Fact(
                "Accuracy" if measured.metric == "top-1" else "Quality",
                metric_text(measured.metric, measured.value),
                f"95 % interval {low:.1%} to {high:.1%}, on {measured.samples:,} images: "
                f"{measured.provenance.data}. Measured by {run.id}.",
            )
    return None


def _card(workload: str) -> Mapping[str, Any]:
    """What comes with a sample network; nothing where none does."""
    with suppress(OSError, ValueError):
        if workload in TASKS:
            known: dict[str, Any] = json.loads((SAMPLE_MODELS / f"{workload}.json").read_text())
            return known
    return {}


def certainty(analysis: Analysis, source: str) -> str:
    """Which analysis is shown and how certain it is, in a few sentences.

    Args:
        analysis: The one shown.
        source: Where it is from, in words.
    """
    exact = (
        "Its numbers are the Hessian's own"
        if analysis.exact
        else "Some of its numbers are of the Gauss-Newton matrix, which is near the Hessian"
    )
    return (
        f"**Analysis shown:** {source}, from {analysis.images:,} images. {exact}; their standard "
        f"error is {analysis.median_relative_sem:.0%} in the median layer, "
        f"{analysis.worst_relative_sem:.0%} in the worst."
    )


def promise(summary: Summary, *, suggested: bool) -> str:
    """What the picked or suggested plan of the frontier promises, in a sentence or two."""
    which = "The suggested plan" if suggested else "The picked plan"
    return (
        f"**{which}: {summary.size}, {summary.compression} smaller than float32.** "
        f"The loss is predicted to rise by {summary.loss_increase}. {summary.rival_name} "
        f"({summary.rival_size}) would cost {summary.ratio} as much."
    )


def overview_alt(study: Study, plan: BitPlan) -> str:
    """The frontier at a glance in words."""
    cost, omega, by = study.frontier.cost, study.frontier.omega, study.cost
    return (
        f"{NAMES[by].capitalize()} against Ω at a glance, log axis: {len(study.frontier):,} plans "
        f"from {cost_text(by, cost[0])} with Ω {omega[0]:.2g} to {cost_text(by, cost[-1])} with Ω "
        f"{omega[-1]:.2g}; marked: {cost_text(by, cost_of(plan, by))} with Ω {plan.omega:.2g}."
    )
