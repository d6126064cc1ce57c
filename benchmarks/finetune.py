"""A quantized training step against a float step, and against Brevitas' and PyTorch's own.

One network (the sample ResNet20 with its batch norms folded), one mini-batch, one loop; only what
stands between each weight and its layer differs. Each round goes through all candidates in an order
of its own, and ratios are taken within a round, so that a machine that slows down slows both sides.
Weights only, 4 bits, one scale a channel.

    pip install 'hawq-viz[bench]'
    python benchmarks/finetune.py
"""

import copy
import random
import warnings
from collections.abc import Callable
from statistics import median, quantiles
from time import perf_counter

import torch
from setting import print_setting, verdict
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from engine import BitPlan, Workload, finetune, load_workload, quantize
from engine.finetuning import Step
from engine.layers import find_layers, fold_batch_norm
from engine.trainable import trainable
from engine.workloads import example_image

WORKLOAD, BITS, BATCH, ROUNDS, WARM_UP = "resnet20-cifar10", 4, 128, 100, 2
GOAL = 1.4
FLOAT = "float, batch norms folded"
LEARNED, FIXED = "ours, step sizes learned", "ours, step sizes fixed"


def folded(workload: Workload) -> nn.Module:
    """The float network that is quantized."""
    return fold_batch_norm(workload.model, example_image(workload.test)).eval()


def plan(workload: Workload) -> BitPlan:
    """Every layer at the same bits."""
    layers = find_layers(workload.model, example_image(workload.test))
    return BitPlan(workload.name, {layer.name: BITS for layer in layers}, 0.0, 0.0)


def brevitas(workload: Workload, scaling: str) -> nn.Module:
    """The same network of Brevitas' layers.

    Args:
        workload: Its float network.
        scaling: "parameter_from_stats", which learns, or "stats", found anew at every step.
    """
    from brevitas import nn as quantized
    from brevitas.quant import Int8WeightPerChannelFloat

    model = folded(workload)
    given = {
        "weight_quant": Int8WeightPerChannelFloat,
        "weight_bit_width": BITS,
        "weight_scaling_impl_type": scaling,
    }
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d):
            made = quantized.QuantConv2d(
                layer.in_channels,
                layer.out_channels,
                layer.kernel_size,
                layer.stride,
                layer.padding,
                bias=True,
                **given,
            )
        elif isinstance(layer, nn.Linear):
            made = quantized.QuantLinear(layer.in_features, layer.out_features, bias=True, **given)
        else:
            continue
        made.weight.data.copy_(layer.weight.data)
        made.bias.data.copy_(layer.bias.data)
        model.set_submodule(name, made)
    return model


class PyTorchFixed(nn.Module):
    """torch.ao's FakeQuantize, once its observer has seen the weight."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        from torch.ao.quantization import FakeQuantize, PerChannelMinMaxObserver

        high = 2 ** (BITS - 1)
        self.fake = FakeQuantize(
            PerChannelMinMaxObserver,
            quant_min=-high,
            quant_max=high - 1,
            dtype=torch.qint8,
            qscheme=torch.per_channel_symmetric,
        )
        self.fake(weight)
        self.fake.disable_observer()

    def forward(self, weight: Tensor) -> Tensor:
        """Round a weight to the grid."""
        return self.fake(weight)


class PyTorchLearned(nn.Module):
    """PyTorch's operator with learned step sizes, as torch.ao's learnable module calls it."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.high = 2 ** (BITS - 1)
        scale = weight.detach().flatten(1).abs().amax(1) / self.high
        self.scale = nn.Parameter(scale.clamp(min=1e-9))
        self.register_buffer("zero_point", torch.zeros_like(scale))
        self.pace = (weight[0].numel() * self.high) ** -0.5

    def forward(self, weight: Tensor) -> Tensor:
        """Round a weight to the grid."""
        return torch._fake_quantize_learnable_per_channel_affine(
            weight, self.scale, self.zero_point, 0, -self.high, self.high - 1, self.pace
        )


def pytorch(workload: Workload, kind: type[nn.Module]) -> nn.Module:
    """The same network with PyTorch's own fake quantization of its weights."""
    model = folded(workload)
    for module in list(model.modules()):
        if isinstance(module, nn.Conv2d | nn.Linear):
            parametrize.register_parametrization(module, "weight", kind(module.weight))
    return model


def step_of(model: nn.Module, images: Tensor, labels: Tensor) -> Callable[[], None]:
    """One training step of a network: forward, backward, update."""
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5)

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return step


def whole_steps(workload: Workload, **settings: object) -> Callable[[], None]:
    """Steps of `finetune` as it is: with reading images, clipping and watching the loss."""
    events = finetune(
        workload, plan(workload), epochs=50, batch_size=BATCH, evaluate_every=10**6, **settings
    )

    def step() -> None:
        while not isinstance(next(events), Step):
            pass

    step()
    return step


def main() -> None:
    """Time all candidates in turn and print ratios."""
    warnings.filterwarnings("ignore")  # what the other libraries say of newer releases
    print_setting(
        f"A training step of {WORKLOAD}, {BATCH} images, weights of {BITS} bits; "
        f"medians of {ROUNDS} rounds",
        "torch",
        "brevitas",
    )
    workload = load_workload(WORKLOAD)
    chosen = [i % len(workload.train) for i in range(BATCH)]
    batch = torch.utils.data.default_collate([workload.calibration[i] for i in chosen])
    images, labels = batch[0].contiguous(memory_format=torch.channels_last), batch[1]
    quantized = quantize(workload, plan(workload))
    many = Workload(
        workload.name,
        workload.model,
        workload.calibration,
        torch.utils.data.ConcatDataset([workload.train] * 5),  # so that a batch may hold 128
        workload.test,
    )
    models = {
        FLOAT: folded(workload),
        "float, batch norms live": copy.deepcopy(workload.model),
        LEARNED: trainable(quantized, learned_scales=True),
        FIXED: trainable(quantized, learned_scales=False),
        "Brevitas, scales learned": brevitas(workload, "parameter_from_stats"),
        "Brevitas, scales of the weights": brevitas(workload, "stats"),
        "PyTorch, scales learned": pytorch(workload, PyTorchLearned),
        "PyTorch, scales fixed": pytorch(workload, PyTorchFixed),
    }
    steps = {name: step_of(model, images, labels) for name, model in models.items()}
    steps["finetune as it is, no teacher"] = whole_steps(many, distillation=0)
    steps["finetune as it is, float teacher"] = whole_steps(many)
    times: dict[str, list[float]] = {name: [] for name in steps}
    order = random.Random(0)
    for _ in range(ROUNDS + WARM_UP):
        for name in order.sample(sorted(steps), len(steps)):
            started = perf_counter()
            steps[name]()
            times[name].append(perf_counter() - started)
    took = {name: seconds[WARM_UP:] for name, seconds in times.items()}
    print(f"{'':34}   s a step   float step = 1")
    for name, seconds in took.items():
        print(f"{name:34} {median(seconds):10.4f} {ratio(seconds, took[FLOAT])[0]:12.2f}")
    print("\nratios within a round: median (lower to upper quartile)")
    for name, other, goal in (
        (LEARNED, FLOAT, GOAL),
        (LEARNED, "Brevitas, scales learned", 1),
        (LEARNED, "PyTorch, scales learned", 1),
        (FIXED, "Brevitas, scales of the weights", 1),
        (FIXED, "PyTorch, scales fixed", 1),
    ):
        middle, low, high = ratio(took[name], took[other])
        print(
            f"{name} / {other}: {middle:.3f} ({low:.2f} to {high:.2f}) "
            f"(goal: at most {goal}, {verdict(middle <= goal)})"
        )


def ratio(ours: list[float], theirs: list[float]) -> tuple[float, float, float]:
    """Median and quartiles of the ratios within rounds."""
    low, middle, high = quantiles([a / b for a, b in zip(ours, theirs, strict=True)], n=4)
    return middle, low, high


if __name__ == "__main__":
    main()
