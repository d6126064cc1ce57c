"""A new network from a network and a plan: every planned weight on its grid, the original kept."""

from dataclasses import replace
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.utils import parametrize

from engine.layers import Channels, find_layers, fold_batch_norm
from engine.quantizers import Grid, Quantizer
from engine.results import BitPlan, FormatError
from engine.workloads import Workload, example_image

PLAN_FILE = "plan.json"
WEIGHTS_FILE = "weights.safetensors"


class QuantizedWeight(nn.Module):
    """What stands between a stored weight and its layer: the nearest values on a grid.

    A parametrization (`torch.nn.utils.parametrize`), so it serves any layer class.
    """

    def __init__(self, grid: Grid, bits: int, channels: Channels) -> None:
        super().__init__()
        self.bits, self.channels = bits, channels
        self.low, self.high = grid.low, grid.high
        self.register_buffer("scale", grid.scale.clone())
        self.register_buffer("zero_point", grid.zero_point.clone())

    @property
    def grid(self) -> Grid:
        """The grid as it stands."""
        scale, zero_point = self.get_buffer("scale"), self.get_buffer("zero_point")
        return Grid(scale, zero_point, self.low, self.high)

    def forward(self, weight: Tensor) -> Tensor:
        """Round a weight to the grid."""
        rounded = self.grid.round(self.channels.rows(weight))
        return self.channels.weight(rounded, weight.shape)


def quantize(
    workload: Workload,
    plan: BitPlan,
    *,
    scheme: str | None = None,
    weight_granularity: str | None = None,
    weight_range: str | None = None,
) -> nn.Module:
    """Quantize a workload's network after training, with no data.

    Args:
        workload: Its model is not changed.
        plan: Bits of its layers, and the quantizer they were chosen for; layers the plan does not
            name stay float.
        scheme: Of the weight quantizer (see `quantizers.Quantizer`), if not the plan's.
        weight_granularity: Likewise.
        weight_range: Likewise.

    Returns:
        A new network in eval mode, batch norms folded; its attribute `plan` says what was done.

    Raises:
        ValueError: If the plan names a layer that the network lacks, a quantizer is unknown, or
            there is no test image to run the network on.
    """
    defaults = Quantizer()
    settings = {
        "scheme": scheme or plan.quantizer.get("scheme", defaults.scheme),
        "weight_granularity": weight_granularity
        or plan.quantizer.get("weight_granularity", defaults.granularity),
        "weight_range": weight_range or plan.quantizer.get("weight_range", defaults.range),
    }
    quantizer = Quantizer(*settings.values())
    example = example_image(workload.test)
    model = fold_batch_norm(workload.model, example).eval()
    layers = {layer.name: layer for layer in find_layers(model, example)}
    for name in plan.weight_bits:
        if name not in layers:
            raise ValueError(
                f"plan must be of {workload.name!r}, but its layer {name!r} is not there: "
                f"the network's layers are {', '.join(layers)}."
            )
    for name, bits in plan.weight_bits.items():
        channels = layers[name].channels
        weight = model.get_parameter(layers[name].parameter)
        grid = quantizer.fit(channels.rows(weight), bits)
        for module, attribute in _owners(model, weight):
            wrapped = QuantizedWeight(grid, bits, channels)
            parametrize.register_parametrization(module, attribute, wrapped)
    model.plan = replace(plan, quantizer=settings)  # type: ignore[assignment]
    return model


def _owners(model: nn.Module, weight: nn.Parameter) -> list[tuple[nn.Module, str]]:
    """Modules that hold a weight, and under which name: more than one where they share it."""
    return [
        (module, attribute)
        for module in model.modules()
        for attribute, parameter in module.named_parameters(recurse=False, remove_duplicate=False)
        if parameter is weight
    ]


def save_quantized(model: nn.Module, folder: str | Path) -> None:
    """Write a quantized network's plan and state (weights, scales, zero points) into a folder."""
    plan = getattr(model, "plan", None)
    if not isinstance(plan, BitPlan):
        raise ValueError(
            f"model must be one that quantize returned, got {type(model).__name__} without a plan."
        )
    folder = Path(folder)
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
        model = quantize(workload, plan)
        model.load_state_dict(load_file(file))
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise FormatError(
            f"{file} must hold the quantized {workload.name}, but {reason}."
        ) from error
    return model
