"""Run an ONNX file in ONNX Runtime: its metric beside PyTorch's, and how each layer really runs.

Kernels are read from the graph that ONNX Runtime has optimized. Its integer kernels round what ours
do not, the bias to a step of the product of the scales of weight and input, so that a few codes
differ by one: outputs agree in the mean, not bit for bit. On x86 processors without VNNI its usual
kernels add products of 8-bit codes in 16 bits, which saturate, and accuracy is lost; `PRECISE` has
it take others.
"""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from engine.evaluation import evaluate
from engine.results import KERNELS, FormatError, OnnxCheck, OnnxExport, Progress, in_short
from engine.workloads import Workload

INTEGER, DEQUANTIZED, REFUSED = KERNELS
INTEGER_NODES = {
    "ConvInteger",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "QGemm",
    "QLinearConv",
    "QLinearConvTranspose",
    "QLinearMatMul",
}
PRECISE = (
    "session.x64quantprecision"  # of a session's configuration: "1" keeps sums from saturating
)
MADE_UNSIGNED = "_s8_2_u8"  # how names of codes end that it has made unsigned for that
PROVIDERS = ["CPUExecutionProvider"]


def check_onnx(
    path: str | Path,
    model: nn.Module,
    workload: Workload,
    export: OnnxExport,
    *,
    max_images: int | None = None,
    batch_size: int | None = None,
    progress: Progress | None = None,
    command: str | None = None,
) -> OnnxCheck:
    """Compare an ONNX file, as ONNX Runtime runs it on this processor, with its network.

    Args:
        path: What `export_onnx` wrote.
        model: The quantized network it was made from; it comes back as it was.
        workload: Gives the test images, the loss and the metric.
        export: What `export_onnx` returned.
        max_images: The first so many; all by default.
        batch_size: Images at once, as for `evaluate`.
        progress: Told of images done, of one network after the other.
        command: That makes the result again; composed from the workload if not given.

    Raises:
        FormatError: If the file cannot be read or is no ONNX file.
        ValueError: If the images cannot be measured (see `evaluate`).
    """
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        optimized = Path(folder) / "optimized.onnx"
        session, refused = _session(Path(path), optimized, exact_sums=True)
        exact_sums = session is not None
        if session is None:  # it may be for its codes, which one of several readers made unsigned
            session, refused = _session(Path(path), optimized, exact_sums=False)
        if session is None:
            runs_as = {layer.name: REFUSED for layer in export.layers}
        else:
            runs_as = _kernels(optimized, export)
    measured = partial(
        evaluate,
        workload=workload,
        max_images=max_images,
        batch_size=batch_size,
        progress=progress,
        command=command,
    )
    onnx, largest = None, None
    if session is not None:
        beside = _Beside(session, model)
        onnx, largest = measured(beside), beside.largest
    return OnnxCheck(
        runtime=onnxruntime.__version__,
        onnx=onnx,
        pytorch=measured(model),
        largest_difference=largest,
        runs_as=runs_as,
        refused=refused,
        exact_sums=exact_sums,
    )


def session_options(*, exact_sums: bool = True) -> Any:
    """Options of an ONNX Runtime session, by default with exact sums of codes on any processor."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.add_session_config_entry(PRECISE, str(int(exact_sums)))
    return options


def _session(path: Path, optimized: Path, *, exact_sums: bool) -> tuple[Any, str]:
    """A session on the processor, which writes the graph that it runs.

    Where there is no kernel for something in a file that is otherwise right: None, and why.
    """
    import onnxruntime
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    options = session_options(exact_sums=exact_sums)
    options.log_severity_level = 4  # what is wrong comes as an exception
    options.optimized_model_filepath = str(optimized)
    try:
        return onnxruntime.InferenceSession(path, options, providers=PROVIDERS), ""
    except (states.NotImplemented, states.Fail, states.InvalidGraph, states.RuntimeException) as e:
        return None, in_short(e).rstrip(".")
    except (OSError, states.NoSuchFile, states.InvalidProtobuf, states.InvalidArgument) as error:
        raise FormatError(
            f"{path} must be an ONNX file, but ONNX Runtime cannot read it: "
            f"{in_short(error).rstrip('.')}."
        ) from error


def _kernels(optimized: Path, export: OnnxExport) -> dict[str, str]:
    """How each layer runs, by the nodes that read its codes in an optimized graph."""
    import onnx

    nodes = onnx.load(optimized).graph.node
    readers: dict[str, set[str]] = {}
    for node in nodes:
        for name in node.input:
            readers.setdefault(name.removesuffix(MADE_UNSIGNED), set()).add(node.op_type)
    return {
        layer.name: INTEGER if readers.get(layer.tensor, set()) & INTEGER_NODES else DEQUANTIZED
        for layer in export.layers
    }


class _Beside(nn.Module):
    """A session that is called as a network, and compared with one on every mini-batch."""

    def __init__(self, session: Any, model: nn.Module) -> None:
        super().__init__()
        self.session, self.model = session, model
        self.images = session.get_inputs()[0].name
        self.largest = 0.0

    def forward(self, images: Tensor) -> Tensor:
        (outputs,) = self.session.run(None, {self.images: images.numpy()})
        found = torch.from_numpy(outputs)
        apart = float((found - self.model(images)).abs().max())
        self.largest = max(self.largest, apart)
        return found
