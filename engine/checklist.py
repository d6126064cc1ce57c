"""What to know of a network before its layers are rounded, in words."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from engine.activations import find_activations
from engine.calibration import stacked
from engine.exactness import PRODUCTS, bending
from engine.layers import Layer, evaluation_mode, find_layers, place_of, skipped_weights
from engine.losses import check_loss_is_mean
from engine.probes import Loss, loss_function
from engine.results import in_short
from engine.sensitivities import Finding as Finding
from engine.workloads import Workload

aten = torch.ops.aten
IMAGES = 4  # of a workload that its network is run on
NAMED = 3  # names that a finding lists
SAME = 1e-4  # outputs of two passes differ by less, as a share of the largest


def check_network(
    model: nn.Module, images: Tensor, targets: Any = None, loss: Loss = "cross_entropy"
) -> tuple[Finding, ...]:
    """Look for what keeps a network from being analyzed, and for what its results mean.

    Args:
        model: Any network; it comes back as it was, unless it changes itself as it runs.
        images: [N, ...]; two are enough.
        targets: [N, ...], for the loss; without them it is not looked at.
        loss: A name or a callable.

    Returns:
        Problems first, then notes.
    """
    found = [*_weights(model), *_batch_norms(model)]
    watch = _Watch(model, images)
    try:
        with evaluation_mode(model), torch.enable_grad(), watch.watching():
            outputs = model(watch.images)
    except Exception as error:  # whatever the network's code raises
        found.append(
            _problem(
                "forward pass",
                f"It fails on images of {_shape(images)}, {error!r}: "
                "give images as the network was trained on.",
            )
        )
        return _ranked(found)
    found += _in_place(watch)
    with evaluation_mode(model):
        found += _random(model, images, outputs)
    try:
        layers = find_layers(model, images[:1].clone())
    except ValueError:
        found.append(
            _problem(
                type(model).__name__,
                "It calls no convolution and no linear layer, so there is nothing to round: "
                "give a network that has weights.",
            )
        )
        return _ranked(found)
    found += _unread(model, layers, watch) + _repeated(layers)
    if not isinstance(outputs, Tensor):
        found.append(
            _problem(
                "outputs",
                f"They are {type(outputs).__name__}, not one tensor, so no loss can read them: "
                "wrap the network in a module that picks the output the loss reads.",
            )
        )
        return _ranked(found)
    found += _slopes(model, layers, outputs)
    found += _unreachable(model, images)
    if targets is not None:
        found += _loss(outputs.detach(), targets, loss)
    return _ranked(found)


def check_workload(workload: Workload) -> tuple[Finding, ...]:
    """Check a workload's network on a few of its calibration images; none, nothing found."""
    pairs = [workload.calibration[i] for i in range(min(IMAGES, len(workload.calibration)))]  # type: ignore[arg-type]
    if not pairs:
        return ()
    images, targets = stacked(pairs)
    return check_network(workload.model, images, targets, workload.loss)


def _weights(model: nn.Module) -> Iterator[Finding]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    broken = [name for name, x in tensors if x.is_floating_point() and not x.isfinite().all()]
    if broken:
        yield _problem(
            _listed(broken),
            "Here are numbers that are not finite, and every output that reads them is lost: load "
            "other weights, or train again with a smaller learning rate.",
        )


def _batch_norms(model: nn.Module) -> Iterator[Finding]:
    norms = [(name, x) for name, x in model.named_modules() if isinstance(x, _BatchNorm)]
    if training := [name for name, norm in norms if norm.training]:
        yield _note(
            _listed(training),
            "These batch norms are in training mode. All that is done here uses their stored mean "
            "and spread, as model.eval() does: call it before you compare with numbers of your "
            "own.",
        )
    if own := [name for name, norm in norms if norm.running_mean is None]:
        yield _problem(
            _listed(own),
            "These batch norms keep no mean and spread, so what the network says of an image "
            "depends on the others in its batch: train them with track_running_stats=True.",
        )
    fresh = [name for name, norm in norms if _is_fresh(norm)]
    if fresh:
        yield _problem(
            _listed(fresh),
            "These batch norms have never seen an image, for their mean is 0 and their spread 1: "
            "load weights together with their buffers, or run some images in training mode first.",
        )


def _is_fresh(norm: _BatchNorm) -> bool:
    mean, spread, seen = norm.running_mean, norm.running_var, norm.num_batches_tracked
    if mean is None or spread is None:
        return False
    counted = seen is not None and bool(seen > 0)
    return not counted and bool((mean == 0).all() and (spread == 1).all())


class _Watch(TorchDispatchMode):
    """Notes which parameters are read, and what is written over that was read before."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.images = model, images.clone()
        self.read: set[int] = set()  # places that an operator has read
        self.own = {place_of(x) for x in (*model.parameters(), *model.buffers())}
        self.overwritten: dict[str, list[str]] = defaultdict(list)  # operator → modules
        self.changes_images: list[str] = []  # modules that write into what they were given
        self._within: list[str] = []  # modules that run, the innermost last
        self._alive: list[Any] = []  # so that no two tensors share a place

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Look on for the while."""
        handles = []
        for name, module in self.model.named_modules():
            handles.append(module.register_forward_pre_hook(partial(self._enter, name)))
            handles.append(module.register_forward_hook(self._leave))
        try:
            with self:
                yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, name: str, *_: Any) -> None:
        self._within.append(name or type(self.model).__name__)

    def _leave(self, *_: Any) -> None:
        self._within.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        written = {
            place_of(value)
            for i, argument in enumerate(func._schema.arguments)
            if argument.is_write
            for value in tree_leaves(args[i] if i < len(args) else kwargs.get(argument.name))
            if isinstance(value, Tensor)
        }
        operator = func.overloadpacket.__name__
        for place in written - self.own:
            module = self._within[-1] if self._within else type(self.model).__name__
            if place == place_of(self.images):
                self.changes_images.append(module)
            elif place in self.read:
                self.overwritten[operator].append(module)
        outputs = func(*args, **kwargs)
        if not func.is_view and func.overloadpacket is not aten.clone:  # a copy stays as it is
            values = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            self.read |= {place_of(x) for x in values} - written
        self._alive.append(outputs)
        return outputs


def _in_place(watch: _Watch) -> Iterator[Finding]:
    if watch.changes_images:
        yield _problem(
            _listed(watch.changes_images),
            "It writes into the images it is given, so a second pass over them sees others: work "
            "on a copy, x = x - mean in place of x -= mean.",
        )
    for operator, modules in watch.overwritten.items():
        yield _problem(
            _listed(modules),
            f"It changes a tensor in place ({operator}) that another operator has read: gradients "
            "may not be had, and rounding one reader's input may change the other's. Use the form "
            f"that makes a new tensor, {operator.rstrip('_')} or inplace=False.",
        )
    own = [name for name, x in watch.model.named_modules() if getattr(x, "inplace", False) is True]
    if own and not watch.overwritten:
        yield _note(
            _listed(own),
            "These modules work in place (inplace=True). Nobody else reads what they overwrite, so "
            "nothing follows; nn.ReLU() without it would give the same.",
        )


def _random(model: nn.Module, images: Tensor, before: Any) -> Iterator[Finding]:
    """Whether a second pass gives something else; torch's own generator stays where it was."""
    with torch.no_grad(), torch.random.fork_rng():
        after = model(images.clone())
    pairs = zip(tree_leaves(before), tree_leaves(after), strict=False)
    tensors = [(a.detach(), b) for a, b in pairs if isinstance(a, Tensor) and a.numel()]
    if any(float((a - b).abs().max()) > SAME * float(b.abs().max()) for a, b in tensors):
        yield _problem(
            "outputs",
            "Two passes over the same images in eval mode differ: something draws at random or "
            "remembers. Give F.dropout its training=self.training, or use nn.Dropout.",
        )


def _unread(model: nn.Module, layers: tuple[Layer, ...], watch: _Watch) -> list[Finding]:
    """Weights that keep their precision: those nothing reads, and those other operators read."""
    unused = [name for name, p in model.named_parameters() if place_of(p) not in watch.read]
    others = [name for name in skipped_weights(model, layers) if name not in unused]
    findings = []
    if unused:
        findings.append(
            _note(
                _listed(unused),
                "No operator reads these weights: they are not analyzed, keep their precision and "
                "take room in files. Remove them, or call their layers in forward().",
            )
        )
    if others:
        findings.append(
            _note(
                _listed(others),
                "No convolution or matrix product reads these weights as they are stored, so they "
                "keep their precision; only layers that do are rounded.",
            )
        )
    return findings


def _repeated(layers: Sequence[Layer]) -> list[Finding]:
    shared = [layer for layer in layers if layer.calls > 1]
    if not shared:
        return []
    return [
        _note(
            _listed(f"{layer.name} ({layer.calls} times)" for layer in shared),
            "These layers are called more than once. Their weights are one tensor: they have one "
            "trace, of all calls together, and get one number of bits. There is nothing to do.",
        )
    ]


def _slopes(model: nn.Module, layers: Sequence[Layer], outputs: Tensor) -> Iterator[Finding]:
    """Where gradients do not arrive, and where the network is not piecewise linear."""
    parameters = dict(model.named_parameters())
    weights = {layer.name: parameters[layer.parameter] for layer in layers}
    try:
        with evaluation_mode(model):
            edges = [get_gradient_edge(weight) for weight in weights.values()]
            slopes: Sequence[Tensor | None] = (
                torch.autograd.grad(
                    outputs.sum(), list(weights.values()), retain_graph=True, allow_unused=True
                )
                if outputs.requires_grad
                else [None] * len(weights)
            )
    except RuntimeError as error:
        reason = in_short(error)
        yield _problem(
            "backward pass",
            f"It fails ({reason}), and traces come from it: use functions that have a gradient, "
            "and none that works in place on what others read.",
        )
        return
    cut = [name for name, slope in zip(weights, slopes, strict=True) if slope is None]
    if cut:
        yield _problem(
            _listed(cut),
            "No gradient arrives at these weights, so they have no trace: look for detach(), "
            "torch.no_grad() or argmax on the way to the outputs.",
        )
    bent = defaultdict(list)
    for name, operators in zip(weights, bending(outputs, edges), strict=True):
        if operators:
            bent[operators].append(name)
    for operators, names in bent.items():
        yield _note(
            _listed(names),
            f"From these weights to the outputs the network is not piecewise linear "
            f"({_listed(sorted(map(_in_words, operators)))}): their traces are those of the "
            "Gauss-Newton matrix, not of the Hessian. The estimator hutchinson gives the Hessian's "
            "own, and takes longer.",
        )


def _in_words(operator: str) -> str:
    """An operator by autograd's name for it."""
    return (
        f"product of two things that depend on them, {operator}"
        if (operator in PRODUCTS)
        else operator
    )


def _unreachable(model: nn.Module, images: Tensor) -> Iterator[Finding]:
    by_reason = defaultdict(list)
    try:
        skipped = find_activations(model, images.clone()).skipped
    except Exception as error:  # of networks that take no batches of other sizes, say
        yield _problem(
            "inputs of layers",
            f"They cannot be found, {error!r}: analyze weights alone, with activations=False.",
        )
        return
    for name, reason in skipped.items():
        by_reason[reason].append(name)
    for reason, names in by_reason.items():
        yield _note(
            _listed(names),
            f"What these layers read cannot be rounded, for {reason}: their inputs stay float. "
            "Let a module, an nn.Identity() say, return it.",
        )


def _loss(outputs: Tensor, targets: Any, loss: Loss) -> Iterator[Finding]:
    if loss == "cross_entropy" and _are_shares(outputs):
        yield _problem(
            "outputs",
            "They are probabilities, and cross_entropy makes probabilities of them once more: take "
            "the softmax out of the network.",
        )
    function = loss_function(loss)
    try:
        check_loss_is_mean(function, outputs, targets)
    except Exception as error:  # whatever the user's loss raises
        own = isinstance(error, ValueError)
        yield _problem("loss", _sentence(str(error)) if own else f"It fails, {error!r}.")


def _are_shares(outputs: Tensor) -> bool:
    """Whether each image's outputs are at least 0 and add up to 1."""
    if outputs.dim() < 2 or outputs.shape[1] < 2 or not bool((outputs >= 0).all()):
        return False
    sums = outputs.sum(1)
    return bool(((sums - 1).abs() < 1e-3).all())


def _problem(subject: str, sentence: str) -> Finding:
    return Finding("problem", subject, sentence)


def _note(subject: str, sentence: str) -> Finding:
    return Finding("note", subject, sentence)


def _ranked(found: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(sorted(found, key=lambda finding: finding.severity != "problem"))


def _listed(names: Iterable[str]) -> str:
    """The first few names, each once, and how many more there are."""
    each = list(dict.fromkeys(names))
    more = f" and {len(each) - NAMED} more" if len(each) > NAMED else ""
    return ", ".join(each[:NAMED]) + more


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _shape(images: Tensor) -> str:
    return "×".join(map(str, images.shape))
