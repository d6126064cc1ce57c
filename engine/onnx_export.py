"""Write a quantized network as an ONNX file: codes with DequantizeLinear, activations with both.

A weight of 5 to 8 bits is stored as 8-bit codes, one of at most 4 bits as 4-bit codes; which
container a layer has, the returned record says. ONNX has no codes for −½, so one symmetric bit, ±s,
is stored as the codes ±1 with scale s. Activations have 8-bit codes; of fewer bits, they are
clipped to their range first. QuantizeLinear adds the zero point after rounding, our grids before
it: the two differ only where a value lies exactly between two codes and the zero point is odd.

An integer kernel adds the bias as 32-bit codes whose step is the product of the scales of weight
and input. A channel whose weights are next to nothing beside its bias gets a scale at which these
codes hold it, or the bias would be cut off.
"""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from engine.quantized import plan_of
from engine.quantizers import QuantizedActivation, QuantizedWeight
from engine.results import OnnxExport, OnnxLayer, in_short, replacing

OPSET = 21  # the first with 4-bit codes
CONTAINERS = {"INT4": (-8, 7), "UINT4": (0, 15), "INT8": (-128, 127), "UINT8": (0, 255)}
CODES = "codes"  # what the buffer of a weight's codes is called
MOST_BIAS = 2.0**30  # in steps of its codes; half of what 32 bits hold


def export_onnx(model: nn.Module, path: str | Path, images: Tensor) -> OnnxExport:
    """Write a quantized network as an ONNX file of opset 21, for any number of images at once.

    Args:
        model: What `quantize` gave; it comes back as it was.
        path: Of the file; a reader sees the old one or the new.
        images: [N, ...], of the size that the network is to read.

    Returns:
        In which container each quantized weight is stored, and the file's bytes.

    Raises:
        ValueError: If the network is not a quantized one, has a grid that ONNX cannot hold, or
            cannot be exported.
    """
    import onnx

    plan_of(model)  # or it is no quantized one
    made = copy.deepcopy(model).eval()
    layers = _store_codes(made)
    for name, module in made.named_modules():
        if isinstance(module, QuantizedActivation):
            module.forward = _in_onnx(name, module)  # type: ignore[method-assign, assignment]
    try:
        file = traced(made, images)
        _shrink(file.graph, layers)
        onnx.checker.check_model(file, full_check=True)
    except Exception as error:
        cause = error.__cause__ or error  # the exporter's own text says only which step failed
        reason = in_short(cause).rstrip(".")
        raise ValueError(
            f"model must be one that torch.onnx can export, got {type(model).__name__}: {reason}."
        ) from error
    with replacing(path) as part:
        onnx.save(file, part)
    return OnnxExport(OPSET, Path(path).stat().st_size, tuple(layers.values()))


class _Codes(nn.Module):
    """A parametrization that reads codes in place of the stored weight."""

    def __init__(self, codes: Tensor, scale: Tensor, zero_point: Tensor, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer(CODES, codes)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    def forward(self, weight: Tensor) -> Tensor:
        scale = self.get_buffer("scale")
        return torch.onnx.ops.symbolic(
            "DequantizeLinear",
            (self.get_buffer(CODES), scale, self.get_buffer("zero_point")),
            {"axis": self.axis} if scale.dim() else {},
            dtype=weight.dtype,
            shape=weight.shape,
            version=OPSET,
        )


def _store_codes(model: nn.Module) -> dict[str, OnnxLayer]:
    """Put codes in place of every quantized weight; the records, by the codes' buffer."""
    layers: dict[str, OnnxLayer] = {}
    scales = [m.grid.scale for m in model.modules() if isinstance(m, QuantizedActivation)]
    finest = torch.stack(scales).min() if scales else None
    for owner, module in list(model.named_modules()):
        if not parametrize.is_parametrized(module):
            continue
        for attribute, chain in module.parametrizations.items():  # type: ignore[union-attr, operator]
            if not isinstance(chain[0], QuantizedWeight):
                continue
            name = owner if attribute == "weight" else f"{owner}.{attribute}".lstrip(".")
            steps = None
            if finest is not None and isinstance(getattr(module, "bias", None), Tensor):
                steps = module.bias.detach().abs() / (MOST_BIAS * finest)  # type: ignore[union-attr, operator]
            stored, container = _stored(name, chain[0], chain.original.detach(), steps)
            bits = chain[0].bits
            chain[0] = stored
            place = f"{owner}.parametrizations.{attribute}.0.".lstrip(".")
            layers[place] = OnnxLayer(name, bits, container, place + CODES)
    return layers


def _stored(
    name: str, quantized: QuantizedWeight, weight: Tensor, least: Tensor | None
) -> tuple[_Codes, str]:
    """The codes of a weight, and the container that is theirs.

    Args:
        name: Of the layer.
        quantized: Its grid.
        weight: As it is stored.
        least: [channels], that the scale of each must be for the codes of its bias, if any.
    """
    grid, channels = quantized.grid, quantized.channels
    rows = grid.codes(channels.rows(weight))
    if least is not None:
        needed = least.unsqueeze(1) if len(grid.scale) > 1 else least.max().reshape(1, 1)
        wider = torch.maximum(grid.scale, needed)
        rows = (rows - grid.zero_point) * (grid.scale / wider) + grid.zero_point
        rows = rows.round().clamp(grid.low, grid.high)
        grid = replace(grid, scale=wider)
    codes = channels.weight(rows, weight.shape)
    scale, zero_point = grid.scale.flatten(), grid.zero_point.flatten()
    if bool((zero_point == -0.5).all()):  # s · (c + ½) = s/2 · (2c + 1)
        codes, scale, zero_point = 2 * codes + 1, scale / 2, torch.zeros_like(scale)
    width = "4" if quantized.bits <= 4 else "8"
    container = ("INT" if quantized.low < 0 else "UINT") + width
    _check_zero_point(f"weight grid of {name!r}", zero_point, container)
    if len(scale) == 1:
        scale, zero_point = scale[0], zero_point[0]
    elif channels.groups > 1:
        raise ValueError(
            f"weight grid of {name!r} must lie along one axis, got a transposed convolution in "
            f"{channels.groups} groups: quantize with one scale for the whole tensor."
        )
    kind = torch.int8 if quantized.low < 0 else torch.uint8
    axis = channels.axis if weight.dim() > 1 else 0
    return _Codes(codes.to(kind), scale.clone(), zero_point.to(kind), axis), container


def _check_zero_point(what: str, zero_point: Tensor, container: str) -> None:
    low, high = CONTAINERS[container]
    wrong = zero_point[
        (zero_point != zero_point.round()) | (zero_point < low) | (zero_point > high)
    ]
    if len(wrong):
        raise ValueError(
            f"{what} must have a whole zero point in {low}…{high}, got {float(wrong[0]):g}: "
            "quantize again with the symmetric scheme."
        )


def _in_onnx(name: str, module: QuantizedActivation) -> Callable[[Tensor], Tensor]:
    """What rounds a tensor of any shape as a module does, by operators of ONNX."""
    grid = module.grid
    container, kind = ("INT8", torch.int8) if grid.low < 0 else ("UINT8", torch.uint8)
    _check_zero_point(f"activation grid {name!r}", grid.zero_point.reshape(1), container)
    low, high = (float((code - grid.zero_point) * grid.scale) for code in (grid.low, grid.high))
    scale, zero_point = grid.scale, grid.zero_point.to(kind)

    def rounded(tensor: Tensor) -> Tensor:
        if module.bits < 8:  # eight bits are clipped by their container
            tensor = tensor.clamp(low, high)
        args: dict[str, Any] = {"shape": tensor.shape, "version": OPSET}
        codes = torch.onnx.ops.symbolic(
            "QuantizeLinear", (tensor, scale, zero_point), dtype=kind, **args
        )
        return torch.onnx.ops.symbolic(
            "DequantizeLinear", (codes, scale, zero_point), dtype=tensor.dtype, **args
        )

    return rounded


def traced(model: nn.Module, images: Tensor) -> Any:
    """A network as torch.onnx writes it, for any number of images.

    Args:
        model: In eval mode.
        images: [N, ...]; the first is taken twice, as one alone would become a constant.
    """
    pair = torch.cat([images[:1]] * 2)
    with torch.no_grad():
        program = torch.onnx.export(
            model,
            (pair,),
            dynamo=True,
            opset_version=OPSET,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=["images"],
            output_names=["outputs"],
            verbose=False,
        )
    assert program is not None
    return program.model_proto


def _shrink(graph: Any, layers: dict[str, OnnxLayer]) -> None:
    """Pack codes and zero points of 4-bit containers, and leave out what nothing reads."""
    import onnx

    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        del node.metadata_props[:]  # lines of the exporter's own code
        place, _, buffer = (node.input[0] if node.input else "").rpartition(".")
        layer = layers.get(f"{place}.")
        if not layer or buffer != CODES:
            continue
        kind = getattr(onnx.TensorProto, layer.container)
        packed_type = onnx.helper.tensor_dtype_to_np_dtype(kind)
        names = node.input[0], f"{place}.own_zero_point"  # of its own: equal ones are stored once,
        # and ONNX Runtime fails to turn such a one into the zero point of unsigned codes twice
        for old, new in zip((node.input[0], node.input[2]), names, strict=True):
            values = onnx.numpy_helper.to_array(tensors[old])
            made = onnx.numpy_helper.from_array(values.astype(packed_type), new)
            tensors[f"packed {new}"] = made
        node.input[2] = names[1]
    packed = {tensor.name: tensor for tensor in tensors.values()}  # the last of a name
    read = {name for node in graph.node for name in node.input}
    del graph.initializer[:]
    graph.initializer.extend(tensor for name, tensor in packed.items() if name in read)
    del graph.value_info[:]  # the checker infers these anew
