"""Make a quantized network trainable, and a trained one a quantized network again.

The float weights behind the rounding are trained. Rounding has no slope, so its own is taken for
that of the clamp alone (straight-through estimator: Bengio et al., "Estimating or Propagating
Gradients Through Stochastic Neurons", 2013); the scale of a grid may learn too (LSQ: Esser et al.,
"Learned Step Size Quantization", ICLR 2020).
"""

import copy
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from engine.corrections import moments_of, stretch_output
from engine.layers import norms_after_layers, run_hooked
from engine.quantizers import Grid, QuantizedWeight

LEAST_FACTOR = 1e-9  # of a live batch norm: training may shrink it, but not turn its sign


class TrainedWeight(QuantizedWeight):
    """A quantized weight that gradients pass through, to the weight and, if it learns, the scale.

    Gives the same values as a `QuantizedWeight` of the same grid.
    """

    def __init__(self, weight: QuantizedWeight, learned: bool, count: int) -> None:
        super().__init__(weight.grid, weight.bits, weight.channels)
        scale = self.get_buffer("scale")
        # A step size feels all its weights at once; LSQ scales its gradient to theirs.
        self.pace = (count / scale.numel() * max(abs(self.low), self.high, 1)) ** -0.5
        self.shifted = bool(self.get_buffer("zero_point").any())
        if learned:
            del self._buffers["scale"]
            self.scale = nn.Parameter(scale)

    def forward(self, weight: Tensor) -> Tensor:
        """Round a weight to the grid."""
        return _StraightThrough.apply(weight, self.scale, self)

    def keep_positive(self) -> None:
        """See that the scale stays one: positive."""
        scale = torch.as_tensor(self.scale)
        scale.clamp_(min=torch.finfo(scale.dtype).tiny)

    def quantized(self) -> QuantizedWeight:
        """The same as it is deployed."""
        scale = torch.as_tensor(self.scale).detach()
        grid = Grid(scale, self.get_buffer("zero_point"), self.low, self.high)
        return QuantizedWeight(grid, self.bits, self.channels)


class _StraightThrough(torch.autograd.Function):
    """Q(w) with ∂Q/∂w = 1 where no code is clamped, else 0, and ∂Q/∂s = code − z − [w/s there]."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, scale: Tensor, kind: TrainedWeight) -> Tensor:
        position = kind.channels.rows(weight) / scale
        zero_point = kind.get_buffer("zero_point") if kind.shifted else None
        nearest = (position if zero_point is None else position + zero_point).round()
        codes = nearest.clamp(kind.low, kind.high)
        outside = codes != nearest
        levels = codes if zero_point is None else codes - zero_point
        ctx.kind = kind
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(outside, levels - position.masked_fill_(outside, 0))
        else:
            ctx.save_for_backward(outside)
        return kind.channels.weight(levels * scale, weight.shape)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        kind, (outside, *slope) = ctx.kind, ctx.saved_tensors
        rows = kind.channels.rows(gradients[0])
        to_weight = kind.channels.weight(rows.masked_fill(outside, 0), gradients[0].shape)
        to_scale = None
        if slope:
            to_scale = (rows * slope[0]).sum(1, keepdim=True).mul_(kind.pace)
            if len(kind.scale) == 1:  # one that all channels share
                to_scale = to_scale.sum(0, keepdim=True)
        return to_weight, to_scale, None


def trainable(quantized: nn.Module, *, learned_scales: bool) -> nn.Module:
    """Copy a network that `quantize` returned, ready to be trained."""
    model = copy.deepcopy(quantized)
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    made: dict[Tensor, TrainedWeight] = {}  # a weight that layers share keeps one grid
    for owner, i, weight in _quantized_weights(model):
        original = owner.original
        if original not in made:
            made[original] = TrainedWeight(weight, learned_scales, original.numel())
        owner[i] = made[original]
    return model


def deployed(model: nn.Module) -> nn.Module:
    """Copy a network under training as `quantize` would return it: batch norms folded again."""
    model = copy.deepcopy(model)
    made: dict[nn.Module, QuantizedWeight] = {}
    for owner, i, weight in _quantized_weights(model):
        assert isinstance(weight, TrainedWeight)
        owner[i] = made.setdefault(weight, weight.quantized())
    for name, norm in list(model.named_modules()):
        if isinstance(norm, LiveNorm):
            stretch_output(model.get_submodule(norm.layer), *norm.factor_and_shift())
            model.set_submodule(name, nn.Identity())
    return model.eval()


def _quantized_weights(model: nn.Module) -> list[tuple[ParametrizationList, int, QuantizedWeight]]:
    return [
        (owner, i, weight)
        for owner in model.modules()
        if isinstance(owner, ParametrizationList)
        for i, weight in enumerate(owner)
        if isinstance(weight, QuantizedWeight)
    ]


class LiveNorm(nn.Module):
    """A batch norm that was folded into a layer, alive again: it begins as the identity.

    Args:
        norm: As it was in the float network.
        layer: Name of the layer that it was folded into.
        mean: Of the layer's output, [channels].
        variance: Likewise.
    """

    def __init__(self, norm: _BatchNorm, layer: str, mean: Tensor, variance: Tensor) -> None:
        super().__init__()
        self.layer = layer
        self.norm = copy.deepcopy(norm)
        self.norm.affine = True
        self.norm.weight = nn.Parameter((variance + norm.eps).sqrt())
        self.norm.bias = nn.Parameter(mean.clone())
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.copy_(mean)
        self.norm.running_var.copy_(variance)

    def forward(self, x: Tensor) -> Tensor:
        """Normalize."""
        return self.norm(x)

    def keep_positive(self) -> None:
        """See that folding turns no sign: a negative one would mirror the codes of a weight."""
        self.norm.weight.clamp_(min=LEAST_FACTOR)

    def factor_and_shift(self) -> tuple[Tensor, Tensor]:
        """What it makes of an output y in eval mode: y · factor + shift, each [channels]."""
        norm = self.norm
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight * (norm.running_var + norm.eps).rsqrt()
        return factor, norm.bias - norm.running_mean * factor


def revive_norms(model: nn.Module, original: nn.Module, images: Tensor) -> None:
    """Put live batch norms after the quantized layers of a network, in place.

    Args:
        model: What `trainable` returned; gives the same outputs as before, in eval mode.
        original: The float network with its batch norms.
        images: To find out mean and variance of each layer's output on.
    """
    found = [
        (layer, name)
        for layer, name in norms_after_layers(original, images[:1])
        if isinstance(model.get_submodule(name), nn.Identity)
        and is_parametrized(model.get_submodule(layer.name), "weight")
    ]
    moments: dict[str, tuple[Tensor, Tensor]] = {}

    def measure(layer: str, _: nn.Module, __: Any, output: Tensor) -> None:
        mean, deviation = moments_of(output, 1)
        moments[layer] = mean.to(output.dtype), deviation.square().to(output.dtype)

    with torch.no_grad():
        hooks = {layer.name: partial(measure, layer.name) for layer, _ in found}
        run_hooked(model.eval(), hooks, images)
    for layer, name in found:
        norm = original.get_submodule(name)
        assert isinstance(norm, _BatchNorm)
        model.set_submodule(name, LiveNorm(norm, layer.name, *moments[layer.name]))
