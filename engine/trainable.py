"""Make a quantized network trainable, and a trained one a quantized network again.

The float weights behind the rounding are trained. Rounding has no slope, so its own is taken for
that of the clamp alone (straight-through estimator: Bengio et al., "Estimating or Propagating
Gradients Through Stochastic Neurons", 2013); the scale of a grid may learn too (LSQ: Esser et al.,
"Learned Step Size Quantization", ICLR 2020). So for activations, whose grids may also follow what
each batch holds.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils.parametrize import ParametrizationList, is_parametrized

from engine.corrections import moments_of, stretch_output
from engine.layers import norms_after_layers, run_hooked
from engine.quantizers import Grid, QuantizedActivation, QuantizedWeight

RANGE_SMOOTHING = 0.95  # share of the running range that a batch leaves
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
        zero_point = self.get_buffer("zero_point") if self.shifted else None
        rows = self.channels.rows(weight)
        codes = self.low, self.high
        rounded = _StraightThrough.apply(rows, self.scale, zero_point, codes, self.pace)
        return self.channels.weight(rounded, weight.shape)

    def keep_positive(self) -> None:
        """See that the scale stays one: positive."""
        _keep_positive(self.scale)

    def quantized(self) -> QuantizedWeight:
        """The same as it is deployed."""
        scale = torch.as_tensor(self.scale).detach()
        grid = Grid(scale, self.get_buffer("zero_point"), self.low, self.high)
        return QuantizedWeight(grid, self.bits, self.channels)


class TrainedActivation(QuantizedActivation):
    """A quantized activation that gradients pass through, to the tensor and, maybe, the scale.

    Gives the same values as a `QuantizedActivation` of the same grid.

    Args:
        activation: As it is before the training.
        ranges: "learned": the scale is trained (LSQ), the zero point stays; "running": the grid
            holds a moving average of the least and the greatest value of each batch (Jacob et al.
            2018, sec. 3.1); "fixed": the grid stays.
        partners: Those that have their scale in common with this one, which joins them.
    """

    def __init__(
        self, activation: QuantizedActivation, ranges: str, partners: list["TrainedActivation"]
    ) -> None:
        super().__init__(activation.grid, activation.bits, activation.group)
        self.running = ranges == "running"
        self.partners = partners
        partners.append(self)
        scale, zero_point = self.get_buffer("scale"), self.get_buffer("zero_point")
        self.shifted = self.running or bool(zero_point)
        if ranges == "learned":
            del self._buffers["scale"]
            shared = partners[0].scale if len(partners) > 1 else None
            self.scale: Tensor = nn.Parameter(scale) if shared is None else shared
        if self.running:
            self.register_buffer("least", (self.low - zero_point) * scale)
            self.register_buffer("greatest", (self.high - zero_point) * scale)

    def forward(self, tensor: Tensor) -> Tensor:
        """Round a tensor of any shape to the grid."""
        if self.running and self.training:
            self._follow(tensor.detach())
        features = tensor.numel() // max(1, len(tensor)) if tensor.dim() else 1
        # The loss is a mean over images, so a step size feels the features of one.
        pace = (features * max(abs(self.low), self.high)) ** -0.5
        zero_point = self.get_buffer("zero_point") if self.shifted else None
        codes = self.low, self.high
        return _StraightThrough.apply(tensor, self.scale, zero_point, codes, pace)

    def _follow(self, tensor: Tensor) -> None:
        """Take a batch's range into the moving average, and the grid to that."""
        least, greatest = self.get_buffer("least"), self.get_buffer("greatest")
        low, high = tensor.aminmax()
        least.lerp_(low.clamp(max=0).to(least.dtype), 1 - RANGE_SMOOTHING)
        greatest.lerp_(high.clamp(min=0).to(greatest.dtype), 1 - RANGE_SMOOTHING)
        scale = torch.stack([partner._needed_scale() for partner in self.partners]).max()
        for partner in self.partners:
            partner.get_buffer("scale").copy_(scale)
            if partner.low == 0:
                zero_point = (-partner.get_buffer("least") / scale).round().clamp(max=partner.high)
                partner.get_buffer("zero_point").copy_(zero_point)

    def _needed_scale(self) -> Tensor:
        """The finest at which the codes hold the moving average of the range."""
        least, greatest = self.get_buffer("least"), self.get_buffer("greatest")
        if self.low == 0:
            scale = (greatest - least) / self.high
        else:
            scale = torch.maximum(least / self.low, greatest / self.high)
        return scale.clamp(min=torch.finfo(scale.dtype).tiny)

    def keep_positive(self) -> None:
        """See that the scale stays one: positive."""
        _keep_positive(self.scale)

    def quantized(self) -> QuantizedActivation:
        """The same as it is deployed."""
        scale = torch.as_tensor(self.scale)
        grid = Grid(scale, self.get_buffer("zero_point"), self.low, self.high)
        return QuantizedActivation(grid, self.bits, self.group)


def _keep_positive(scale: Tensor | nn.Module) -> None:
    positive = torch.as_tensor(scale)
    positive.clamp_(min=torch.finfo(positive.dtype).tiny)


class _StraightThrough(torch.autograd.Function):
    """Q(w) with ∂Q/∂w = 1 where no code is clamped, else 0, and ∂Q/∂s = code − z − [w/s there]."""

    @staticmethod
    def forward(
        ctx: Any,
        values: Tensor,
        scale: Tensor,
        zero_point: Tensor | None,
        codes: tuple[int, int],
        pace: float,
    ) -> Tensor:
        position = values / scale
        nearest = position.round() if zero_point is None else (position + zero_point).round_()
        levels = nearest.clamp(*codes)
        outside = levels != nearest
        if zero_point is not None:
            levels.sub_(zero_point)
        ctx.pace, ctx.shape = pace, scale.shape
        if ctx.needs_input_grad[1]:
            ctx.save_for_backward(outside, levels - position.masked_fill_(outside, 0))
        else:
            ctx.save_for_backward(outside)
        return levels.mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        outside, *slope = ctx.saved_tensors
        to_values = gradients[0].masked_fill(outside, 0)
        to_scale = None
        if slope:  # summed over all that share a scale
            to_scale = (gradients[0] * slope[0]).sum_to_size(ctx.shape).mul_(ctx.pace)
        return to_values, to_scale, None, None, None


def trainable(
    quantized: nn.Module, *, learned_scales: bool, activation_ranges: str = "learned"
) -> nn.Module:
    """Copy a network that `quantize` returned, ready to be trained.

    Args:
        quantized: Not changed.
        learned_scales: Whether the scales of weights are trained.
        activation_ranges: What becomes of the grids of activations, see `TrainedActivation`.
    """
    partners: dict[int | None, list[TrainedActivation]] = {}

    def begin(activation: QuantizedActivation) -> TrainedActivation:
        group = activation.group
        joined = [] if group is None else partners.setdefault(group, [])
        return TrainedActivation(activation, activation_ranges, joined)

    model = _copied(quantized, begin)
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
    model = _copied(model, TrainedActivation.quantized)
    made: dict[nn.Module, QuantizedWeight] = {}
    for owner, i, weight in _quantized_weights(model):
        assert isinstance(weight, TrainedWeight)
        owner[i] = made.setdefault(weight, weight.quantized())
    for name, norm in list(model.named_modules()):
        if isinstance(norm, LiveNorm):
            stretch_output(model.get_submodule(norm.layer), *norm.factor_and_shift())
            _put(model, name, nn.Identity())
    return model.eval()


def _copied(model: nn.Module, turned: Callable[[Any], nn.Module]) -> nn.Module:
    """Copy a network with its quantized activations turned into others, wherever they are held."""
    memo = {id(m): turned(m) for m in model.modules() if isinstance(m, QuantizedActivation)}
    return copy.deepcopy(model, memo)


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module in another's place, and what stands at its input and output with it."""
    before = model.get_submodule(name)
    module._forward_pre_hooks = before._forward_pre_hooks
    module._forward_hooks = before._forward_hooks
    model.set_submodule(name, module)


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
        _put(model, name, LiveNorm(norm, layer.name, *moments[layer.name]))
