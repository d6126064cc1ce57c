"""Draw the shipped sample from CIFAR-10: 100 images a class from each split, in random order.

python sample_models/sample_cifar10.py
"""

import json

import numpy as np
import torch

from engine.datasets.cifar10 import CLASSES, SAMPLE_FOLDER, SPLITS, full_cifar10
from engine.datasets.images import write_sheet

IMAGES_A_CLASS = 100
SEED = 0


def main() -> None:
    """Write a PNG sheet and a JSON list of labels for each split, and where they come from."""
    SAMPLE_FOLDER.mkdir(exist_ok=True)
    generator = torch.Generator().manual_seed(SEED)
    for split, dataset in zip(SPLITS, full_cifar10(), strict=True):
        order = torch.randperm(len(dataset), generator=generator)
        drawn = torch.cat(
            [
                order[dataset.labels[order] == label][:IMAGES_A_CLASS]
                for label in range(len(CLASSES))
            ]
        )
        drawn = drawn[torch.randperm(len(drawn), generator=generator)]
        write_sheet(np.asarray(dataset.images[drawn]), SAMPLE_FOLDER / f"{split}.png")
        labels = SAMPLE_FOLDER / f"{split}_labels.json"
        labels.write_text(json.dumps(dataset.labels[drawn].tolist()) + "\n")


if __name__ == "__main__":
    main()
