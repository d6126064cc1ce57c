"""Where the Gauss-Newton block of a layer, or of an activation, is its Hessian block.

It is where the outputs are piecewise linear in the weight or the activation with the rest held
fixed (Botev et al., "Practical Gauss-Newton Optimisation for Deep Learning", 2017). That is read
off the operators that autograd recorded between it and the outputs; an unknown one counts as not
linear.
"""

import re
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import GradientEdge

# Names of autograd nodes without "Backward" and its number, which custom functions do not have.
# Products: linear in each argument alone, so a tensor may reach only one of them.
PRODUCTS = frozenset(
    "Mul Mm Bmm Mv Dot Addmm Addmv Addbmm Baddbmm Addcmul Addr Linear Convolution "
    "ConvolutionOverrideable MkldnnConvolution CudnnConvolution NativeBatchNorm CudnnBatchNorm "
    "MiopenBatchNorm NativeBatchNormLegitNoTraining PreluKernel Trilinear".split()
)
# Linear in the first argument only: a numerator, an image that is sampled.
LINEAR_IN_FIRST = frozenset("Div GridSampler2D GridSampler3D".split())
# Piecewise linear in all arguments together.
PIECEWISE_LINEAR = frozenset(
    "Add Sub Rsub Neg Abs Sum Mean Cumsum Max Min Amax Amin Maximum Minimum Median Sort Topk "
    "Relu LeakyRelu Hardtanh Hardsigmoid Threshold Clamp ClampMin ClampMax RreluWithNoise "
    "MaxPool2DWithIndices MaxPool3DWithIndices AdaptiveMaxPool2D AdaptiveMaxPool3D "
    "AvgPool2D AvgPool3D AdaptiveAvgPool2D AdaptiveAvgPool3D MkldnnAdaptiveAvgPool2D "
    "MkldnnMaxPool2D UpsampleNearest1D UpsampleNearest2D UpsampleNearest3D UpsampleLinear1D "
    "UpsampleBilinear2D UpsampleBicubic2D UpsampleTrilinear3D "
    "View UnsafeView ReshapeAlias Alias AsStrided Expand T Transpose Permute Squeeze "
    "Unsqueeze Select Slice Split SplitWithSizes Unbind Cat Stack Index IndexSelect Gather "
    "Take Diagonal Flip Roll Repeat Unfold Im2Col Col2Im PixelShuffle PixelUnshuffle "
    "ConstantPadNd ReflectionPad1D ReflectionPad2D ReflectionPad3D ReplicationPad1D "
    "ReplicationPad2D ReplicationPad3D Clone CopyBackwards ToCopy Where MaskedFill Trace Tril "
    "Triu ChannelShuffle".split()
)


def linear_in(outputs: Tensor, edges: Sequence[GradientEdge]) -> list[bool]:
    """Tell for each tensor whether the outputs are piecewise linear in it.

    Args:
        outputs: What the network gave, with its graph.
        edges: Where the tensors stand in that graph: leaves of it, or what a tensor was made by.
    """
    return [not operators for operators in bending(outputs, edges)]


def bending(outputs: Tensor, edges: Sequence[GradientEdge]) -> list[frozenset[str]]:
    """Name for each tensor the operators in which the outputs are not piecewise linear in it.

    A product is named where both of its factors depend on the tensor.

    Args:
        outputs: What the network gave, with its graph.
        edges: Where the tensors stand in that graph: leaves of it, or what a tensor was made by.
    """
    indices = {edge.node: i for i, edge in enumerate(edges)}
    reaching: dict[Any, frozenset[int]] = {}  # node → tensors below it, and its own
    bent: list[set[str]] = [set() for _ in edges]
    pending = [outputs.grad_fn]
    while pending:
        node = pending[-1]
        if node is None or node in reaching:
            pending.pop()
            continue
        below = [child for child, _ in node.next_functions]
        unread = [child for child in below if child is not None and child not in reaching]
        if unread:
            pending += unread
            continue
        pending.pop()
        index = indices.get(node)
        slots = [reaching[child] if child is not None else frozenset() for child in below]
        reaching[node] = frozenset().union(*slots) | ({index} if index is not None else set())
        name, within = _bent_by(node, slots)
        for i in within:
            bent[i].add(name)
    return [frozenset(names) for names in bent]


def _bent_by(node: Any, slots: list[frozenset[int]]) -> tuple[str, set[int]]:
    """A node's operator, and the tensors in which its result is not piecewise linear.

    That is, though its arguments may be.
    """
    node = getattr(node, "_wrapped_node", None) or node  # what wrote into a part of a tensor
    name = re.sub(r"Backward\d+$", "", node.name().rpartition("::")[2])
    if name in PIECEWISE_LINEAR or name == "AccumulateGrad":
        return name, set()
    if name in LINEAR_IN_FIRST:
        return name, set().union(*slots[1:])
    batch_statistics = getattr(node, "_saved_training", False)
    if name in PRODUCTS and not batch_statistics:
        seen: set[int] = set()
        twice: set[int] = set()
        for slot in slots:
            twice |= seen & slot
            seen |= slot
        return name, twice
    return name, set().union(*slots)
