"""Which tensors the layers of a network read, and how to stand between these and their readers.

They are found by running the network once and watching operators and modules. A tensor is known by
where it passes: the last module that returned it before anything read it, so that whatever is done
to it there, every reader gets, residual additions included; or, where no module returned it, the
modules that take it in. Tensors that one layer reads, in several calls, share what is done to
them, and layers that read one tensor share it too: they are one activation, which has the name of
its first reader.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from engine.layers import MATRIX_PRODUCTS, Watch, evaluation_mode, place_of

aten = torch.ops.aten
CHILD = "input_quantizer"  # what an attached module is called in the first reader's module
COPIES = (aten.upsample_nearest1d, aten.upsample_nearest2d, aten.upsample_nearest3d)
HIDDEN = "no module hands it on as one tensor"
NOT_BY_IMAGE = "its first axis does not hold the images"

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Site:
    """Where a tensor passes: what goes into, or comes out of, one call of a module."""

    module: str  # "" is the network itself
    side: str  # "input" or "output"
    call: int  # which of the module's calls in a forward pass, from 0


@dataclass(frozen=True)
class Activation:
    """A tensor that layers read; several tensors where a layer is called several times."""

    name: str  # of its first reader
    readers: tuple[str, ...]  # forward order
    sites: tuple[Site, ...]
    shape: tuple[int, ...]  # of one image; of the first tensor
    elements: int  # of one image, over all tensors
    image: bool  # whether no layer comes before it


@dataclass(frozen=True)
class Sum:
    """An addition or a concatenation: an integer kernel needs its operands on one scale.

    Where an operand is a sum itself that passes nowhere on its way here, its own operands are named
    in its place; an image enlarged by repeating its values has the scale of the small one.
    """

    kind: str  # "add" or "cat"
    operands: tuple[str | Site, ...]  # an activation's name, or where another tensor passes
    complete: bool  # whether all operands were found


@dataclass(frozen=True)
class Activations:
    """What the layers of a network read."""

    found: tuple[Activation, ...]  # by first reader, forward order
    skipped: dict[str, str]  # layer → why what it reads cannot be reached
    alive: tuple[tuple[int, ...], ...]  # largest sets of `found` that are needed at once
    sums: tuple[Sum, ...]  # forward order


def find_activations(model: nn.Module, images: Tensor) -> Activations:
    """Find the tensors that the quantizable layers of a network read.

    A tensor is needed from the layer that it is made with (what lies between, an addition or a
    rectifier, is fused into that in integer kernels) to its last reader.

    Args:
        model: Any network; it comes back as it was.
        images: [N, ...], one is enough.
    """
    watch, thrice = (_run(model, torch.cat([images[:1]] * count)) for count in (2, 3))
    groups = _Groups(watch.readings)
    found: list[Activation] = []
    tensors: list[list[_Passing]] = []
    skipped = dict.fromkeys(sorted(watch.hidden), HIDDEN)
    compared = {tuple(x.sites): x.shape for x in thrice.passings}
    for readers, passings in groups.parted():
        open_readers = [name for name in readers if name not in skipped]
        if any(not _by_image(x.shape, compared.get(tuple(x.sites), ())) for x in passings):
            skipped |= dict.fromkeys(open_readers, NOT_BY_IMAGE)
        elif open_readers:
            rows, *rest = passings[0].shape
            found.append(
                Activation(
                    name=open_readers[0],
                    readers=tuple(open_readers),
                    sites=tuple(site for x in passings for site in x.sites),
                    shape=tuple(rest) if rows == 2 else (rows // 2, *rest),
                    elements=sum(prod(x.shape) for x in passings) // 2,
                    image=all(x.image for x in passings),
                )
            )
            tensors.append(passings)
    order = {layer: i for i, layer in enumerate(watch.layers)}
    ranked = sorted(range(len(found)), key=lambda i: order[found[i].name])
    found, tensors = [found[i] for i in ranked], [tensors[i] for i in ranked]
    names = {id(x): a.name for a, own in zip(found, tensors, strict=True) for x in own}
    return Activations(
        found=tuple(found),
        skipped=skipped,
        alive=_largest(_held(tensors, watch.step)),
        sums=tuple(_sum(kind, operands, names) for kind, operands in watch.sums),
    )


@contextmanager
def tapped(
    model: nn.Module, functions: Mapping[str, Function], found: Sequence[Activation]
) -> Iterator[None]:
    """Pass activations of a network through functions for the while.

    Args:
        model: Any network of the same modules as the one the activations were found in.
        functions: By the activation's name: a tensor to the one that is read in its place.
        found: The network's activations.
    """
    handles = _hook(model, {a.sites: functions[a.name] for a in found if a.name in functions})
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def attach(model: nn.Module, modules: Mapping[str, nn.Module], found: Sequence[Activation]) -> None:
    """Pass activations of a network through modules for good.

    Each becomes a child, called `CHILD`, of its first reader's module, so that it is saved, moved
    and copied with the network.

    Args:
        model: Any network of the same modules as the one the activations were found in.
        modules: By the activation's name: a tensor to the one that is read in its place.
        found: The network's activations.
    """
    for name, module in modules.items():
        owner, child = _place_in(model, name)
        model.get_submodule(owner).add_module(child, module)
    _hook(model, {a.sites: modules[a.name] for a in found if a.name in modules})


def attach_at(model: nn.Module, modules: Mapping[tuple[Site, ...], nn.Module]) -> None:
    """Pass the tensors of some sites through modules for good; the caller registers these."""
    _hook(model, modules)


def attached(model: nn.Module) -> dict[str, nn.Module]:
    """The modules that `attach` put into a network, by the activation's name."""
    return {
        re.sub(rf"[._]{CHILD}$", "", name): module
        for name, module in model.named_modules()
        if name.endswith(CHILD)
    }


def sites_of(model: nn.Module) -> dict[nn.Module, tuple[Site, ...]]:
    """Where a network passes tensors through the modules that were attached to it."""
    found: dict[Any, list[Site]] = {}
    for name, module in model.named_modules():
        sides = {"input": module._forward_pre_hooks, "output": module._forward_hooks}
        for side, hooks in sides.items():
            for tap in hooks.values():
                functions = tap.functions if isinstance(tap, _Tap) else {}
                for call, function in functions.items():
                    own = function.function if isinstance(function, _Shared) else function
                    found.setdefault(own, []).append(Site(name, side, call))
    return {module: tuple(sites) for module, sites in found.items()}


def told_apart(tensor: Tensor) -> Tensor:
    """The same values as a tensor of its own, for gradients to arrive at: a leaf if it had none."""
    return tensor.view_as(tensor) if tensor.requires_grad else tensor.detach().requires_grad_()


class _Shared:
    """A function that readers of one tensor share: it is worked out for the first of them."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.last: tuple[Tensor, Tensor] | None = None

    def __call__(self, tensor: Tensor) -> Tensor:
        if self.last is None or self.last[0] is not tensor:
            self.last = tensor, self.function(tensor)
        return self.last[1]


class _Tap:
    """A hook on one side of a module: some of its calls pass through functions."""

    def __init__(self) -> None:
        self.functions: dict[int, Function] = {}
        self.call = 0

    def __call__(self, _: nn.Module, inputs: Any, output: Any = None) -> Any:
        function = self.functions.get(self.call)
        self.call += 1
        if function is None:
            return None
        return (function(inputs[0]),) if output is None else function(output)


class _Start:
    """A hook on a whole network: calls are counted anew, and nothing of the last pass is held."""

    def __init__(self, taps: Sequence[_Tap], shared: Sequence[_Shared]) -> None:
        self.taps, self.shared = taps, shared

    def __call__(self, *_: Any) -> None:
        for tap in self.taps:
            tap.call = 0
        for shared in self.shared:
            shared.last = None


def _hook(model: nn.Module, functions: Mapping[tuple[Site, ...], Function]) -> list[Any]:
    taps: dict[tuple[str, str], _Tap] = {}
    shared: list[_Shared] = []
    for sites, function in functions.items():
        if sum(site.side == "input" for site in sites) > 1:
            function = _Shared(function)
            shared.append(function)
        for site in sites:
            tap = taps.setdefault((site.module, site.side), _Tap())
            tap.functions[site.call] = function
    start = _Start(list(taps.values()), shared)
    handles = [model.register_forward_pre_hook(start), model.register_forward_hook(start)]
    for (name, side), tap in taps.items():
        module = model.get_submodule(name)
        if side == "input":
            handles.append(module.register_forward_pre_hook(tap))
        else:
            handles.append(module.register_forward_hook(tap))
    return handles


def _place_in(model: nn.Module, layer: str) -> tuple[str, str]:
    """Module and child for what is attached to a layer, which may have a parameter's name."""
    try:
        model.get_submodule(layer)
    except AttributeError:
        owner, _, parameter = layer.rpartition(".")
        return owner, f"{parameter}_{CHILD}"
    return layer, CHILD


@dataclass(eq=False)
class _Passing:
    """A tensor on its way through the network."""

    sites: list[Site]
    shape: tuple[int, ...]
    version: int  # writing into a tensor makes another one of it
    image: bool
    first: int  # layer call that it is made with
    last: int  # layer call up to which it is needed
    by_readers: bool  # whether its sites are the modules that take it in
    read: bool = False


def _run(model: nn.Module, images: Tensor) -> "_Passings":
    with evaluation_mode(model), torch.enable_grad(), _Passings(model, images) as watch:
        try:
            watch.handles += [
                hook
                for name, module in model.named_modules()
                for hook in (
                    module.register_forward_pre_hook(watch.entering(name), with_kwargs=True),
                    module.register_forward_hook(watch.leaving(name)),
                )
            ]
            model(images)
        finally:
            for handle in watch.handles:
                handle.remove()
    return watch


class _Passings(Watch):
    """Notes the tensors that modules hand on, and which layers read them."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        super().__init__(model, images)
        self.handles: list[Any] = []
        self.kept: list[Any] = []  # so that no two tensors share a place
        self.calls: Counter[str] = Counter()
        self.inputs: dict[str, tuple[int, Tensor]] = {}  # of modules being called: the step they
        # began at, and what they took in, if it is one tensor
        self.at: dict[int, _Passing] = {}  # by place
        self.passings: list[_Passing] = []
        self.readings: list[tuple[str, _Passing]] = []  # layer, what it reads
        self.hidden: set[str] = set()  # layers whose input passes nowhere
        self.behind: set[int] = set()  # places of tensors that come after a layer
        self.step = 0  # layer calls so far
        self.sums: list[tuple[str, list[_Passing | None]]] = []
        self.made_of: dict[int, tuple[int, list[_Passing | None]]] = {}  # place of a sum, or of a
        # copy of values → its version, and what shares its scale

    def entering(self, name: str) -> Callable[..., None]:
        """A hook that notes what goes into a module."""

        def note(_: nn.Module, args: Any, kwargs: Any) -> None:
            tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
            whole = len(tensors) == 1 and args and args[0] is tensors[0]
            if whole:
                self.inputs[name] = self.step, tensors[0]
            if name == "" and whole:
                self._pass(tensors[0], Site("", "input", 0))

        return note

    def leaving(self, name: str) -> Callable[..., None]:
        """A hook that notes what a module hands on."""

        def note(_: nn.Module, __: Any, output: Any) -> None:
            call = self.calls[name]
            self.calls[name] += 1
            self.inputs.pop(name, None)
            if isinstance(output, Tensor):
                passing = self._passing(output)
                if passing is None:
                    self._pass(output, Site(name, "output", call))
                elif not passing.read and passing.sites[0].side == "output":
                    passing.sites = [Site(name, "output", call)]

        return note

    def _pass(self, tensor: Tensor, *sites: Site) -> _Passing:
        place, made = place_of(tensor), max(self.step - 1, 0)
        self.kept.append(tensor)
        self.at[place] = passing = _Passing(
            sites=list(sites),
            shape=tuple(tensor.shape),
            version=tensor._version,
            image=place not in self.behind,
            first=made,
            last=made,
            by_readers=not sites,
        )
        self.passings.append(passing)
        return passing

    def _passing(self, tensor: Tensor) -> _Passing | None:
        found = self.at.get(place_of(tensor))
        return found if found and found.version == tensor._version else None

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        read = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        seen = [self._passing(x) for x in read]
        parameter, tensor = self._layer(func.overloadpacket, args)
        for passing in seen:
            if passing is not None:
                passing.read = True
                passing.last = max(passing.last, self.step if parameter else self.step - 1)
        if parameter and tensor is not None:
            self._reads(parameter, tensor)
        elif func.overloadpacket in (aten.add, aten.add_, aten.cat):
            self._adds(func.overloadpacket, args)
        after = bool(parameter) or any(place_of(x) in self.behind for x in read)
        made_of = self._made_of(func.overloadpacket, args)
        outputs = super().__torch_dispatch__(func, types, args, kwargs)
        self.kept.append(outputs)
        if made_of:
            self.made_of[place_of(outputs)] = outputs._version, made_of
        if after:
            made = [x for x in tree_leaves(outputs) if isinstance(x, Tensor)]
            self.behind.update(place_of(x) for x in made)
        self.step += bool(parameter)
        return outputs

    def _layer(self, operator: Any, args: Any) -> tuple[str, Tensor | None]:
        """The parameter that an operator reads as a layer's weight, and the other factor."""
        if operator is aten.convolution:
            tensor, weight = args[0], args[1]
        elif operator in MATRIX_PRODUCTS:
            tensor, weight = [x for x in args if isinstance(x, Tensor)][-2:]
            if place_of(weight) not in self.weights:
                tensor, weight = weight, tensor
        else:
            return "", None
        return self.weights.get(place_of(weight), ("", None))[0], tensor

    def _reads(self, parameter: str, tensor: Tensor) -> None:
        layer, owner = parameter.removesuffix(".weight"), parameter.rpartition(".")[0]
        passing, (began, taken) = self._passing(tensor), self.inputs.get(owner, (-1, tensor))
        if passing is None and began == self.step:  # it reads something made of its module's input
            passing = self._passing(taken) or self._pass(taken)
        if passing is not None and passing.by_readers:
            passing.sites.append(Site(owner, "input", self.calls[owner]))
        if passing is None:
            self.hidden.add(layer)
            return
        passing.read, passing.last = True, max(passing.last, self.step)
        self.readings.append((layer, passing))

    def _adds(self, operator: Any, args: Any) -> None:
        tensors = [x for x in tree_leaves(args) if isinstance(x, Tensor)]
        if len(tensors) > 1 and all(place_of(x) in self.behind for x in tensors):
            if operator is aten.cat:
                self.sums.append(("cat", [self._passing(x) for x in tensors]))
            else:
                self.sums.append(("add", [y for x in tensors for y in self._scaled_with(x)]))

    def _made_of(self, operator: Any, args: Any) -> list["_Passing | None"]:
        """What has the scale of an operator's output, if that is a sum or a copy of values."""
        tensors = [x for x in tree_leaves(args) if isinstance(x, Tensor)]
        sums = operator in (aten.add, aten.add_) and len(tensors) > 1
        if not sums and operator not in COPIES:
            return []
        return [passing for x in tensors for passing in self._scaled_with(x)]

    def _scaled_with(self, tensor: Tensor) -> list["_Passing | None"]:
        """Where a tensor passes; or, if it does not on its way here, what it was made of."""
        passing = self._passing(tensor)
        version, made_of = self.made_of.get(place_of(tensor), (-1, []))
        own = passing is None or passing.by_readers
        return made_of if own and version == tensor._version else [passing]


@dataclass
class _Groups:
    """Layers and tensors, joined where a layer reads a tensor."""

    readings: Sequence[tuple[str, _Passing]]
    layers: dict[str, int] = field(default_factory=dict)  # layer → its group

    def parted(self) -> list[tuple[list[str], list[_Passing]]]:
        """Readers and tensors of each group, in the order of reading."""
        group: dict[Any, int] = {}
        for i, (layer, passing) in enumerate(self.readings):
            joined = {group.get(layer, i), group.get(id(passing), i)}
            for key, own in group.items():
                if own in joined:
                    group[key] = min(joined)
            group[layer] = group[id(passing)] = min(joined)
        parts: dict[int, tuple[dict[str, None], dict[int, _Passing]]] = {}
        for layer, passing in self.readings:
            readers, passings = parts.setdefault(group[layer], ({}, {}))
            readers[layer] = None
            passings[id(passing)] = passing
        return [(list(readers), list(own.values())) for readers, own in parts.values()]


def _by_image(two: tuple[int, ...], three: tuple[int, ...]) -> bool:
    """Whether the first axis holds the images, from the shapes for two and for three of them."""
    return bool(two and three) and (3 * two[0], *two[1:]) == (2 * three[0], *three[1:])


def _held(tensors: Sequence[Sequence[_Passing]], steps: int) -> set[frozenset[int]]:
    """Activations that each layer call needs to be there."""
    return {
        frozenset(i for i, own in enumerate(tensors) if any(x.first <= step <= x.last for x in own))
        for step in range(steps)
    }


def _largest(sets: set[frozenset[int]]) -> tuple[tuple[int, ...], ...]:
    """Those that are part of no other."""
    return tuple(sorted(tuple(sorted(one)) for one in sets if not any(one < two for two in sets)))


def _sum(kind: str, operands: Sequence[_Passing | None], names: Mapping[int, str]) -> Sum:
    known = [x for x in operands if x is not None]
    return Sum(
        kind=kind,
        operands=tuple(names.get(id(x), x.sites[0]) for x in known),
        complete=len(known) == len(operands),
    )
