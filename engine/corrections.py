"""Give each layer's output back the moments it had before rounding, with no training.

Rounding shifts and stretches what a layer gives, and the layers after it were not trained for that.
Per output channel, over all calibration images and places in them, with m and s the mean and the
standard deviation of the float network (f) and of the quantized one (q):

    bias          b' = b + m_f − m_q
    batch_norm    y' = (y − m_q) · s_f / s_q + m_f, through the scale of the grid and the bias

The first is the empirical bias correction of Nagel et al., "Data-Free Quantization Through Weight
Equalization and Bias Correction", 2019, sec. 4.2.2. The second is what the folded batch norms do if
their statistics are estimated again.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.utils import parametrize

from engine.layers import Layer, run_hooked
from engine.quantizers import QuantizedWeight
from engine.rounding import TOLERANCE, channel_axis, lone_modules

CORRECTIONS = ("none", "bias", "batch_norm")
OUTPUT_BYTES = 2**28  # of the largest output over all images: as many images as this allows
DEAD = 1e-5  # standard deviation, as a share of the mean, below which a channel does not vary


@torch.no_grad()
def correct(
    model: nn.Module, reference: nn.Module, layers: Sequence[Layer], images: Tensor, correction: str
) -> None:
    """Correct the quantized layers of a network one after the other, in place.

    One forward pass of each network over all images at once: as the quantized network runs, each
    layer is measured, corrected, and hands on the corrected output. Layers without a bias get one.
    A channel that does not vary, in either network, keeps its scale. Layers called more than once,
    that share their weight, that keep it outside a module with a bias, or whose output is not
    weight × input + bias are left as they are. No code changes.

    Args:
        model: With a `QuantizedWeight` on each quantized weight, in eval mode.
        reference: The float network, folded, in eval mode.
        layers: Of the reference.
        images: [N, ...]; as many are used as keep the largest output within `OUTPUT_BYTES`, one at
            least.
        correction: "bias", or "batch_norm", which needs one scale per channel.
    """
    stretch = 2.0 if correction == "batch_norm" else 1.0
    found = {layer.name: layer for layer in layers}
    lone = {
        name: output
        for name, (example, output) in lone_modules(reference, layers, images[:1]).items()
        if parametrize.is_parametrized(model.get_submodule(name), "weight")
        and _is_affine(reference.get_submodule(name), found[name], example, stretch)
    }
    if not lone:
        return
    largest = max(output.numel() * output.element_size() for output in lone.values())
    images = images[: max(1, OUTPUT_BYTES // largest)]
    moments: dict[str, tuple[Tensor, Tensor]] = {}

    def measure(name: str, _: nn.Module, __: Any, output: Tensor) -> None:
        moments[name] = moments_of(output, channel_axis(found[name]))

    def mend(name: str, module: nn.Module, _: Any, output: Tensor) -> Tensor:
        axis = channel_axis(found[name])
        mean, deviation = moments_of(output, axis)
        wanted_mean, wanted = moments[name]
        ratio = torch.ones_like(mean)
        if correction == "batch_norm":
            alive = (deviation > DEAD * mean.abs()) & (wanted > DEAD * wanted_mean.abs())
            ratio = torch.where(alive, wanted / deviation, ratio)
        shift = wanted_mean - mean * ratio
        stretch_output(module, ratio, shift)
        shape = [-1 if i == axis % output.dim() else 1 for i in range(output.dim())]
        return (output * ratio.reshape(shape) + shift.reshape(shape)).to(output.dtype)

    run_hooked(reference, {name: partial(measure, name) for name in lone}, images)
    run_hooked(model, {name: partial(mend, name) for name in lone}, images)


def moments_of(output: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel, in float64."""
    rows = output.movedim(axis, 0).flatten(1)
    mean = rows.mean(1, dtype=torch.float64)
    centred = rows - mean.to(rows.dtype)[:, None]
    variance = centred.square_().mean(1, dtype=torch.float64)
    return mean, variance.sqrt()


@torch.no_grad()
def stretch_output(module: nn.Module, ratio: Tensor, shift: Tensor) -> None:
    """y · ratio + shift, into the bias, the grid and the weight behind it: no code changes.

    Args:
        module: With a `QuantizedWeight` on its weight; gets a bias if it has none.
        ratio: [channels], positive.
        shift: [channels].
    """
    parametrizations: Any = module.parametrizations
    weights = parametrizations["weight"]
    quantized: QuantizedWeight = weights[0]
    original = weights.original
    if not bool((ratio == 1).all()):
        rows = quantized.channels.rows(original)
        codes = quantized.grid.codes(rows)
        factor = ratio.to(rows.dtype)[:, None]
        quantized.get_buffer("scale").mul_(factor)
        stretched = quantized.channels.weight(rows * factor, original.shape)
        original.copy_(quantized.holding(stretched, codes))
    bias: Any = module.bias
    if bias is None:
        needs_gradient = original.requires_grad
        module.bias = nn.Parameter(shift.to(original.dtype), requires_grad=needs_gradient)
    else:
        bias.copy_(bias * ratio + shift)


def _is_affine(module: nn.Module, layer: Layer, images: Tensor, stretch: float) -> bool:
    """Whether a layer's output grows with its weight and bias as that of a plain layer does."""
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    channels = layer.channels.rows(weight).shape[0]
    before = module(images)
    size = float(before.abs().max()) or 1.0
    shift = torch.full((channels,), size, dtype=weight.dtype, device=weight.device)
    changed = {"weight": stretch * weight, "bias": shift}
    if isinstance(bias, Tensor):
        changed["bias"] = stretch * bias + shift
    try:
        after = functional_call(module, changed, (images,))
        apart = (after - (stretch * before + size)).abs().max()
    except Exception:  # whatever a module of another kind makes of a bias
        return False
    return bool(apart <= TOLERANCE * size)
