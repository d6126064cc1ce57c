"""Which tensors layers read, on networks whose answer is plain; and standing in between."""

import copy
from collections.abc import Callable

import pytest
import torch
import torchvision
from branching import READERS, branching
from torch import Tensor, nn
from torch.nn import functional as F

from engine.activations import (
    CHILD,
    HIDDEN,
    NOT_BY_IMAGE,
    Activations,
    Site,
    attach,
    attach_at,
    attached,
    find_activations,
    tapped,
)
from engine.layers import fold_batch_norm
from engine.models.resnet_cifar import resnet20
from engine.workloads import load_workload


class Net(nn.Module):
    """Two layers with whatever is asked between them."""

    def __init__(self, between: Callable[["Net", Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 4)
        self.between = between
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self, self.first(x)))


def readers(model: nn.Module, *shape: int) -> dict[str, tuple[str, ...]]:
    return {a.name: a.readers for a in find_activations(model, torch.randn(1, *shape)).found}


def seen(model: nn.Module, images: Tensor, found: Activations) -> dict[str, list[Tensor]]:
    """What passes where each activation is tapped."""
    noted: dict[str, list[Tensor]] = {a.name: [] for a in found.found}
    functions = {
        name: lambda tensor, name=name: noted[name].append(tensor) or tensor for name in noted
    }
    with tapped(model, functions, found.found):
        model(images)
    return noted


def test_the_activations_of_resnet20() -> None:
    model = fold_batch_norm(resnet20().eval(), torch.randn(1, 3, 32, 32))
    found = find_activations(model, torch.randn(1, 3, 32, 32))
    blocks = [f"layer{stage}.{block}" for stage in (1, 2, 3) for block in range(3)]
    names = ["conv1", *(f"{block}.conv{i}" for block in blocks for i in (1, 2)), "fc"]
    assert [a.name for a in found.found] == names
    shared = {a.name: a.readers[1:] for a in found.found if len(a.readers) > 1}
    assert shared == {
        "layer2.0.conv1": ("layer2.0.shortcut.0",),
        "layer3.0.conv1": ("layer3.0.shortcut.0",),
    }
    assert [a.name for a in found.found if a.image] == ["conv1"]
    assert found.found[0].shape == (3, 32, 32)
    assert found.found[0].elements == 3072
    by_stage = 7 * 16 * 32**2 + 6 * 32 * 16**2 + 5 * 64 * 8**2
    assert sum(a.elements for a in found.found) == 3072 + by_stage + 64
    assert found.skipped == {}
    assert len(found.sums) == 9
    assert all(total.kind == "add" and total.complete for total in found.sums)
    assert found.sums[1].operands == (Site("layer1.1.bn2", "output", 0), "layer1.1.conv1")


def test_what_is_needed_at_once_in_resnet20() -> None:
    found = find_activations(resnet20().eval(), torch.randn(1, 3, 32, 32))
    index = {a.name: i for i, a in enumerate(found.found)}
    # the second convolution of a block reads its input, keeps the shortcut's, and makes the sum
    block = ("layer1.1.conv1", "layer1.1.conv2", "layer1.2.conv1")
    assert tuple(index[name] for name in block) in found.alive
    assert (index["conv1"], index["layer1.0.conv1"]) in found.alive
    # where the shortcut is projected, its input waits for the second convolution to end
    assert (index["layer2.0.conv1"], index["layer2.0.conv2"]) in found.alive
    sets = [set(held) for held in found.alive]
    assert not any(one < two for one in sets for two in sets)


def test_values_are_those_the_network_computes() -> None:
    model, images = branching(3), torch.randn(5, 2, 4, 4)
    found = find_activations(model, images)
    assert {a.name: a.readers for a in found.found} == READERS
    expected = model.activations(images)
    for name, tensors in seen(model, images, found).items():
        assert all(tensor.equal(expected[name]) for tensor in tensors)


def test_every_reader_gets_what_is_put_in_its_place() -> None:
    model, images = branching(3), torch.randn(5, 2, 4, 4)
    found = find_activations(model, images).found
    own = model.activations(images)
    for name in READERS:
        with tapped(model, {name: lambda tensor: tensor * 0.5}, found):
            halved = model(images)
        assert halved.equal(model(images, {name: 0.5 * own[name]}))
    assert model(images).equal(model(images, {}))


def test_one_function_call_serves_all_modules_that_take_a_tensor_in() -> None:
    class Twins(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.left, self.right = (nn.Linear(3, 3) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            h = F.relu(self.first(x))
            return self.left(h) + self.right(h)

    model, images = Twins(), torch.randn(4, 3)
    found = find_activations(model, images)
    assert [a.readers for a in found.found] == [("first",), ("left", "right")]
    assert [len(tensors) for tensors in seen(model, images, found).values()] == [1, 1]


def test_a_layer_called_on_several_tensors_shares_one_activation() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.small, self.large = nn.Conv2d(1, 2, 3), nn.Conv2d(1, 2, 1)
            self.relu, self.head, self.other = nn.ReLU(), nn.Conv2d(2, 1, 1), nn.Conv2d(2, 1, 1)

        def forward(self, x: Tensor) -> Tensor:
            levels = [self.relu(self.small(x)), self.relu(self.large(x))]
            return sum((self.head(y) + self.other(y)).sum((1, 2, 3)) for y in levels)

    found = find_activations(Head(), torch.randn(1, 1, 4, 4))
    image, levels = found.found
    assert (image.readers, levels.readers) == (("small", "large"), ("head", "other"))
    assert levels.sites == (Site("relu", "output", 0), Site("relu", "output", 1))
    assert levels.shape == (2, 2, 2)
    assert levels.elements == 2 * 2 * 2 + 2 * 4 * 4


IN_PLACE = {
    "a module, in place": Net(lambda net, x: net.relu(x), relu=nn.ReLU(inplace=True)),
    "a function": Net(lambda _, x: F.relu(x)),
    "a function, in place": Net(lambda _, x: F.relu_(x)),
    "a method, in place": Net(lambda _, x: x.mul_(2).clamp_(min=0)),
    "a sum, in place": Net(lambda net, x: net.relu(x.add_(x)), relu=nn.ReLU(inplace=True)),
    "dropout": Net(lambda net, x: net.drop(F.relu(x)), drop=nn.Dropout()),
    "a view": Net(lambda _, x: F.relu(x).reshape(-1, 2, 2).flatten(1)),
    "nothing": Net(lambda _, x: x),
}


@pytest.mark.parametrize("model", IN_PLACE.values(), ids=IN_PLACE)
def test_what_is_tapped_is_what_the_layer_reads(model: Net) -> None:
    model.eval()
    images = torch.randn(6, 4)
    expected = model.between(model, model.first(images)).clone()
    found = find_activations(model, images)
    assert [a.readers for a in found.found] == [("first",), ("last",)]
    tapped_there = []

    def note(tensor: Tensor) -> Tensor:
        tapped_there.append(tensor.clone())
        return tensor

    with tapped(model, {"last": note}, found.found):
        model(images)
    assert len(tapped_there) == 1
    assert tapped_there[0].reshape(expected.shape).equal(expected)


def test_what_a_module_makes_of_its_input_first_is_tapped_before() -> None:
    padded = nn.Sequential(
        nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 3, 1, 1, padding_mode="circular")
    )
    found = find_activations(padded, torch.randn(1, 1, 4, 4))
    assert [a.sites for a in found.found] == [
        (Site("", "input", 0),),
        (Site("1", "output", 0),),
    ]
    assert found.found[1].elements == 32  # without the padding


def test_an_image_that_is_changed_first_is_the_image_all_the_same() -> None:
    class Normalized(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer((x - 0.5) / 0.2)

    (found,) = find_activations(Normalized(), torch.rand(1, 4)).found
    assert found.image
    assert found.sites == (Site("layer", "input", 0),)


def test_layers_whose_input_cannot_be_reached_are_named() -> None:
    attention = nn.Sequential(
        nn.Linear(8, 8), nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    )
    found = find_activations(attention.eval(), torch.randn(1, 3, 8))
    assert found.skipped == {"1.self_attn.in_proj_weight": HIDDEN, "1.self_attn.out_proj": HIDDEN}
    assert [a.name for a in found.found] == ["0", "1.linear1", "1.linear2"]


def test_what_a_module_has_a_layer_make_is_not_taken_for_its_input() -> None:
    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.kernel = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.first(x)) @ self.kernel

    found = find_activations(Inner(), torch.randn(1, 4))
    assert {a.name: a.readers for a in found.found} == {"first": ("first",)}
    assert found.skipped == {"kernel": HIDDEN}


def test_tensors_whose_first_axis_holds_no_images_are_named() -> None:
    model = Net(lambda _, x: x.transpose(0, 1).contiguous())
    found = find_activations(model, torch.randn(1, 3, 4))
    assert found.skipped == {"last": NOT_BY_IMAGE}


TORCHVISION = ("resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v2", "densenet121")


@pytest.mark.parametrize("name", TORCHVISION)
def test_torchvision_networks_are_found_whole(name: str) -> None:
    model = getattr(torchvision.models, name)().eval()
    images = torch.randn(2, 3, 64, 64)
    found = find_activations(model, images)
    assert found.skipped == {}
    assert [a.name for a in found.found if a.image] == [found.found[0].name]
    with torch.no_grad():
        expected = model(images)
        counts = {name: len(tensors) for name, tensors in seen(model, images, found).items()}
        assert set(counts.values()) == {1}
        assert model(images).equal(expected)


def test_inceptions_branches_share_what_they_read() -> None:
    model = torchvision.models.inception_v3(init_weights=False).eval()
    found = find_activations(model, torch.randn(1, 3, 75, 75))
    shared = {a.name: a.readers for a in found.found}
    assert shared["Mixed_5b.branch1x1.conv"] == (
        "Mixed_5b.branch1x1.conv",
        "Mixed_5b.branch5x5_1.conv",
        "Mixed_5b.branch3x3dbl_1.conv",
    )


class Doubling(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("factor", torch.tensor(2.0))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


def test_attached_modules_are_saved_and_copied_with_the_network() -> None:
    model, images = branching(3), torch.randn(5, 2, 4, 4)
    found = find_activations(model, images).found
    attach(model, {name: Doubling() for name in ("left", "head")}, found)
    assert set(attached(model)) == {"left", "head"}
    assert f"left.{CHILD}.factor" in model.state_dict()
    twin = copy.deepcopy(model)
    attached(twin)["left"].factor.fill_(3.0)  # the copy's own
    plain = branching(3)
    own = plain.activations(images)["left"]

    def expected(factor: float) -> Tensor:
        return 0.5 * plain(images, {"left": factor * own}) + 0.5 * plain(
            images, {"left": factor * own}
        )

    def head(model: nn.Module) -> Tensor:
        return plain.head.bias + (model(images) - plain.head.bias) / 2

    assert torch.allclose(head(model), expected(2.0))
    assert torch.allclose(head(twin), expected(3.0))


def test_a_layer_may_have_the_name_of_its_parameter() -> None:
    class Kernel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kernel = nn.Parameter(torch.randn(2, 1, 3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.kernel)

    model, images = nn.Sequential(Kernel(), nn.ReLU()), torch.randn(2, 1, 6, 6)
    found = find_activations(model, images).found
    expected = model(2 * images)
    attach(model, {"0.kernel": Doubling()}, found)
    assert set(attached(model)) == {"0.kernel"}
    assert model(images).equal(expected)


def test_a_lone_tensor_can_be_changed_where_it_passes() -> None:
    model, images = branching(3), torch.randn(5, 2, 4, 4)
    changed = copy.deepcopy(model)
    attach_at(changed, {(Site("left", "output", 0),): Doubling()})
    with torch.no_grad():
        model.left.weight.mul_(2)
        model.left.bias.mul_(2)
    assert torch.allclose(changed(images), model(images))


def test_hooks_are_gone_afterwards_even_if_something_raises() -> None:
    model, images = branching(3), torch.randn(2, 2, 4, 4)
    expected = model(images)
    found = find_activations(model, images).found

    def refuse(_: Tensor) -> Tensor:
        raise RuntimeError("no further")

    with pytest.raises(RuntimeError, match="no further"), tapped(model, {"left": refuse}, found):
        model(images)
    with pytest.raises(RuntimeError):
        find_activations(model, torch.randn(1, 3, 4, 4))
    assert model(images).equal(expected)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_calls_are_counted_anew_after_a_pass_that_was_cut() -> None:
    model = Net(lambda net, x: net.relu(net.relu(x) - 1), relu=nn.ReLU())
    found = find_activations(model, torch.randn(1, 4)).found
    assert found[1].sites == (Site("relu", "output", 1),)
    cut = [True]

    def once(tensor: Tensor) -> Tensor:
        if cut.pop():
            raise RuntimeError("cut")
        return tensor * 0

    cut[:] = [False, True]
    images = torch.randn(3, 4)
    with tapped(model, {"last": once}, found):
        with pytest.raises(RuntimeError, match="cut"):
            model(images)
        assert model(images).equal(model.last.bias.expand(3, 4))


def test_the_sample_network_is_found_whole() -> None:
    workload = load_workload("resnet20-cifar10")
    found = find_activations(workload.model, workload.test[0][0].unsqueeze(0))
    assert len(found.found) == 20
