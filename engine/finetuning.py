"""Train a quantized network to make up for its rounding, step by step, and resumably.

Weights and, unless told otherwise, step sizes learn through the rounding; the float network teaches
(HAWQ-V2, sec. 4, fine-tunes every network it reports). Whatever a step draws follows from the seed
and the step, so that a training that was cut goes on, bit for bit, as if it had not been.
"""

import copy
import math
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import Dataset

from engine.batches import (
    HELD_BACK_SHARE,
    IMAGES,
    NETWORK,
    Part,
    drawing,
    some_of,
    training_batches,
)
from engine.evaluation import evaluate
from engine.layers import fold_batch_norm
from engine.probes import loss_function, outputs_of
from engine.quantized import quantize
from engine.recipe import Recipe
from engine.results import BitPlan, Evaluation, FormatError, in_short
from engine.trainable import (
    LiveNorm,
    TrainedActivation,
    TrainedWeight,
    deployed,
    revive_norms,
    trainable,
)
from engine.workloads import Workload, describe_data, example_image

FEWEST_STEPS = 32  # an epoch, where the training images allow
MEASUREMENTS = 20  # in all, if not told how often
WARM_UP = 0.05  # share of the steps
WARM_UP_STEPS = 100  # at most
MOMENTUM = 0.9
SMOOTHING = 0.95  # of the loss that is watched for divergence
DIVERGED = 3.0  # times the least smoothed loss
GUESSING = 0.9  # of log K, the cross-entropy of an even guess among K classes
IMAGES_FOR_MOMENTS = 256  # before batch norms are alive again
SLOW_SECONDS = 0.1  # to read a mini-batch, before other processes do it
MOST_PROCESSES = 4

BOUNDED = (TrainedWeight, TrainedActivation, LiveNorm)
CHECKPOINT_KIND = "hawq-viz fine-tuning checkpoint 2"


@dataclass(frozen=True)
class Reference:
    """The float network on the images that measurements on the way look at."""

    held_out: Evaluation
    test: Evaluation


@dataclass(frozen=True)
class Step:
    """One step of the optimizer."""

    step: int  # steps done
    steps: int  # in all
    epoch: float  # epochs done
    loss: float  # of this mini-batch, before the step
    learning_rate: float


@dataclass(frozen=True)
class Measurement:
    """The network after a step; step 0 is the one rounded after training."""

    step: int
    held_out: Evaluation  # on training images held back: these alone choose the best
    test: Evaluation  # on some test images, to look at; chooses nothing
    best: bool  # so far: within one standard error of the highest held-out metric


@dataclass(frozen=True)
class Checkpoint:
    """Everything up to this step is safely in the file."""

    step: int


@dataclass(frozen=True, eq=False)
class Finished:
    """The end."""

    step: int
    model: nn.Module  # the best one, as `quantize` returns it
    best_step: int
    stopped_because: str  # "steps", all of them done, or "diverged"


Event = Reference | Step | Measurement | Checkpoint | Finished


def finetune(
    workload: Workload,
    plan: BitPlan,
    recipe: Recipe | None = None,
    *,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_every: int = 50,
    **settings: Any,
) -> Iterator[Event]:
    """Quantize a network as planned and train it.

    The held-back images are a tenth of the training images, at most as many as the recipe says,
    the same in every run. Read unchanged, they alone choose the best network: the latest whose
    metric on them is within one standard error of the highest. The float network may have been
    trained on them, so expect more of them than of test images.

    Args:
        workload: Its model is not changed.
        plan: Bits of every layer and activation, and the quantizers to begin with.
        recipe: How to train; `settings` change it.
        seed: Of the order of the images, of their random changes, and of dropout.
        checkpoint: File to keep everything in that is needed to go on. If it is there, the training
            goes on from it, and ends with the same weights as one that was never cut (on the same
            machine with the same number of threads).
        checkpoint_every: Steps between two writings of it.
        **settings: Fields of `Recipe`, such as `epochs=3`.

    Yields:
        A `Reference`, a `Measurement` of step 0, then a `Step` each, further measurements and
        `Checkpoint`s; last `Finished`, with the best network. After a resume only what comes
        after the checkpoint.

    Raises:
        ValueError: If a setting is out of range, the plan is of another network, or there are too
            few images.
        FormatError: If the checkpoint is damaged or of another training.
    """
    recipe = _recipe(recipe or Recipe(), settings)
    if checkpoint_every < 1:
        raise ValueError(f"checkpoint_every must be at least 1, got {checkpoint_every}.")
    return _Training(workload, plan, recipe, seed, checkpoint, checkpoint_every).events()


def _recipe(recipe: Recipe, settings: dict[str, Any]) -> Recipe:
    for name in settings:
        if name not in Recipe.__dataclass_fields__:
            known = ", ".join(Recipe.__dataclass_fields__)
            raise ValueError(f"settings must be among {known}, got {name!r}.")
    return replace(recipe, **settings)


class _Training:
    """A training between two of its steps."""

    def __init__(
        self,
        workload: Workload,
        plan: BitPlan,
        recipe: Recipe,
        seed: int,
        checkpoint: str | Path | None,
        checkpoint_every: int,
    ) -> None:
        self.workload, self.recipe, self.seed = workload, recipe, seed
        self.file = None if checkpoint is None else Path(checkpoint)
        self.checkpoint_every = checkpoint_every
        self.held_out, self.indices = _held_back(workload, recipe.evaluation_images)
        self.batch_size = min(recipe.batch_size, max(1, len(self.indices) // FEWEST_STEPS))
        self.an_epoch = len(self.indices) // self.batch_size
        self.steps = max(1, round(recipe.epochs * self.an_epoch))
        self.evaluate_every = recipe.evaluate_every or math.ceil(self.steps / MEASUREMENTS)
        self.some_test = _some_test(workload, recipe.evaluation_images)

        self.quantized = quantize(workload, plan)
        self.model = trainable(
            self.quantized,
            learned_scales=recipe.step_sizes == "learned",
            activation_ranges=recipe.activation_ranges,
        )
        if recipe.batch_norm == "live":
            self._revive_norms()
        example = example_image(workload.test)
        self.teacher = fold_batch_norm(workload.model, example).eval()
        self.layout = _quicker_layout(self.teacher, example)
        self.task = loss_function(workload.loss)
        self.distillation = self._distillation()
        self.bounded = [m for m in self.model.modules() if isinstance(m, BOUNDED)]
        self.optimizer = _optimizer(self.model, recipe)
        _train(self.model, recipe.batch_norm == "live")
        self.identity = {
            "kind": CHECKPOINT_KIND,
            "workload": workload.name,
            "data": self.held_out.fingerprint,
            "plan": self.quantized.plan.weight_bits,  # type: ignore[union-attr]
            "activations": self.quantized.plan.activation_bits,  # type: ignore[union-attr]
            "quantizer": self.quantized.plan.quantizer,  # type: ignore[union-attr]
            "recipe": asdict(recipe),
            "seed": seed,
        }
        self.step = 0
        self.best_step, self.highest = 0, (0.0, 0.0)  # the latter with its standard error
        self.best = self.quantized.state_dict()
        self.smoothed, self.least_smoothed = 0.0, math.inf
        self.diverged = False

    def events(self) -> Iterator[Event]:
        """Train from where the checkpoint ends, or from the start."""
        if self.file is not None and self.file.exists():
            self._load(self.file)
        else:
            yield Reference(*self._measure(self.workload.model))
            yield self._measurement()
            yield from self._checkpoint()
        for images, targets in self._batches():
            yield self._train(images, targets)
            last = self.step == self.steps or self.diverged
            if not self.diverged and (last or self.step % self.evaluate_every == 0):
                yield self._measurement()
            if last or self.step % self.checkpoint_every == 0:
                yield from self._checkpoint()
            if self.diverged:
                break
        model = copy.deepcopy(self.quantized)
        model.load_state_dict(self.best)
        why = "diverged" if self.diverged else "steps"
        yield Finished(self.step, model, self.best_step, why)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        left = range(self.step, 0 if self.diverged else self.steps)
        return training_batches(
            self.workload.train,
            self.indices,
            self.batch_size,
            seed=self.seed,
            steps=left,
            processes=self._processes() if left else 0,
        )

    def _processes(self) -> int:
        """How many others should read the images: none where reading takes no time."""
        steps = range(self.step, self.step + 2)  # the first may be slow for other reasons
        batches = training_batches(
            self.workload.train, self.indices, self.batch_size, seed=self.seed, steps=steps
        )
        next(batches)
        started = time.perf_counter()
        next(batches)
        slow = time.perf_counter() - started > SLOW_SECONDS
        return min(MOST_PROCESSES, os.cpu_count() or 1) if slow else 0

    def _train(self, images: Tensor, targets: Tensor) -> Step:
        """One step."""
        images = images.contiguous(memory_format=self.layout)
        rate = _learning_rate(self.step, self.steps, self.recipe.peak_rate)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with drawing(self.seed, NETWORK, self.step):
            outputs = outputs_of(self.model, images)
        loss = self._loss(outputs, images, targets)
        value = loss.item()
        self.optimizer.zero_grad()
        if math.isfinite(value):
            loss.backward()
            length = nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_norm)
            if bool(torch.isfinite(length)):
                self.optimizer.step()
                self._keep_positive()
            else:
                self.diverged = True
        self.step += 1
        self._watch(value, outputs)
        return Step(self.step, self.steps, self.step / self.an_epoch, value, rate)

    def _loss(self, outputs: Tensor, images: Tensor, targets: Tensor) -> Tensor:
        share = self.distillation
        loss = outputs.new_zeros(())
        if share < 1:
            loss = (1 - share) * self.task(outputs, targets)
        if share > 0:
            with torch.no_grad():
                taught = self.teacher(images)
            loss = loss + share * _distance(outputs, taught, self.workload.loss)
        return loss

    def _watch(self, value: float, outputs: Tensor) -> None:
        """See whether the loss has run away: far above its least, and as bad as guessing."""
        if not math.isfinite(value):
            self.diverged = True
            return
        weight = 1 - SMOOTHING**self.step
        mean = SMOOTHING * self.smoothed + (1 - SMOOTHING) * value
        self.smoothed = mean
        self.least_smoothed = min(self.least_smoothed, mean / weight)
        level = DIVERGED * self.least_smoothed
        if self.workload.loss == "cross_entropy":
            level = max(level, GUESSING * math.log(outputs.shape[1]))
        self.diverged |= mean / weight > level

    @torch.no_grad()
    def _keep_positive(self) -> None:
        for module in self.bounded:
            module.keep_positive()

    def _distillation(self) -> float:
        share, loss = self.recipe.distillation, self.workload.loss
        if share is None:
            return 1.0 if isinstance(loss, str) else 0.0
        if share > 0 and not isinstance(loss, str) and not hasattr(loss, "distance"):
            raise ValueError(
                f"distillation must be 0 for a loss of your own, got {share}: give it a method "
                "distance(outputs, taught) that says how far outputs are from the float network's."
            )
        return float(share)

    def _revive_norms(self) -> None:
        if self.quantized.plan.quantizer["weight_granularity"] != "channel":  # type: ignore[union-attr,index]
            raise ValueError(
                'batch_norm must be "frozen" with one scale a tensor, got "live": '
                "folding a norm needs a scale for each channel."
            )
        chosen = self.indices[:: max(1, len(self.indices) // IMAGES_FOR_MOMENTS)]
        plain = getattr(self.workload.train, "plain", self.workload.train)
        images = torch.stack([plain[i][0] for i in chosen[:IMAGES_FOR_MOMENTS]])
        revive_norms(self.model, self.workload.model, images)

    # Measurements

    def _measurement(self) -> Measurement:
        model = deployed(self.model)
        held_out, test = self._measure(model)
        self.highest = max(self.highest, (held_out.value, held_out.sem))
        highest, error = self.highest
        best = held_out.value >= highest - error
        if best:
            self.best_step = self.step
            self.best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        return Measurement(self.step, held_out, test, best)

    def _measure(self, model: nn.Module) -> tuple[Evaluation, Evaluation]:
        with drawing(0, IMAGES, 0):  # images that are changed when read are so alike every time
            return (
                evaluate(model, replace(self.workload, test=self.held_out)),
                evaluate(model, replace(self.workload, test=self.some_test)),
            )

    # The checkpoint

    def _checkpoint(self) -> Iterator[Checkpoint]:
        if self.file is None:
            return
        state = {
            "identity": self.identity,
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "best_step": self.best_step,
            "highest": self.highest,
            "best": self.best,
            "smoothed": self.smoothed,
            "least_smoothed": self.least_smoothed,
            "diverged": self.diverged,
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        part = self.file.with_name(f".{self.file.name}.part")
        try:
            with part.open("wb") as file:
                torch.save(state, file)
                file.flush()
                os.fsync(file.fileno())
        except Exception:
            part.unlink(missing_ok=True)
            raise
        os.replace(part, self.file)
        yield Checkpoint(self.step)

    def _load(self, file: Path) -> None:
        try:
            state = torch.load(file, weights_only=True)
            identity = dict(state["identity"])
        except Exception as error:
            reason = in_short(error)
            raise FormatError(
                f"{file} must be a checkpoint of a fine-tuning, but cannot be read ({reason}): "
                "delete it to begin anew."
            ) from error
        for name, mine in self.identity.items():
            if identity.get(name) != mine:
                raise FormatError(
                    f"{file} must be a checkpoint of this training, but its {name} is "
                    f"{identity.get(name)!r}, not {mine!r}: delete it to begin anew."
                )
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.best, self.best_step = state["best"], state["best_step"]
        self.highest = tuple(state["highest"])
        self.step, self.diverged = state["step"], state["diverged"]
        self.smoothed, self.least_smoothed = state["smoothed"], state["least_smoothed"]


@torch.no_grad()
def _quicker_layout(model: nn.Module, images: Tensor) -> torch.memory_format:
    """Channels last in memory, a quarter quicker for convolutions, where the network takes it."""
    if images.dim() == 4:
        try:
            model(images.contiguous(memory_format=torch.channels_last))
        except RuntimeError:  # a view of an output that only fits the usual order, say
            return torch.contiguous_format
        return torch.channels_last
    return torch.contiguous_format


def _held_back(workload: Workload, most: int) -> tuple[Part, list[int]]:
    """Training images held back to choose the best network by, unchanged; and the others."""
    plain = getattr(workload.train, "plain", workload.train)
    name, fingerprint = _described(plain)
    count = len(plain)  # type: ignore[arg-type]
    if count < 2:
        raise ValueError(f"train must hold at least 2 images, to hold one back, got {count}.")
    chosen = some_of(count, min(most, max(1, int(HELD_BACK_SHARE * count))))
    others = sorted(set(range(count)) - set(chosen))
    return Part(plain, chosen, f"{len(chosen)} held back of {name}", fingerprint), others


def _some_test(workload: Workload, most: int) -> Part:
    name, fingerprint = _described(workload.test)
    count = len(workload.test)  # type: ignore[arg-type]
    chosen = some_of(count, most)
    words = name if len(chosen) == count else f"{len(chosen)} of {name}"
    return Part(workload.test, chosen, words, fingerprint)


def _described(dataset: Dataset[Any]) -> tuple[str, str]:
    with drawing(0, IMAGES, 0):
        return describe_data(dataset)


def _optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Weights with their decay; biases, norms and step sizes without."""
    step_sizes = {m.scale for m in model.modules() if isinstance(m, TrainedWeight)}
    decayed = [p for p in model.parameters() if p.dim() > 1 and p not in step_sizes]
    others = [p for p in model.parameters() if p.dim() <= 1 or p in step_sizes]
    groups = [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.peak_rate, momentum=MOMENTUM, nesterov=True)
    return torch.optim.AdamW(groups, lr=recipe.peak_rate)


def _learning_rate(step: int, steps: int, peak: float) -> float:
    """A linear warm-up to the peak, then half a cosine to zero."""
    warm_up = min(WARM_UP_STEPS, math.ceil(WARM_UP * steps))
    if step < warm_up:
        return peak * (step + 1) / warm_up
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / max(1, steps - warm_up)))


def _distance(outputs: Tensor, taught: Tensor, loss: str | Callable[..., Any]) -> Tensor:
    """How far outputs are from those of the float network, mean over the images."""
    if not isinstance(loss, str):
        return loss.distance(outputs, taught)  # type: ignore[attr-defined]
    if loss == "mse":
        return F.mse_loss(outputs, taught)
    student, teacher = outputs.log_softmax(1), taught.log_softmax(1)
    divergence = F.kl_div(student, teacher, reduction="none", log_target=True).sum(1)
    return divergence.mean()


def _train(model: nn.Module, live: bool) -> None:
    """Put a network into training mode, with batch norms as they are unless they are alive."""
    model.train()
    if not live:
        for module in model.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
