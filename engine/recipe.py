"""How a network is fine-tuned: every setting under its name, checked before any work. No torch."""

import math
from dataclasses import dataclass
from typing import Any

OPTIMIZERS = ("adamw", "sgd")
STEP_SIZES = ("learned", "fixed")
ACTIVATION_RANGES = ("learned", "running", "fixed")
BATCH_NORMS = ("frozen", "live")
LEARNING_RATES = {"sgd": 0.01, "adamw": 2e-4}


@dataclass(frozen=True)
class Recipe:
    """Settings of `finetuning.finetune`.

    Args:
        epochs: Passes over the training images that are not held back; parts of one count.
        batch_size: Images a step; fewer where an epoch would not fill 32 steps.
        optimizer: "adamw", or "sgd" with momentum.
        learning_rate: At its peak, after a short linear warm-up; then half a cosine to zero. By
            default what suits the optimizer.
        weight_decay: Of the weights alone.
        step_sizes: "learned": the scale of every weight's grid is trained too (LSQ, Esser et al.
            2020); "fixed": only the weights are, through the rounding (straight-through estimator,
            Bengio et al. 2013).
        activation_ranges: Of quantized activations. "learned": the scale of every grid is trained
            (LSQ); "running": the grid holds a moving average of the least and the greatest value
            of each batch (Jacob et al. 2018); "fixed": the grid stays as it was calibrated.
        batch_norm: "frozen": folded into the weights for good, as the network is deployed;
            "live": training batches are normalized by their own statistics, and the norms folded
            again before every measurement.
        distillation: Share of the loss that compares with the float network's outputs rather than
            the labels, 0…1 (Hinton et al. 2015). None: 1, or 0 where the loss is the user's own.
        clip_norm: Longest gradient that is followed as it is; longer ones are cut to this length.
        evaluate_every: Steps between measurements. None: twenty measurements in all.
        evaluation_images: Of the test images and of the held-back ones, that measurements on the
            way look at; a tenth of the training images at most.

    Raises:
        ValueError: If one of them is out of range.
    """

    epochs: float = 1.0
    batch_size: int = 128
    optimizer: str = "adamw"
    learning_rate: float | None = None
    weight_decay: float = 1e-4
    step_sizes: str = "learned"
    activation_ranges: str = "learned"
    batch_norm: str = "frozen"
    distillation: float | None = None
    clip_norm: float = 5.0
    evaluate_every: int | None = None
    evaluation_images: int = 1000

    def __post_init__(self) -> None:
        _check(self.epochs, "epochs", "above 0", _positive(self.epochs), "1 is quick")
        rate = self.learning_rate
        _check(
            rate,
            "learning_rate",
            "above 0",
            rate is None or _positive(rate),
            "leave it out for what suits the optimizer",
        )
        _check(
            self.weight_decay,
            "weight_decay",
            "at least 0",
            self.weight_decay == 0 or _positive(self.weight_decay),
            "0.0001 is usual",
        )
        share = self.distillation
        _check(
            share,
            "distillation",
            "a share in 0…1",
            share is None or 0 <= share <= 1,
            "1 trusts the float network alone, 0 the labels alone",
        )
        _check(self.clip_norm, "clip_norm", "above 0", self.clip_norm > 0, "5 is usual")
        for name in ("batch_size", "evaluate_every", "evaluation_images"):
            value = getattr(self, name)
            fits = value is None if name == "evaluate_every" else False
            fits |= isinstance(value, int) and not isinstance(value, bool) and value >= 1
            _check(value, name, "a whole number from 1 on", fits, "leave it out for the usual one")
        choices = {
            "optimizer": OPTIMIZERS,
            "step_sizes": STEP_SIZES,
            "activation_ranges": ACTIVATION_RANGES,
            "batch_norm": BATCH_NORMS,
        }
        for name, known in choices.items():
            value = getattr(self, name)
            _check(value, name, f"one of {', '.join(known)}", value in known, "")

    @property
    def peak_rate(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate or LEARNING_RATES[self.optimizer]


def _positive(value: float) -> bool:
    return value > 0 and math.isfinite(value)


def _check(value: Any, name: str, what: str, fits: bool, remedy: str) -> None:
    if not fits:
        raise ValueError(
            f"{name} must be {what}, got {value!r}" + (f": {remedy}." if remedy else ".")
        )
