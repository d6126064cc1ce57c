"""What a training reads follows from the seed and the step alone."""

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import Dataset

from engine.batches import IMAGES, NETWORK, Part, drawing, some_of, training_batches


class Noisy(Dataset):
    """Image i is i plus a draw of each of the three generators that a dataset may use."""

    def __len__(self) -> int:
        return 50

    def __getitem__(self, index: int):
        draw = torch.rand(()).item() + random.random() + np.random.rand()
        return torch.tensor([float(index), draw]), index


def read(steps: range, *, seed: int = 0, indices=range(40), size: int = 8, **more) -> list:
    batches = training_batches(Noisy(), list(indices), size, seed=seed, steps=steps, **more)
    return [images for images, _ in batches]


def test_each_epoch_takes_every_image_once_in_an_order_of_its_own():
    epochs = [torch.cat(read(range(5 * e, 5 * e + 5)))[:, 0].tolist() for e in range(3)]
    for order in epochs:
        assert sorted(order) == list(range(40))
    assert len({tuple(order) for order in epochs}) == 3


def test_images_that_fill_no_batch_are_left_out():
    seen = torch.cat(read(range(4), indices=range(10, 45), size=8))[:, 0]
    assert len(set(seen.tolist())) == 32
    assert set(seen.tolist()) <= set(range(10, 45))


@given(st.integers(0, 14), st.integers(0, 3))
def test_a_step_reads_the_same_wherever_the_reading_begins(start, seed):
    whole, rest = read(range(15), seed=seed), read(range(start, 15), seed=seed)
    assert all(torch.equal(a, b) for a, b in zip(whole[start:], rest, strict=True))


def test_other_processes_read_the_same():
    here, there = read(range(7)), read(range(7), processes=2)
    assert all(torch.equal(a, b) for a, b in zip(here, there, strict=True))


def test_another_seed_reads_in_another_order_and_draws_otherwise():
    a, b = torch.cat(read(range(5))), torch.cat(read(range(5), seed=1))
    assert not torch.equal(a[:, 0], b[:, 0])
    changes = [x[x[:, 0].argsort(), 1] % 1 for x in (a, b)]
    assert not torch.equal(*changes)


def states():
    return (
        torch.random.get_rng_state().tolist(),
        random.getstate(),
        np.random.get_state()[1].tolist(),
    )


def test_generators_come_back_as_they_were():
    before = states()
    read(range(3))
    assert states() == before
    with pytest.raises(ZeroDivisionError), drawing(0, NETWORK, 3):
        _ = torch.rand(2), 1 / 0
    assert states() == before


def test_purposes_steps_and_seeds_draw_apart():
    draws = set()
    for key in [(0, IMAGES, 0), (0, NETWORK, 0), (0, IMAGES, 1), (1, IMAGES, 0)]:
        with drawing(*key):
            draws.add((torch.rand(()).item(), random.random(), np.random.rand()))
    assert len({first for first, _, _ in draws}) == 4
    assert len({second for _, second, _ in draws}) == 4


def test_some_of_are_the_same_ones_every_time():
    assert some_of(10, 20) == list(range(10))
    chosen = some_of(1000, 100)
    assert chosen == some_of(1000, 100) == sorted(set(chosen))
    assert len(chosen) == 100


def test_a_part_has_a_name_of_its_own():
    part = Part(Noisy(), [3, 5], "two of them", "abc")
    assert (len(part), part.name, part.fingerprint, int(part[1][1])) == (2, "two of them", "abc", 5)
