"""Train a sample network on CIFAR-10 and store it with its card; resumes where it was cut.

    python sample_models/train.py resnet20-cifar10 --epochs 75

SGD with Nesterov momentum, a linear warm-up and a cosine schedule; random crops of the image
padded by 4 pixels and mirror images. Each epoch draws from a generator seeded by (seed, epoch), so
that a training cut after any epoch continues as if nothing had happened. The last epoch counts:
the test images are looked at for the log only and choose nothing.
"""

import argparse
import json
import math
import os
import platform
import shlex
import sys
import time
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from engine.datasets.cifar10 import CHANNEL_MEAN, CHANNEL_STD, full_cifar10
from engine.datasets.images import PADDING, windows
from engine.models.resnet_cifar import resnet20

FOLDER = Path(__file__).parent
NETWORKS = {"resnet20-cifar10": resnet20}
LOG_TAIL = 10  # epochs of the log kept in the card


def normalized(images: Tensor) -> Tensor:
    """Turn uint8 images [B, 3, 32, 32] into what the network was made for."""
    mean, std = torch.tensor(CHANNEL_MEAN), torch.tensor(CHANNEL_STD)
    return (images.float() / 255 - mean[:, None, None]) / std[:, None, None]


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 accuracy in 0…1 over uint8 images [N, 3, 32, 32]."""
    model.eval()
    correct = 0
    for x, y in zip(images.split(500), labels.split(500), strict=True):
        batch = normalized(x).contiguous(memory_format=torch.channels_last)
        correct += int((model(batch).argmax(1) == y).sum())
    return correct / len(labels)


def learning_rate(step: int, steps: int, warmup: int, peak: float) -> float:
    """Linear warm-up to the peak, then half a cosine to zero."""
    if step < warmup:
        return peak * (step + 1) / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup)))


def train(name: str, recipe: dict[str, float], seed: int, folder: Path, command: str) -> None:
    """Train one network, one log line an epoch; write the weights and the card at the end."""
    train_set, test_set = full_cifar10()
    padded = F.pad(train_set.images, (PADDING,) * 4)
    epochs, size = int(recipe["epochs"]), int(recipe["batch_size"])
    steps_an_epoch = len(padded) // size

    torch.manual_seed(seed)  # the initial weights
    model = NETWORKS[name]().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=recipe["learning_rate"],
        momentum=recipe["momentum"],
        weight_decay=recipe["weight_decay"],
        nesterov=True,
    )
    checkpoint_file, log = folder / f"{name}.checkpoint.pt", []
    if checkpoint_file.exists():
        checkpoint = torch.load(checkpoint_file, weights_only=True)
        if checkpoint["recipe"] != recipe or checkpoint["seed"] != seed:
            sys.exit(f"{checkpoint_file} is of another recipe or seed: delete it to start anew.")
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        log = checkpoint["log"]
    for epoch in range(len(log), epochs):
        started = time.perf_counter()
        generator = torch.Generator().manual_seed(seed * 10_000 + epoch)
        order = torch.randperm(len(padded), generator=generator)[: steps_an_epoch * size]
        model.train()
        total, correct = 0.0, 0
        for i, indices in enumerate(order.split(size)):
            rate = learning_rate(
                epoch * steps_an_epoch + i,
                epochs * steps_an_epoch,
                int(recipe["warmup_epochs"] * steps_an_epoch),
                recipe["learning_rate"],
            )
            optimizer.param_groups[0]["lr"] = rate
            labels = train_set.labels[indices]
            logits = model(normalized(windows(padded[indices], generator)))
            loss = F.cross_entropy(logits, labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * size
            correct += int((logits.argmax(1) == labels).sum())
        row = {
            "epoch": epoch + 1,
            "loss": round(total / len(order), 4),
            "train_top1": round(correct / len(order), 4),
            "test_top1": accuracy(model, test_set.images, test_set.labels),
            "seconds": round(time.perf_counter() - started, 1),
        }
        log.append(row)
        print(json.dumps(row), flush=True)
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        part = checkpoint_file.with_suffix(".part")
        torch.save({**state, "log": log, "recipe": recipe, "seed": seed}, part)
        os.replace(part, checkpoint_file)

    weights = {key: value.contiguous() for key, value in model.state_dict().items()}
    save_file(weights, folder / f"{name}.safetensors", metadata={"format": "pt"})
    card = {
        "name": name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "metric": "top-1",
        "value": log[-1]["test_top1"],
        "samples": len(test_set.labels),
        "weights_are": "those after the last epoch; the test images chose nothing",
        "recipe": {**recipe, "optimizer": "SGD, Nesterov", "schedule": "warm-up, then cosine"},
        "seed": seed,
        "data": {
            "name": "CIFAR-10, 50 000 training and 10 000 test images (Krizhevsky 2009)",
            "train": train_set.fingerprint,
            "test": test_set.fingerprint,
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
    parser.add_argument("--epochs", type=int, default=75)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--learning-rate", type=float, default=0.1)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--warmup-epochs", type=float, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the network goes")
    arguments = vars(parser.parse_args())
    name, seed, folder = (arguments.pop(key) for key in ("name", "seed", "folder"))
    command = shlex.join(["python", "sample_models/train.py", *sys.argv[1:]])
    train(name, arguments, seed, folder, command)


if __name__ == "__main__":
    main()
