"""Which weights may lose bits: those that a convolution or a matrix product really reads.

Layers are found by running the network once and watching the operators, whatever classes it is
made of; batch norms that follow a layer, and nothing else reads, are found the same way.
"""

import copy
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

aten = torch.ops.aten
MATRIX_PRODUCTS = {aten.mm, aten.addmm, aten.bmm, aten.baddbmm, aten.mv, aten.addmv}
BATCH_NORMS = {
    aten.native_batch_norm,
    aten.cudnn_batch_norm,
    aten.miopen_batch_norm,
    aten._native_batch_norm_legit_no_training,
}
PLAIN_BATCH_NORMS = (_BatchNorm.forward, nn.SyncBatchNorm.forward)
FOLDING_TOLERANCE = 1e-3  # of the largest output


@dataclass(frozen=True)
class Channels:
    """Where a weight keeps its output channels."""

    axis: int = 0
    groups: int = 1  # above 1 only for a transposed convolution, which keeps channels in groups

    def rows(self, weight: Tensor) -> Tensor:
        """View a weight as [output channels, weights a channel]; a vector makes one output."""
        if weight.dim() == 1:
            return weight.unsqueeze(0)
        if self.groups > 1:  # [in, out / groups, ...] → [groups, out / groups, in / groups, ...]
            weight = weight.unflatten(0, (self.groups, -1)).movedim(2, 1).flatten(0, 1)
            return weight.flatten(1)
        if self.axis == 0:
            return weight.flatten(1)
        return weight.movedim(self.axis, 0).flatten(1)

    def weight(self, rows: Tensor, shape: torch.Size) -> Tensor:
        """Undo `rows` for a weight of the given shape."""
        if len(shape) == 1:
            return rows.squeeze(0)
        if self.groups > 1:
            split = (self.groups, shape[1], shape[0] // self.groups, *shape[2:])
            return rows.reshape(split).movedim(1, 2).reshape(shape)
        if self.axis == 0:
            return rows.reshape(shape)
        moved = (shape[self.axis], *shape[: self.axis], *shape[self.axis + 1 :])
        return rows.reshape(moved).movedim(0, self.axis)


@dataclass(frozen=True)
class Layer:
    """A weight that a convolution or a matrix product reads."""

    name: str  # of its module; of the parameter where that is not called "weight"
    parameter: str  # as in `named_parameters`
    kind: str  # conv2d, conv_transpose2d, linear …
    shape: tuple[int, ...]
    macs: int  # multiply-accumulates an image, over all calls
    calls: int  # how often one forward pass reads it
    channels: Channels

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return prod(self.shape)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a network into eval mode with gradients for all it owns, and give it back as it was."""
    modes = [(module, module.training) for module in model.modules()]
    frozen = [p for p in model.parameters() if not p.requires_grad and p.is_floating_point()]
    model.eval()
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for parameter in frozen:
            parameter.requires_grad_(False)


def find_layers(model: nn.Module, images: Tensor) -> tuple[Layer, ...]:
    """Find the quantizable layers of a network in forward order.

    Args:
        model: Any network; it comes back as it was.
        images: [N, ...], one is enough.

    Raises:
        ValueError: If none is found.
    """
    watch = _watch(model, images)
    if not watch.layers:
        raise ValueError(
            f"model must call a convolution or a linear layer, got {type(model).__name__} "
            "without one: quantize a network that has weights."
        )
    return tuple(watch.layers.values())


def skipped_weights(model: nn.Module, layers: tuple[Layer, ...]) -> dict[str, str]:
    """Weights of two axes or more that keep their precision, and why."""
    found = {layer.parameter for layer in layers}
    return {
        name: "no convolution or matrix product reads it as it is stored"
        for name, parameter in model.named_parameters()
        if parameter.dim() > 1 and name not in found
    }


def run_hooked(
    model: nn.Module, hooks: Mapping[str, Callable[[nn.Module, Any, Any], Any]], images: Tensor
) -> None:
    """Run a network once with forward hooks on some of its modules, and take them off again.

    Args:
        model: Any network.
        hooks: By the module's name: called with (module, inputs, output); what a hook returns, if
            anything, goes on in place of the output. One may raise to end the run.
        images: [N, ...].
    """
    handles = [
        model.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()
    ]
    try:
        model(images)
    finally:
        for handle in handles:
            handle.remove()


def norms_after_layers(model: nn.Module, images: Tensor) -> list[tuple[Layer, str]]:
    """Layers called once whose output one batch norm reads, and nothing else, with its name.

    Args:
        model: Any network; it comes back as it was.
        images: [N, ...], one is enough.
    """
    return _watch(model, images).foldable()


def fold_batch_norm(model: nn.Module, images: Tensor) -> nn.Module:
    """Copy a network with every batch norm that follows a layer folded into its weights.

    w' = w · γ / √(σ² + ε), b' = β + (b − μ) · γ / √(σ² + ε), per output channel; the batch norm
    becomes the identity and layers keep their names. Batch norms that other operators read too,
    or that follow no layer, stay. A `FrozenBatchNorm2d`, of torchvision's or Detectron2's
    detectors, is one too.

    The outputs are compared. In float32 a deep network of which nothing was trained can answer
    rounding alone with more than the tolerance, folded or not; then float64 decides, on one image.

    Args:
        model: Not changed.
        images: [N, ...] to find the pairs with and to compare the outputs on.

    Raises:
        ValueError: If the folded network gives other outputs than the model.
    """
    pairs = norms_after_layers(_thawed(model), images)
    folded = _with_folded(model, pairs)
    error = _apart(model, folded, images)
    if error > FOLDING_TOLERANCE and images.dtype == torch.float32:
        double = copy.deepcopy(model).double()
        with suppress(RuntimeError):  # of a network that holds on to float32
            error = _apart(double, _with_folded(double, pairs), images[:1].double())
    if error > FOLDING_TOLERANCE:
        raise _not_folded(f"outputs {error:.2g} of the largest apart")
    return folded


def _with_folded(model: nn.Module, pairs: list[tuple[Layer, str]]) -> nn.Module:
    """A copy with these batch norms folded into these layers."""
    folded = copy.deepcopy(model)
    with torch.no_grad():
        for layer, norm_name in pairs:
            norm = folded.get_submodule(norm_name)
            if _is_frozen(norm):
                norm = _batch_norm_of(norm)
            assert isinstance(norm, _BatchNorm)
            _fold(folded.get_submodule(layer.name), norm, layer.channels)
            if type(norm).forward in PLAIN_BATCH_NORMS:
                folded.set_submodule(norm_name, nn.Identity())
            else:  # a subclass may do more, an activation say: its own share becomes the identity
                _neutralize(norm)
    return folded


def _thawed(model: nn.Module) -> nn.Module:
    """A copy with a batch norm in place of each frozen one; the model itself if it has none."""
    frozen = [name for name, module in model.named_modules() if _is_frozen(module)]
    thawed = copy.deepcopy(model) if frozen else model
    for name in frozen:
        thawed.set_submodule(name, _batch_norm_of(thawed.get_submodule(name)))
    return thawed


def _is_frozen(module: nn.Module) -> bool:
    """Whether it is a batch norm with four buffers and no parameter; several libraries have one."""
    return type(module).__name__ == "FrozenBatchNorm2d"


def _batch_norm_of(frozen: nn.Module) -> nn.BatchNorm2d:
    """The batch norm, in eval mode, that computes what a frozen one does."""
    state = frozen.state_dict()
    norm = nn.BatchNorm2d(len(state["weight"]), eps=float(getattr(frozen, "eps", 1e-5))).eval()
    norm.load_state_dict(state, strict=False)  # it has counted no batches
    return norm.to(state["weight"])


@torch.no_grad()
def _apart(model: nn.Module, folded: nn.Module, images: Tensor) -> float:
    """How far the outputs are apart at most, as a share of the largest, or of 1 if that is less."""
    with evaluation_mode(model), evaluation_mode(folded):
        expected = tree_leaves(model(images))
        try:
            got = tree_leaves(folded(images))
        except AttributeError as missing:  # of the identity, which is no batch norm
            raise _not_folded(missing) from missing
    worst = 0.0
    for before, after in zip(expected, got, strict=True):
        if isinstance(before, Tensor):
            size = max(float(before.abs().max()), 1.0)
            error = float((after - before).abs().max()) / size
            worst = error if error > worst else worst  # NaN is for those to find who read it
    return worst


def _not_folded(got: object) -> ValueError:
    return ValueError(
        f"model must compute the same with its batch norms folded, got {got}: "
        "replace the batch norms that its code reads by other ways than a call."
    )


def _fold(module: nn.Module, norm: _BatchNorm, channels: Channels) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        factor = factor * norm.weight
    shift = -norm.running_mean * factor
    if norm.bias is not None:
        shift = shift + norm.bias
    weight, bias = module.weight, module.bias
    assert isinstance(weight, Tensor)
    rows = channels.rows(weight) * factor[:, None]
    weight.copy_(channels.weight(rows, weight.shape))
    if isinstance(bias, Tensor):
        bias.copy_(bias * factor + shift)
    else:
        module.bias = nn.Parameter(shift.clone(), requires_grad=weight.requires_grad)


def _neutralize(norm: _BatchNorm) -> None:
    for tensor in (norm.running_mean, norm.bias):
        if tensor is not None:
            tensor.zero_()
    for tensor in (norm.running_var, norm.weight):
        if tensor is not None:
            tensor.fill_(1)
    norm.eps = 0.0


def _watch(model: nn.Module, images: Tensor) -> "Watch":
    # with gradients, for without them attention takes a fused path that hides its weights
    with evaluation_mode(model), torch.enable_grad(), Watch(model, images) as watch:
        outputs = model(images)
    watch.read(outputs, None)
    return watch


class Watch(TorchDispatchMode):
    """Notes which operator reads which weight, and who reads a layer's output."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.images = model, len(images)
        self.layers: dict[str, Layer] = {}
        self.weights = {place_of(p): (name, p) for name, p in model.named_parameters()}
        self.norms = {
            place_of(module.running_mean): name
            for name, module in model.named_modules()
            if isinstance(module, _BatchNorm) and module.running_mean is not None
        }
        self.alive: list[Tensor] = []  # so that no two outputs share a place
        self.writers: dict[int, str] = {}  # place of a layer's output → the layer
        self.readers: dict[str, list[str | None]] = {}  # layer → the batch norm that reads, or None
        self.norm_calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        outputs = func(*args, **(kwargs or {}))
        operator = func.overloadpacket
        norm = self._norm(args) if operator in BATCH_NORMS else None
        self.read((args, kwargs), norm)
        if norm is not None:
            self.norm_calls[norm] += 1
        if operator is aten.convolution:
            self._convolution(args, outputs)
        elif operator in MATRIX_PRODUCTS:
            self._product(args, outputs)
        return outputs

    def read(self, values: Any, norm: str | None) -> None:
        """Note that an operator reads these values; a batch norm gives its name."""
        for value in tree_leaves(values):
            if isinstance(value, Tensor) and (writer := self.writers.get(place_of(value))):
                self.readers[writer].append(norm)

    def foldable(self) -> list[tuple[Layer, str]]:
        """Layers and the batch norms to fold into them, see `norms_after_layers`."""
        pairs = []
        for name, readers in self.readers.items():
            layer, norm = self.layers[name], readers[0] if len(readers) == 1 else None
            own = layer.parameter == f"{name}.weight" and hasattr(
                self.model.get_submodule(name), "bias"
            )
            if norm is not None and self.norm_calls[norm] == 1 and layer.calls == 1 and own:
                pairs.append((layer, norm))
        return pairs

    def _norm(self, args: Any) -> str | None:
        names = (self.norms.get(place_of(x)) for x in args if isinstance(x, Tensor))
        return next((name for name in names if name is not None), None)

    def _convolution(self, args: Any, output: Tensor) -> None:
        image, weight, transposed, groups = args[0], args[1], args[6], args[8]
        kind = f"conv{'_transpose' if transposed else ''}{weight.dim() - 2}d"
        channels = Channels(axis=int(transposed), groups=groups if transposed else 1)
        pixels = image.numel() if transposed else output.numel()
        self._note(weight, kind, pixels * (weight.numel() // weight.shape[0]), channels, output)

    def _product(self, args: Any, output: Tensor) -> None:
        factors = [x for x in args if isinstance(x, Tensor)][-2:]
        for i, factor in enumerate(factors):
            if place_of(factor) not in self.weights:
                continue
            weight = self.weights[place_of(factor)][1]
            free = factor.dim() - 1 if i else factor.dim() - 2  # the axis that is not summed over
            axis = 0 if factor.stride(free) == weight.stride(0) else weight.dim() - 1
            if weight.shape[-1] == 1 and factor.shape[free] == 1:  # a column: strides are equal
                axis = weight.dim() - 1
            outputs_of_factor = 1 if factor.dim() == 1 else factor.shape[free]
            macs = output.numel() * factor.numel() // outputs_of_factor
            if factor.dim() == 3:  # a batch of products: each output sums over one of them
                macs //= factor.shape[0]
            self._note(factor, "linear", macs, Channels(axis), output)

    def _note(
        self, weight: Tensor, kind: str, macs: int, channels: Channels, output: Tensor
    ) -> None:
        if place_of(weight) not in self.weights:
            return
        parameter, stored = self.weights[place_of(weight)]
        name = parameter.removesuffix(".weight")
        before = self.layers.get(name)
        self.layers[name] = Layer(
            name=name,
            parameter=parameter,
            kind=kind,
            shape=tuple(stored.shape),
            macs=macs // self.images + (before.macs if before else 0),
            calls=1 + (before.calls if before else 0),
            channels=channels,
        )
        self.alive.append(output)
        self.writers[place_of(output)] = name
        self.readers.setdefault(name, [])


def place_of(tensor: Tensor) -> int:
    """Where a tensor's memory begins: the same for a weight and its views."""
    return tensor.untyped_storage().data_ptr()
