"""Outcomes of each image: kept, and compared between networks."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from engine.outcomes import Outcomes, paired_difference
from engine.results import FormatError


def test_outcomes_come_back_as_they_were(tmp_path):
    right, losses = np.array([True, False, True]), np.array([0.1, 2.5, 1e-9])
    Outcomes(right, losses).save(tmp_path / "new" / "plan.safetensors")
    found = Outcomes.load(tmp_path / "new" / "plan.safetensors")
    assert (found.right == right).all()
    assert (found.losses == losses).all()
    Outcomes(None, losses).save(tmp_path / "mAP.safetensors")
    assert Outcomes.load(tmp_path / "mAP.safetensors").right is None
    Outcomes(right, None).save(tmp_path / "plan.safetensors")
    assert Outcomes.load(tmp_path / "plan.safetensors").losses is None


def test_another_file_is_refused(tmp_path):
    path = tmp_path / "plan.safetensors"
    with pytest.raises(FormatError, match="must hold what a network did on each image, but cannot"):
        Outcomes.load(path)
    path.write_text("cut")
    with pytest.raises(FormatError, match="must hold what a network did on each image, but cannot"):
        Outcomes.load(path)
    save_file({"losses": np.zeros((2, 3))}, path)
    with pytest.raises(
        FormatError, match=r"one number an image as losses, got float64 \[2, 3\]: m"
    ):
        Outcomes.load(path)
    save_file({"right": np.zeros(3)}, path)
    with pytest.raises(FormatError, match=r"one number an image as right, got float64 \[3\]"):
        Outcomes.load(path)


def test_a_paired_difference_of_one_network_each_is_mcnemars():
    ours = np.array([1, 1, 1, 1, 0, 0, 1, 1, 0, 1], dtype=bool)
    theirs = np.array([1, 0, 1, 0, 1, 0, 1, 1, 0, 1], dtype=bool)
    mean, (low, high) = paired_difference(ours, theirs)
    gained, lost, n = 2, 1, 10
    variance = (gained + lost - (gained - lost) ** 2 / n) / (n - 1) / n
    assert mean == pytest.approx((gained - lost) / n)
    assert (high - low) / 2 == pytest.approx(1.959964 * variance**0.5, rel=1e-6)


def test_the_interval_of_a_paired_difference_holds_the_truth_95_times_in_100():
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(400):
        chance = rng.beta(4, 1, 500)  # how easy each image is: both ways share it
        ours = rng.random((3, 500)) < chance
        theirs = rng.random((3, 500)) < 0.95 * chance
        _, (low, high) = paired_difference(ours, theirs)
        held += low <= 0.05 * 0.8 <= high
    assert 0.92 <= held / 400 <= 0.98


def test_a_paired_difference_needs_the_same_images():
    with pytest.raises(ValueError, match="must be of the same images, two or more, got 3 and 4"):
        paired_difference([1, 0, 1], [1, 0, 1, 1])
    with pytest.raises(ValueError, match="got 1 and 1"):
        paired_difference([1], [0])
