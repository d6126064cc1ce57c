"""A new network from a network and a plan: planned weights and activations on their grids."""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from engine.activations import Activation, Activations, find_activations
from engine.calibration import Range, calibrate
from engine.corrections import CORRECTIONS, correct
from engine.layers import Channels, Layer, find_layers, fold_batch_norm
from engine.placements import SUMS, Placement, attach_quantizers, fitted, place, unfitted
from engine.quantizers import RANGES, Grid, Quantizer
from engine.quantizers import QuantizedWeight as QuantizedWeight
from engine.results import PLAN_FILE, BitPlan, FormatError, Progress, in_short
from engine.rounding import IMAGES, ROUNDINGS, draw_images, learn_rounding
from engine.workloads import Workload, example_image

WEIGHTS_FILE = "weights.safetensors"
QUANTIZER_SETTINGS = ("scheme", "weight_granularity", "weight_range")
DEFAULTS = dict(zip(QUANTIZER_SETTINGS, astuple(Quantizer()), strict=True)) | {
    "rounding": "nearest",
    "correction": "none",
    "activation_range": "mse",
    "sums": "float",
    "calibration_images": str(IMAGES),
    "seed": "0",
}
CHOICES = {
    "rounding": ROUNDINGS,
    "correction": CORRECTIONS,
    "activation_range": RANGES,
    "sums": SUMS,
}


def quantize(
    workload: Workload,
    plan: BitPlan,
    *,
    scheme: str | None = None,
    weight_granularity: str | None = None,
    weight_range: str | None = None,
    rounding: str | None = None,
    correction: str | None = None,
    activation_range: str | None = None,
    sums: str | None = None,
    seed: int | None = None,
    progress: Progress | None = None,
) -> nn.Module:
    """Quantize a workload's network after training.

    Weights first, as rounded and corrected with activations still float; then activations, on the
    grids that the float network's values ask for.

    Args:
        workload: Its model is not changed. Learned rounding and corrections see up to
            `rounding.IMAGES` of its calibration images, without their labels; the grids of
            activations are fitted on as many, or on those that the plan's analysis saw.
        plan: Bits of its layers and of its activations, and the quantizer they were chosen for;
            what the plan does not name stays float.
        scheme: Of the weight quantizer (see `quantizers.Quantizer`), if not the plan's.
        weight_granularity: Likewise.
        weight_range: Likewise.
        rounding: "nearest", or "learned" (see `rounding.learn_rounding`), if not the plan's.
        correction: After rounding: "none", "bias" or "batch_norm" (see `corrections.correct`), if
            not the plan's.
        activation_range: How grids of activations are fitted (see `calibration.calibrate`), if not
            the plan's.
        sums: "float", or "integer", for kernels that add integers: what enters an addition gets
            onto one scale (see `placements.place`). If not the plan's.
        seed: Of the draw of calibration images, if not the plan's, or 0.
        progress: Told of layers whose rounding was learned.

    Returns:
        A new network in eval mode, batch norms folded; its attribute `plan` says what was done.

    Raises:
        ValueError: If the plan is of another network, a setting is unknown, a correction asks for
            more scales than there are, images are needed and there are none, or an activation is
            constant or not finite on them.
    """
    settings = _settings(
        plan,
        {
            "scheme": scheme,
            "weight_granularity": weight_granularity,
            "weight_range": weight_range,
            "rounding": rounding,
            "correction": correction,
            "activation_range": activation_range,
            "sums": sums,
            "seed": seed,
        },
    )
    learned = settings["rounding"] == "learned"
    corrected = settings["correction"] != "none"
    on_grids = int(settings["calibration_images"]) if _rounds_activations(plan, settings) else 0
    needed = max(on_grids, IMAGES if learned or corrected else 0)
    images = None
    if needed:  # before any work, as there may be none
        images = draw_images(workload.calibration, needed, int(settings["seed"]))
    made = _rounded(workload, plan, settings)
    if images is None:
        return made.model
    reference = fold_batch_norm(workload.model, example_image(workload.test)).eval()
    if learned:
        learn_rounding(made.model, reference, made.layers, images[:IMAGES], progress=progress)
    if corrected:
        correct(made.model, reference, made.layers, images[:IMAGES], settings["correction"])
    if on_grids:
        made.attach(_grids(made, reference, images[:on_grids], settings))
    return made.model


def _settings(plan: BitPlan, given: Mapping[str, str | int | None]) -> dict[str, str]:
    """What to do: as given, else as in the plan, else the defaults.

    Raises:
        ValueError: If a name is unknown, a number is none, or settings contradict.
    """
    settings = {
        name: str(plan.quantizer.get(name, default) if given.get(name) is None else given[name])
        for name, default in DEFAULTS.items()
    }
    for name, known in CHOICES.items():
        if settings[name] not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {settings[name]!r}.")
    if not settings["seed"].isdecimal() or int(settings["seed"]) >= 2**63:
        raise ValueError(f"seed must be a whole number in 0…2^63 − 1, got {settings['seed']!r}.")
    images = settings["calibration_images"]
    if not images.isdecimal() or not int(images):
        raise ValueError(
            f"calibration_images must be a whole number from 1 on, got {images!r}: {IMAGES} is "
            "usual."
        )
    if settings["correction"] == "batch_norm" and settings["weight_granularity"] == "tensor":
        raise ValueError(
            "correction must be none or bias with one scale for the whole tensor, got "
            "'batch_norm', which changes the scale of each channel: set weight_granularity to "
            "'channel'."
        )
    return settings


def _rounds_activations(plan: BitPlan, settings: Mapping[str, str]) -> bool:
    return bool(plan.activation_bits) or settings["sums"] == "integer"


@dataclass(frozen=True)
class _Rounded:
    """A network with its weights rounded, and where its activations are to be."""

    model: nn.Module
    layers: tuple[Layer, ...]
    activations: tuple[Activation, ...]  # all there are, where some are to be rounded
    placed: tuple[Placement, ...]

    def attach(self, grids: Sequence[Grid]) -> None:
        """Round activations, to the grid of each place."""
        home = self.model.get_submodule(self.layers[0].parameter.rpartition(".")[0])
        attach_quantizers(self.model, home, self.placed, grids)


def _rounded(workload: Workload, plan: BitPlan, settings: Mapping[str, str]) -> _Rounded:
    """The folded network with every planned weight rounded to the nearest."""
    quantizer = Quantizer(*(settings[name] for name in QUANTIZER_SETTINGS))
    example = example_image(workload.test)
    model = fold_batch_norm(workload.model, example).eval()
    layers = {layer.name: layer for layer in find_layers(model, example)}
    _check_layers(plan, workload.name, list(layers))
    activations: tuple[Activation, ...] = ()
    placed: tuple[Placement, ...] = ()
    if _rounds_activations(plan, settings):
        found = find_activations(model, example)
        _check_activations(plan, workload.name, found)
        activations, placed = found.found, place(found, plan.activation_bits, settings["sums"])
    for name, bits in plan.weight_bits.items():
        channels = layers[name].channels
        weight = model.get_parameter(layers[name].parameter)
        put_on_grid(model, weight, quantizer.fit(channels.rows(weight), bits), bits, channels)
    model.plan = replace(plan, quantizer=dict(settings))  # type: ignore[assignment]
    return _Rounded(model, tuple(layers.values()), activations, placed)


def _grids(
    made: _Rounded, reference: nn.Module, images: Tensor, settings: Mapping[str, str]
) -> list[Grid]:
    """The grid of every place, from the float network's values.

    All activations are looked at, as in an analysis, so that the same values are drawn of each.
    """
    if not made.placed:
        return []
    others = [one.activation for one in made.placed if not one.planned]
    ranges: dict[str, Range] = {}
    for found in (made.activations, [x for x in others if x not in made.activations]):
        ranges |= calibrate(
            reference,
            found,
            images,
            activation_range=settings["activation_range"],
            seed=int(settings["seed"]),
        )
    return fitted(made.placed, ranges)


def _check_layers(plan: BitPlan, workload: str, names: Sequence[str]) -> None:
    """Refuse a plan with layers that the network lacks, or of another network and without some.

    A plan of this network may leave layers out; they stay float.
    """
    planned = list(plan.weight_bits)
    missing = [name for name in names if name not in plan.weight_bits]
    strange = [name for name in planned if name not in names]
    if strange:
        got = strange[0]
        known = [name for name in planned[: planned.index(got)] if name in names]
        rest = names[names.index(known[-1]) + 1 :] if known else names
        expected = repr(rest[0]) if rest else "no further layer"
    elif missing and plan.workload != workload:
        expected, place = repr(missing[0]), names.index(missing[0])
        got = planned[place] if place < len(planned) else ""
    else:
        return
    raise ValueError(
        f"plan must name the layers of {workload!r}, got {repr(got) if got else 'no layer'} where "
        f"{expected} was expected (the plan is of {plan.workload!r}): "
        "take a plan of this network."
    )


def _check_activations(plan: BitPlan, workload: str, found: Activations) -> None:
    """Refuse a plan with activations that the network lacks, or that cannot be reached."""
    names = [activation.name for activation in found.found]
    readers = {name: a.name for a in found.found for name in a.readers}
    for name in plan.activation_bits:
        if name in names:
            continue
        if name in found.skipped:
            why = f"which reads float, as {found.skipped[name]}: leave it out"
        elif name in readers:
            why = f"which reads the activation of {readers[name]!r}: give that one its bits"
        else:
            why = f"which is none (the plan is of {plan.workload!r}): take a plan of this network"
        raise ValueError(
            f"plan must name activations of {workload!r}, each by the first layer that reads it "
            f"({', '.join(names)}), got {name!r}, {why}."
        )


def put_on_grid(
    model: nn.Module, weight: nn.Parameter, grid: Grid, bits: int, channels: Channels
) -> None:
    """Let every module of a network that holds a weight read its nearest values on a grid."""
    owners = [
        (module, attribute)
        for module in model.modules()
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if parameter is weight
    ]
    for module, attribute in owners:
        wrapped = QuantizedWeight(grid, bits, channels)
        parametrize.register_parametrization(module, attribute, wrapped)


def plan_of(model: nn.Module) -> BitPlan:
    """What was done to a quantized network.

    Raises:
        ValueError: If it is none.
    """
    plan = getattr(model, "plan", None)
    if not isinstance(plan, BitPlan):
        raise ValueError(
            f"model must be one that quantize returned, got {type(model).__name__} without a plan."
        )
    return plan


def save_quantized(model: nn.Module, folder: str | Path) -> None:
    """Write a quantized network's plan and state (weights, scales, zero points) into a folder."""
    plan, folder = plan_of(model), Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    plan.save(folder / PLAN_FILE)
    state = {name: value.contiguous().clone() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS_FILE)


def load_quantized(workload: Workload, folder: str | Path) -> nn.Module:
    """Rebuild what `save_quantized` wrote, with the same outputs bit for bit.

    Raises:
        FormatError: If a file is missing, damaged or of another network.
    """
    plan, file = BitPlan.load(Path(folder) / PLAN_FILE), Path(folder) / WEIGHTS_FILE
    try:
        made = _rounded(workload, plan, _settings(plan, {}))
        made.attach(unfitted(made.placed))
        model, state = made.model, load_file(file)
        for name, value in state.items():  # biases that a correction added
            owner, _, attribute = name.rpartition(".")
            if attribute == "bias" and model.get_submodule(owner).bias is None:
                model.get_submodule(owner).bias = nn.Parameter(torch.empty_like(value))
        model.load_state_dict(state)
    except Exception as error:
        reason = in_short(error).rstrip(".")
        raise FormatError(
            f"{file} must hold the quantized {workload.name}, but {reason}."
        ) from error
    return model
