"""Learn which weights to round up and which down: AdaRound, layer by layer.

The nearest value is not the best for each weight, as the errors of the weights that one output sums
over may cancel. A layer's output is linear in its weight, so with x the inputs that one output
sees, w its weights, b its bias and y what the float network gives there,

    E(w·x + b − y)² = w G wᵀ − 2 w·c + E(y − b)²,   G = E[x xᵀ],   c = E[(y − b) x].

Means are over calibration images and places in them; x comes from the layers before as they are
already rounded. G and c are summed up once, so every step of the search sees all images. See Nagel
et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020: eq. 13 for the
quadratic form, eq. 23 to 25 for the search.
"""

import math
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize
from torch.utils.data import Dataset

from engine.calibration import IMAGES as IMAGES
from engine.calibration import draw
from engine.layers import Layer, run_hooked
from engine.quantizers import Grid, QuantizedWeight
from engine.results import Progress

ROUNDINGS = ("nearest", "learned")
BATCH = 32  # images run at once
INPUTS = 4608  # of one output, at most: summing up G of so many takes half a gigabyte
PATCHES = 2**24  # numbers in the inputs of all outputs that are held at once
ITERATIONS = 1000  # steps of Adam a layer
LEARNING_RATE = 0.1
REGULARIZER = 0.1  # λ, in squared steps of the grid
WARM_UP = 0.2  # share of the steps before the regularizer begins
SHARPNESS = (20.0, 2.0)  # β, first and last
STRETCH = (-0.1, 1.1)  # γ, ζ of the rectified sigmoid
LEAST_GAIN = 1e-9  # of a change after the search, in squared steps of the grid
TOLERANCE = 1e-3  # of the largest output: what counts as linear


def draw_images(dataset: "Dataset[Any]", images: int, seed: int) -> Tensor:
    """Draw images at random, each at most once: [N, ...], all where there are fewer.

    Raises:
        ValueError: If there are none.
    """
    return torch.stack([image for image, _ in draw(dataset, images, seed)])


def lone_modules(
    model: nn.Module, layers: Sequence[Layer], images: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    """Find the layers that are one module, called once, that alone owns its weight.

    Args:
        model: In eval mode.
        layers: Of this network.
        images: [N, ...] to run it on.

    Returns:
        What went into each module and what came out of it, by the layer's name, in forward order.
    """
    owners = [
        id(parameter)
        for module in model.modules()
        for parameter in module._parameters.values()
        if parameter is not None
    ]
    seen: dict[str, tuple[Tensor, Tensor]] = {}
    hooks = {}
    for layer in layers:
        if layer.calls > 1 or layer.parameter != f"{layer.name}.weight":
            continue
        module = model.get_submodule(layer.name)
        if owners.count(id(module.weight)) > 1 or "bias" not in module._parameters:
            continue

        def note(_: nn.Module, inputs: Any, output: Any, name: str = layer.name) -> None:
            if len(inputs) == 1 and isinstance(output, Tensor):
                seen[name] = inputs[0], output

        hooks[layer.name] = note
    run_hooked(model, hooks, images)
    return seen


@torch.no_grad()
def learn_rounding(
    model: nn.Module,
    reference: nn.Module,
    layers: Sequence[Layer],
    images: Tensor,
    *,
    progress: Progress | None = None,
) -> None:
    """Round a quantized network's weights so that each layer's output is best kept, in place.

    Layers follow in forward order, each with what the rounded ones before it now give. Every weight
    goes to one of its two neighbours on the grid, which stays. An output channel that the search
    does not improve, on the same images, keeps its nearest values; so do layers called more than
    once, that share their weight, that are not one module whose output is linear in its weight, or
    with more than `INPUTS` inputs an output.

    Args:
        model: With a `QuantizedWeight` on every weight to round; in eval mode.
        reference: The float network, folded, in eval mode.
        layers: Of the reference.
        images: [N, ...], at most `BATCH` of them run at once.
        progress: Told of layers done.
    """
    found = {layer.name: layer for layer in layers}
    lone = lone_modules(reference, layers, images[:1])
    for i, (name, (example, _)) in enumerate(lone.items()):
        module, rounded = reference.get_submodule(name), model.get_submodule(name)
        if parametrize.is_parametrized(rounded, "weight") and _is_linear(
            module, found[name], example
        ):
            moments = _moments(model, reference, found[name], images)
            _round(rounded, moments)
        if progress:
            progress(i + 1, len(lone), "layers rounded")


@dataclass(frozen=True)
class Moments:
    """What the error of a layer's output depends on, in float64."""

    second: Tensor  # G: [groups, inputs, inputs]
    cross: Tensor  # c: [groups, output channels a group, inputs]

    def errors(self, rows: Tensor) -> Tensor:
        """w G wᵀ − 2 w·c of each output channel, [channels]: its squared error but a constant."""
        weights = rows.double().reshape(self.cross.shape)
        return (weights * (weights @ self.second - 2 * self.cross)).sum(2).flatten()


@torch.no_grad()
def learned_codes(rows: Tensor, grid: Grid, moments: Moments) -> Tensor:
    """Choose for every weight the code below or above it, so that the outputs suffer least.

    V minimises error(⌊w⌋ + h(V)) + λ Σ (1 − |2h − 1|^β) with h(V) = clamp(σ(V)(ζ − γ) + γ, 0, 1) by
    Adam, β falling until every h is 0 or 1. Errors are in squared steps of the grid, divided by the
    mean of G's diagonal, so that λ means the same in every layer. Then single codes change as long
    as that lowers the error, for Adam leaves up to half of it to gain in a layer of few inputs; a
    channel where the nearest codes, improved in this way too, do better gets these.

    Args:
        rows: Weights [channels, inputs].
        grid: Where they go.
        moments: Of the layer.

    Returns:
        Codes [channels, inputs]; the nearest in a channel where none does better.
    """
    nearest = grid.codes(rows)
    power = moments.second.diagonal(dim1=1, dim2=2).mean()
    position = rows / grid.scale + grid.zero_point
    floor = position.floor()
    free = (floor >= grid.low) & (floor < grid.high)
    if not power or not bool(free.any()):
        return nearest
    floor = floor.clamp(grid.low, grid.high)
    shape = moments.cross.shape
    scale = grid.scale.expand(len(rows), 1).reshape(*shape[:2], 1)
    second = (moments.second / power).to(rows.dtype)
    cross = (moments.cross / power).to(rows.dtype) / scale
    low, high = STRETCH
    share = ((position - floor).clamp(0, 1) - low) / (high - low)
    v = torch.logit(share).requires_grad_(True)
    optimizer = torch.optim.Adam([v], lr=LEARNING_RATE)
    for step in range(ITERATIONS):
        with torch.enable_grad():
            up = _up(v)
            levels = floor + free * up - grid.zero_point
            weights = levels.detach().reshape(shape)
            slope = 2 * (weights @ second - cross).reshape(rows.shape)  # of the error, in levels
            loss = (slope * levels).sum()
            done = (step / ITERATIONS - WARM_UP) / (1 - WARM_UP)
            if done >= 0:
                first, last = SHARPNESS
                beta = last + (first - last) * (1 + math.cos(math.pi * done)) / 2
                loss = loss + REGULARIZER * (1 - (2 * up - 1).abs().pow(beta)).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    best, least = nearest, moments.errors((nearest - grid.zero_point) * grid.scale)
    for start in (nearest, floor + free * (_up(v) >= 0.5)):
        codes = _descended(start, floor, free, grid, moments)
        errors = moments.errors((codes - grid.zero_point) * grid.scale)
        best = torch.where((errors < least)[:, None], codes, best)
        least = torch.minimum(least, errors)
    return best


def _descended(codes: Tensor, floor: Tensor, free: Tensor, grid: Grid, moments: Moments) -> Tensor:
    """Change one code of each channel at a time, the one that lowers its error most, to the end.

    Turning one weight by d changes the error by d² G_ii + 2 d (w G − c)_i.
    """
    shape = moments.cross.shape
    scale = grid.scale.double().expand(len(codes), 1).reshape(*shape[:2], 1)
    up = (codes > floor).reshape(shape)
    fixed = ~free.reshape(shape)
    levels = (codes - grid.zero_point).double().reshape(shape)
    slope = 2 * ((levels * scale) @ moments.second - moments.cross)
    squares = moments.second.diagonal(dim1=1, dim2=2)[:, None]
    least = LEAST_GAIN * scale.square() * squares.mean()
    while True:
        turn = torch.where(up, -scale, scale)
        gains = -turn * (slope + turn * squares)
        gain, place = gains.masked_fill(fixed, -torch.inf).max(2, keepdim=True)
        better = gain > least
        if not bool(better.any()):
            break
        moved = turn.gather(2, place) * better
        rows = moments.second.gather(1, place.expand(-1, -1, shape[2]))  # of G, [.., inputs]
        slope += 2 * moved * rows
        up.scatter_(2, place, up.gather(2, place) ^ better)
    return floor + up.reshape(codes.shape)


def _up(v: Tensor) -> Tensor:
    """h(V), the rectified sigmoid."""
    low, high = STRETCH
    return (v.sigmoid() * (high - low) + low).clamp(0, 1)


def _round(module: nn.Module, moments: Moments) -> None:
    """Change a stored weight where needed, so that its nearest codes are the learned ones."""
    parametrizations: Any = module.parametrizations
    weights = parametrizations["weight"]
    quantized: QuantizedWeight = weights[0]
    rows = quantized.channels.rows(weights.original)
    codes = learned_codes(rows, quantized.grid, moments)
    weights.original.copy_(quantized.holding(weights.original, codes))


def _moments(model: nn.Module, reference: nn.Module, layer: Layer, images: Tensor) -> Moments:
    """Sum up G and c over the images."""
    module = reference.get_submodule(layer.name)
    rows = _rows(module, layer).double()
    cross = torch.zeros_like(rows).unflatten(0, (_groups(module), -1))
    second = rows.new_zeros(len(cross), rows.shape[1], rows.shape[1])
    count = 0
    with parametrize.cached():
        for batch in images.split(BATCH):
            inputs, _ = _reach(model, layer.name, batch)
            _, outputs = _reach(reference, layer.name, batch)
            for x, y in _parts(inputs, outputs, module, layer):
                patches = _patches(module, layer, x)
                targets = _by_channel(y, layer, len(patches), module.bias)
                second += patches @ patches.mT
                cross += targets @ patches.mT
                count += patches.shape[2]
    return Moments(second.div_(count), cross.div_(count))


def _parts(
    inputs: Tensor, outputs: Tensor, module: nn.Module, layer: Layer
) -> "zip[tuple[Tensor, Tensor]]":
    """Split a mini-batch so that the inputs of all outputs do not take too much memory."""
    channels, inputs_an_output = _rows(module, layer).shape
    patches = outputs.numel() // channels * _groups(module) * inputs_an_output
    at_once = max(1, PATCHES * len(inputs) // patches)
    return zip(inputs.split(at_once), outputs.split(at_once), strict=True)


class _ReachedError(Exception):
    """Ends a forward pass."""


def _reach(model: nn.Module, name: str, images: Tensor) -> tuple[Tensor, Tensor]:
    """What goes into a module and comes out, running the network no further."""
    caught: list[tuple[Tensor, Tensor]] = []

    def stop(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        caught.append((inputs[0], output))
        raise _ReachedError

    with suppress(_ReachedError):
        run_hooked(model, {name: stop}, images)
    return caught[0]


def _patches(module: nn.Module, layer: Layer, images: Tensor) -> Tensor:
    """The inputs that each output of a layer sums over: [groups, inputs, outputs].

    Read off the layer itself: an output channel with a single weight of 1 gives the input that this
    weight meets, whatever the stride, padding or dilation.
    """
    channels, rows, groups = layer.channels, _rows(module, layer), _groups(module)
    inputs = rows.shape[1]
    units = torch.eye(inputs, dtype=rows.dtype, device=rows.device).repeat(groups, 1)
    shape = list(layer.shape)
    shape[channels.axis] = inputs * (1 if channels.groups > 1 else groups)
    changed = {"weight": channels.weight(units, torch.Size(shape))}
    if module.bias is not None:
        changed["bias"] = units.new_zeros(len(units))
    return _by_channel(functional_call(module, changed, (images,)), layer, groups, None)


def _groups(module: nn.Module) -> int:
    """Parts that a layer's input is split into, each for some of the outputs."""
    return int(getattr(module, "groups", 1))


def _rows(module: nn.Module, layer: Layer) -> Tensor:
    """A layer's weight as [output channels, inputs]."""
    assert isinstance(module.weight, Tensor)
    return layer.channels.rows(module.weight)


def _by_channel(outputs: Tensor, layer: Layer, groups: int, bias: Any) -> Tensor:
    """A layer's output without its bias: [groups, channels a group, outputs]."""
    rows = outputs.movedim(channel_axis(layer), 0).flatten(1)
    if bias is not None:
        rows = rows - bias[:, None]
    return rows.unflatten(0, (groups, -1))


def channel_axis(layer: Layer) -> int:
    """Axis of a layer's output that its channels lie on, counted from the end."""
    return -1 if layer.kind == "linear" else 1 - len(layer.shape)


def _is_linear(module: nn.Module, layer: Layer, images: Tensor) -> bool:
    """Whether a layer's output is its weights times its inputs plus its bias, on these images."""
    rows = _rows(module, layer)
    if rows.shape[1] > INPUTS or len(layer.shape) < 2:
        return False
    outputs = module(images)
    if layer.kind != "linear" and outputs.dim() != len(layer.shape):  # no axis of images
        return False
    try:
        patches = _patches(module, layer, images)
        expected = _by_channel(outputs, layer, len(patches), module.bias)
        got = rows.reshape(len(patches), -1, rows.shape[1]) @ patches
    except Exception:  # whatever a module of another kind makes of such a weight
        return False
    apart = (got - expected).abs().max()
    return bool(apart <= TOLERANCE * outputs.abs().max())
