"""Train a sample network and store it with its card; resumes where it was cut.

    python sample_models/train.py resnet20-cifar10 --epochs 56

A linear warm-up and a cosine schedule, and perhaps a second cosine after it (Loshchilov and Hutter,
"SGDR: Stochastic Gradient Descent with Warm Restarts", ICLR 2017). The first epochs may see smaller
images, which cost less (Tan and Le, "EfficientNetV2: Smaller Models and Faster Training", ICML
2021). Each epoch draws from a generator seeded by (seed, epoch), so that a training cut after any
epoch continues as if nothing had happened. The last epoch counts: the test images are looked at
for the log only and choose nothing.

`squeezenext-cifar10.checkpoint.pt` is its training after 27 of 38 epochs, which take longer than
two hours in all: the command in its card goes on from there. The second cosine was added as the
first ended half a point short of what was wanted.
"""

import argparse
import json
import math
import os
import platform
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from safetensors.torch import save_file
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from engine.datasets.cifar10 import CHANNEL_MEAN, CHANNEL_STD, full_cifar10
from engine.datasets.images import PADDING, windows
from engine.datasets.shapes import normalized, shapes_of, turned
from engine.detection import DetectionLoss, mean_average_precision
from engine.models.inception_cifar import inception_cifar
from engine.models.resnet_cifar import resnet20
from engine.models.retinanet import SHAPES_ANCHORS, retinanet_shapes
from engine.models.squeezenext import squeezenext_cifar
from engine.workloads import load_workload, workload_names

FOLDER = Path(__file__).parent
LOG_TAIL = 10  # epochs of the log kept in the card
MORE = ("more_epochs", "more_learning_rate")  # of a recipe: its second cosine

Recipe = dict[str, Any]


class Task(Protocol):
    """What a network is trained for."""

    metric: str
    data: str
    train: Any
    test: Any
    method: str  # of optimization, in words

    def batch(self, indices: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Training images and targets, changed at random."""

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""

    def measure(self, model: nn.Module) -> float:
        """The metric on the test images, in 0…1."""

    def optimizer(self, model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
        """As the recipe says."""


class Cifar:
    """Classes of CIFAR-10: random crops of the image padded by 4 pixels, and mirror images."""

    metric = "top-1"
    data = "CIFAR-10, 50 000 training and 10 000 test images (Krizhevsky 2009)"
    method = "SGD, Nesterov"
    defaults: ClassVar[Recipe] = {
        "epochs": 56,
        "batch_size": 128,
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
    }

    def __init__(self) -> None:
        self.train, self.test = full_cifar10()
        self.padded = F.pad(self.train.images, (PADDING,) * 4)

    def batch(self, indices: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Training images and targets, changed at random."""
        return self._normalized(windows(self.padded[indices], generator)), self.train.labels[
            indices
        ]

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        return F.cross_entropy(outputs, targets)

    def measure(self, model: nn.Module) -> float:
        """The metric on the test images, in 0…1."""
        correct = 0
        for x, y in zip(self.test.images.split(500), self.test.labels.split(500), strict=True):
            batch = self._normalized(x).contiguous(memory_format=torch.channels_last)
            correct += int((model(batch).argmax(1) == y).sum())
        return correct / len(self.test.labels)

    def optimizer(self, model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
        """As the recipe says."""
        return torch.optim.SGD(
            model.parameters(),
            lr=recipe["learning_rate"],
            momentum=recipe["momentum"],
            weight_decay=recipe["weight_decay"],
            nesterov=True,
        )

    @staticmethod
    def _normalized(images: Tensor) -> Tensor:
        mean, std = torch.tensor(CHANNEL_MEAN), torch.tensor(CHANNEL_STD)
        return (images.float() / 255 - mean[:, None, None]) / std[:, None, None]


class ShapesTask:
    """Boxes of made shapes: images mirrored and transposed at random."""

    metric = "mAP"
    data = "shapes on cluttered backgrounds, made by engine.datasets.shapes"
    method = "AdamW"
    defaults: ClassVar[Recipe] = {
        "epochs": 24,
        "batch_size": 32,
        "learning_rate": 1e-3,
        "weight_decay": 1e-2,
    }

    def __init__(self) -> None:
        self.train, self.test = shapes_of("full")
        self.detection = DetectionLoss(SHAPES_ANCHORS)

    def batch(self, indices: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Training images and targets, changed at random."""
        pairs = [turned(*self.train.picture(i), generator) for i in indices.tolist()]
        images, targets = (torch.stack(x) for x in zip(*pairs, strict=True))
        return normalized(images).contiguous(memory_format=torch.channels_last), targets

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """The mean loss."""
        return self.detection(outputs, targets)

    def measure(self, model: nn.Module) -> float:
        """The metric on the test images, in 0…1."""
        found, truths = [], []
        for indices in torch.arange(len(self.test)).split(100):
            images, targets = zip(*(self.test[i] for i in indices.tolist()), strict=True)
            batch = torch.stack(images).contiguous(memory_format=torch.channels_last)
            found += self.detection.detections(model(batch))
            truths += targets
        return mean_average_precision(found, truths)

    def optimizer(self, model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
        """As the recipe says."""
        return torch.optim.AdamW(
            model.parameters(), lr=recipe["learning_rate"], weight_decay=recipe["weight_decay"]
        )


NETWORKS: dict[str, tuple[Callable[[], nn.Module], type[Cifar] | type[ShapesTask]]] = {
    "resnet20-cifar10": (resnet20, Cifar),
    "squeezenext-cifar10": (squeezenext_cifar, Cifar),
    "inception-cifar10": (inception_cifar, Cifar),
    "retinanet-shapes": (retinanet_shapes, ShapesTask),
}


@torch.no_grad()
def measured(task: Task, model: nn.Module) -> float:
    """The metric of a network in eval mode."""
    model.eval()
    return round(task.measure(model), 4)


def learning_rate(step: int, steps_an_epoch: int, recipe: Recipe) -> float:
    """Linear warm-up to the peak, half a cosine to zero, and perhaps a second one."""
    warmup = int(recipe["warmup_epochs"] * steps_an_epoch)
    end, peak = int(recipe["epochs"] * steps_an_epoch), recipe["learning_rate"]
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < end:
        share = (step - warmup) / (end - warmup)
    else:
        share = (step - end) / (recipe["more_epochs"] * steps_an_epoch)
        peak = recipe["more_learning_rate"]
    return peak * 0.5 * (1 + math.cos(math.pi * share))


def image_size(epoch: int, recipe: Recipe) -> int | None:
    """Pixels along an edge of the images of an epoch, counted from 0; None for their own size."""
    for size, epochs in recipe.get("smaller", ()):
        if epoch < epochs:
            return int(size)
        epoch -= epochs
    return None


def smaller(images: Tensor, size: int | None) -> Tensor:
    """Images [N, C, H, W] with this many pixels along an edge; unchanged without one."""
    if size is None:
        return images
    shrunk = F.interpolate(images, size, mode="bilinear", antialias=True)
    return shrunk.contiguous(memory_format=torch.channels_last)


def sizes(text: str) -> tuple[int, int]:
    """SIZE:EPOCHS from the command line."""
    size, epochs = map(int, text.split(":"))
    if size < 1 or epochs < 1:
        raise ValueError
    return size, epochs


def first_cosine(recipe: Recipe) -> Recipe:
    """What of a recipe counts until the second cosine begins."""
    return {key: value for key, value in recipe.items() if key not in MORE}


class Teacher:
    """A trained classifier whose answers are learned from too.

    Hinton et al., "Distilling the Knowledge in a Neural Network", 2015: beside the loss of the
    labels stands T² times the divergence from the teacher's softmax at temperature T.
    """

    def __init__(self, recipe: Recipe, fused: bool) -> None:
        model = load_workload(recipe["teacher"]).model.to(memory_format=torch.channels_last)
        self.model = torch.compile(model) if fused else model
        self.share, self.temperature = recipe["teacher_share"], recipe["temperature"]

    def blended(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """The loss of the labels, and the teacher's share beside it."""
        with torch.no_grad():
            answers = F.log_softmax(self.model(images) / self.temperature, 1)
        own = F.log_softmax(logits / self.temperature, 1)
        apart = F.kl_div(own, answers, reduction="batchmean", log_target=True)
        return (1 - self.share) * loss + self.share * self.temperature**2 * apart


def train(
    name: str, recipe: Recipe, seed: int, folder: Path, command: str, fused: bool = False
) -> None:
    """Train one network, one log line an epoch; write the weights and the card at the end."""
    build, kind = NETWORKS[name]
    task: Task = kind()
    epochs, size = int(recipe["epochs"] + recipe["more_epochs"]), int(recipe["batch_size"])
    steps_an_epoch = len(task.train) // size

    torch.manual_seed(seed)  # the initial weights
    model = build().to(memory_format=torch.channels_last)
    optimizer = task.optimizer(model, recipe)
    network = torch.compile(model) if fused else model
    teacher = Teacher(recipe, fused) if "teacher" in recipe else None
    checkpoint_file, log = folder / f"{name}.checkpoint.pt", []
    if checkpoint_file.exists():
        checkpoint = torch.load(checkpoint_file, weights_only=True)
        first = len(checkpoint["log"]) <= recipe["epochs"]
        part_of = first_cosine if first else dict
        same = part_of(checkpoint["recipe"]) == part_of(recipe)
        if not same or checkpoint["seed"] != seed:
            sys.exit(f"{checkpoint_file} is of another recipe or seed: delete it to start anew.")
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        log = checkpoint["log"]
    for epoch in range(len(log), epochs):
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(seed * 10_000 + epoch)
        order = torch.randperm(len(task.train), generator=generator)[: steps_an_epoch * size]
        model.train()
        total, edge = 0.0, image_size(epoch, recipe)
        for i, indices in enumerate(order.split(size)):
            optimizer.param_groups[0]["lr"] = learning_rate(
                epoch * steps_an_epoch + i, steps_an_epoch, recipe
            )
            images, targets = task.batch(indices, generator)
            outputs = network(smaller(images, edge))
            loss = task.loss(outputs, targets)
            if teacher is not None:
                loss = teacher.blended(loss, outputs, images)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * size
        row = {
            "epoch": epoch + 1,
            "loss": round(total / len(order), 4),
            f"test_{task.metric}": measured(task, model),
            "seconds": round(time.perf_counter() - started, 1),
        }
        log.append(row)
        print(json.dumps(row), flush=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        part = checkpoint_file.with_suffix(".part")
        torch.save({**state, "log": log, "recipe": recipe, "seed": seed}, part)
        os.replace(part, checkpoint_file)

    schedule = "warm-up, then cosine" + (", then another" if recipe["more_epochs"] else "")
    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / f"{name}.safetensors", metadata={"format": "pt"})
    card = {
        "name": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "metric": task.metric,
        "value": log[-1][f"test_{task.metric}"],
        "samples": len(task.test),
        "weights_are": "those after the last epoch; the test images chose nothing",
        "recipe": {**recipe, "optimizer": task.method, "schedule": schedule},
        "seed": seed,
        "data": {
            "name": task.data,
            "train": task.train.fingerprint,
            "test": task.test.fingerprint,
        },
        "made_with": {"python": platform.python_version(), "torch": torch.__version__},
        "command": command,
        "minutes": round(sum(row["seconds"] for row in log) / 60, 1),
        "log_tail": log[-LOG_TAIL:],
    }
    (folder / f"{name}.json").write_text(json.dumps(card, indent=1) + "\n")


def main() -> None:
    """Read the command line and train."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("name", choices=sorted(NETWORKS))
    parser.add_argument(
        "--epochs", type=int, help="and so on: by default as for the network's kind"
    )
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--weight-decay", type=float)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--warmup-epochs", type=float, default=3)
    parser.add_argument("--more-epochs", type=int, default=0, help="of a second cosine")
    parser.add_argument("--more-learning-rate", type=float, default=0.0, help="its peak")
    parser.add_argument(
        "--smaller",
        type=sizes,
        nargs="+",
        metavar="SIZE:EPOCHS",
        help="edge of the images in the first epochs, and for how many; of a classifier",
    )
    parser.add_argument("--teacher", choices=workload_names(), help="classifier to learn from too")
    parser.add_argument("--teacher-share", type=float, help="of the loss, in 0…1")
    parser.add_argument("--temperature", type=float, help="of both softmaxes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the network goes")
    parser.add_argument(
        "--fused",
        action="store_true",
        help="compile the network: up to twice as fast, the same but for rounding; needs a C++ "
        "compiler",
    )
    arguments = vars(parser.parse_args())
    more = tuple(arguments[key] for key in MORE)
    if (more[0] > 0) != (more[1] > 0):
        parser.error(
            "--more-epochs and --more-learning-rate must be given together, both above 0, got "
            f"{more[0]} and {more[1]}."
        )
    taught = tuple(arguments[key] for key in ("teacher", "teacher_share", "temperature"))
    if None in taught and taught != (None,) * 3:
        parser.error(
            "--teacher, --teacher-share and --temperature must be given together, got "
            f"{taught[0]}, {taught[1]} and {taught[2]}."
        )
    if arguments["smaller"] and NETWORKS[arguments["name"]][1] is not Cifar:
        parser.error(f"--smaller must be of a classifier, got {arguments['name']}.")
    name, seed, folder, fused = (arguments.pop(key) for key in ("name", "seed", "folder", "fused"))
    defaults = NETWORKS[name][1].defaults
    recipe = defaults | {key: x for key, x in arguments.items() if x is not None}
    command = shlex.join(["python", "sample_models/train.py", *sys.argv[1:]])
    train(name, recipe, seed, folder, command, fused)


if __name__ == "__main__":
    main()
