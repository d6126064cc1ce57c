"""HAWQ-V2: mixed-precision quantization from Hessian traces. Read the parts in this order.

results       records that the stages hand on; save and load
outcomes      what a network does on each test image, and how two differ
sensitivities what is known of each weight and each activation
crossing      sums that no other beats: the dynamic programme
frontier      the exact cost-against-Ω frontier, and what others do
joint         the same over pairs of a weight's and an activation's bits
within        one budget, for many tables of Ω at once
budgets       several budgets at once
latency       how long each layer takes at each pair of bit widths
choices       what there is to choose, and what each choice costs
analysis      what `analyze` returns
certainty     whether other images would have led to another plan
models, datasets, weights, workloads   a network, its data, loss and metric under one name
layers        which weights may lose bits; batch-norm folding
quantizers    round one tensor
activations   which tensors the layers read
calibration   the range of each of these tensors
exactness     where the Gauss-Newton block is the Hessian block
losses        whether a loss is a mean over images
probes        one mini-batch's estimate of every trace
roundoff      what rounding an activation does, image by image
traces        average Hessian traces with their standard errors
perturbation  Ω of each layer at each bit width: `analyze`
further       more images for an analysis that there is: `analyze_further`
rounding      learn which weights to round up and which down
corrections   give each layer's output back its mean and spread
placements    where activations are rounded, and which share a scale
quantized     a new network from a network and a plan
checklist     what to know of a network, in words: `check_network`
evaluation    measured accuracy with its interval
recipe        the settings of a fine-tuning
batches       which images a training sees, and when
trainable     gradients through the rounding
finetuning    train a quantized network, resumably: `finetune`
packing       codes of 1 to 8 bits as dense bytes
unpacking     what a packed file holds, checked
packed        a file as small as the plan says: `export_packed`, `load_packed`
onnx_export   a file for ONNX Runtime: `export_onnx`
onnx_check    what ONNX Runtime makes of it: `check_onnx`
jobs          long work in processes of its own, one directory a run
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from engine.analysis import Analysis as Analysis
    from engine.certainty import Certainty as Certainty
    from engine.certainty import omega_band as omega_band
    from engine.checklist import check_network as check_network
    from engine.evaluation import evaluate as evaluate
    from engine.finetuning import finetune as finetune
    from engine.frontier import Frontier as Frontier
    from engine.frontier import pareto_frontier as pareto_frontier
    from engine.further import analyze_further as analyze_further
    from engine.latency import LatencyTable as LatencyTable
    from engine.onnx_check import check_onnx as check_onnx
    from engine.onnx_export import export_onnx as export_onnx
    from engine.packed import export_packed as export_packed
    from engine.packed import load_packed as load_packed
    from engine.perturbation import analyze as analyze
    from engine.quantized import load_quantized as load_quantized
    from engine.quantized import quantize as quantize
    from engine.quantized import save_quantized as save_quantized
    from engine.recipe import Recipe as Recipe
    from engine.results import BitPlan as BitPlan
    from engine.results import Evaluation as Evaluation
    from engine.results import FormatError as FormatError
    from engine.results import TraceEstimate as TraceEstimate
    from engine.unpacking import packed_sizes as packed_sizes
    from engine.workloads import Workload as Workload
    from engine.workloads import load_workload as load_workload
    from engine.workloads import workload_names as workload_names

# Public names and where they are; resolved when first used, so that reading imports no torch.
_NAMES = {
    "Analysis": "analysis",
    "BitPlan": "results",
    "Certainty": "certainty",
    "Evaluation": "results",
    "FormatError": "results",
    "Frontier": "frontier",
    "LatencyTable": "latency",
    "Recipe": "recipe",
    "TraceEstimate": "results",
    "Workload": "workloads",
    "analyze": "perturbation",
    "analyze_further": "further",
    "check_network": "checklist",
    "check_onnx": "onnx_check",
    "evaluate": "evaluation",
    "export_onnx": "onnx_export",
    "export_packed": "packed",
    "finetune": "finetuning",
    "load_packed": "packed",
    "load_quantized": "quantized",
    "load_workload": "workloads",
    "packed_sizes": "unpacking",
    "omega_band": "certainty",
    "pareto_frontier": "frontier",
    "quantize": "quantized",
    "save_quantized": "quantized",
    "workload_names": "workloads",
}

__all__ = list(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module 'engine' has no attribute {name!r}")
    return getattr(import_module(f"engine.{_NAMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_NAMES])
