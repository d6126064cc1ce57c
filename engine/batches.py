"""Which images a training sees, in which order: all of it follows from a seed and the step.

No random state has to be kept for a training to be taken up again: step t reads the same images,
changed in the same way, whatever happened before, and in however many processes they are read.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from engine.calibration import stacked

HELD_BACK_SHARE = 0.1  # of the training images, at most
ORDER, IMAGES, NETWORK = range(3)  # what a seed is for: each draws its own numbers


class Part(Subset[Any]):
    """Some images of a dataset, with a name and a fingerprint for results."""

    def __init__(self, dataset: Dataset[Any], indices: list[int], name: str, of: str) -> None:
        super().__init__(dataset, indices)
        self.name, self.fingerprint = name, of


def some_of(count: int, images: int) -> list[int]:
    """Choose some of `count` images, the same whenever asked, in ascending order."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return sorted(order[:images].tolist())


@contextmanager
def drawing(seed: int, purpose: int, step: int) -> Iterator[None]:
    """Seed the generators that datasets and networks draw from, and give them back as they were."""
    value = _seed(seed, purpose, step)
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(value)
        random.seed(value)
        np.random.seed(value % 2**32)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def training_batches(
    dataset: Dataset[Any],
    indices: list[int],
    batch_size: int,
    *,
    seed: int,
    steps: range,
    processes: int = 0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The mini-batches of some training steps; an epoch's last images that fill none are left out.

    Args:
        dataset: Gives (image, target), changed at random perhaps.
        indices: Images to take.
        batch_size: At most as many as there are indices.
        seed: Of their order and of how they are changed.
        steps: From the step to go on with to the end of the training.
        processes: That read images ahead; 0 reads them here.
    """
    loader = DataLoader(
        _Drawn(dataset, seed),
        batch_sampler=_keys(torch.tensor(indices), batch_size, seed, steps),
        num_workers=processes,
        collate_fn=stacked,
        generator=torch.Generator(),  # of no use here, but else it would draw from torch's own
    )
    yield from loader


def _keys(
    indices: Tensor, batch_size: int, seed: int, steps: range
) -> Iterator[list[tuple[int, int]]]:
    """For each step a list of (step, image) in the order of that step's epoch."""
    shuffled, order = -1, indices
    for step in steps:
        epoch, place = divmod(step, len(indices) // batch_size)
        if epoch != shuffled:
            generator = torch.Generator().manual_seed(_seed(seed, ORDER, epoch))
            shuffled, order = epoch, indices[torch.randperm(len(indices), generator=generator)]
        chosen = order[place * batch_size : (place + 1) * batch_size]
        yield [(step, index) for index in chosen.tolist()]


class _Drawn(Dataset[Any]):
    """A dataset whose random changes follow from the seed and the step alone."""

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self.dataset, self.seed = dataset, seed

    def __getitems__(self, keys: list[tuple[int, int]]) -> list[Any]:
        with drawing(self.seed, IMAGES, keys[0][0]):
            indices = [index for _, index in keys]
            if hasattr(self.dataset, "__getitems__"):
                return list(self.dataset.__getitems__(indices))
            return [self.dataset[index] for index in indices]

    def __getitem__(self, key: tuple[int, int]) -> Any:
        return self.__getitems__([key])[0]


def _seed(seed: int, purpose: int, step: int) -> int:
    state = np.random.SeedSequence((seed, purpose, step)).generate_state(1, np.uint64)
    return int(state[0] >> 1)
