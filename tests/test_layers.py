"""Layers are found by what is called; folding their batch norms changes no output."""

import copy
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from engine.layers import (
    Channels,
    Layer,
    evaluation_mode,
    find_layers,
    fold_batch_norm,
    skipped_weights,
)


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


class Product(nn.Module):
    """x @ W, with no class of torch.nn around the weight."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(*shape))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight


class Kernel(nn.Module):
    """A linear layer whose weight is not called weight."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.kernel)


class SamePadding(nn.Conv2d):
    """A convolution that pads more on one side than on the other."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, (0, 1, 0, 1)))


class Calls(nn.Module):
    """Runs its parts by a function of them and the images."""

    def __init__(self, run: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def found(model: nn.Module, *shape: int) -> dict[str, Layer]:
    return {layer.name: layer for layer in find_layers(model, torch.randn(*shape))}


def trained(model: nn.Module) -> nn.Module:
    """A copy in double precision whose batch norms hold statistics and factors of their own."""
    model = copy.deepcopy(model).double().eval()
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                if tensor is not None:
                    tensor.data.uniform_(0.5, 2.0, generator=generator)
    return model


# --- which layers are found


@pytest.mark.parametrize(
    ("module", "shape", "kind", "macs"),
    [
        (nn.Conv1d(3, 8, 5), (2, 3, 12), "conv1d", 8 * 8 * 3 * 5),
        (nn.Conv2d(3, 8, 3, padding=1), (2, 3, 6, 6), "conv2d", 8 * 36 * 3 * 9),
        (nn.Conv2d(3, 8, 3, stride=2, padding=1), (2, 3, 6, 6), "conv2d", 8 * 9 * 3 * 9),
        (nn.Conv2d(4, 8, 3, groups=2), (2, 4, 6, 6), "conv2d", 8 * 16 * 2 * 9),
        (nn.Conv2d(8, 8, 3, groups=8), (2, 8, 6, 6), "conv2d", 8 * 16 * 9),
        (nn.Conv3d(2, 4, 2), (2, 2, 4, 4, 4), "conv3d", 4 * 27 * 2 * 8),
        (nn.ConvTranspose1d(4, 6, 3, stride=2), (2, 4, 5), "conv_transpose1d", 4 * 5 * 6 * 3),
        (nn.ConvTranspose2d(4, 6, 3, groups=2), (1, 4, 5, 5), "conv_transpose2d", 4 * 25 * 3 * 9),
        (nn.ConvTranspose3d(2, 3, 2), (1, 2, 3, 3, 3), "conv_transpose3d", 2 * 27 * 3 * 8),
        (nn.Linear(5, 7), (2, 5), "linear", 35),
        (nn.Linear(5, 7), (2, 3, 5), "linear", 3 * 35),
        (nn.Linear(5, 7, bias=False), (2, 3, 4, 5), "linear", 12 * 35),
        (Product(5, 7), (2, 3, 5), "linear", 3 * 35),
        (Product(5), (2, 5), "linear", 5),
        (SamePadding(3, 8, 2), (2, 3, 6, 6), "conv2d", 8 * 36 * 3 * 4),
        (nn.LazyLinear(7), (2, 5), "linear", 35),
    ],
)
def test_a_layer_has_its_kind_and_multiplications(module, shape, kind, macs):
    module(torch.zeros(shape))  # lazy layers take their shape
    layer = found(nn.Sequential(module), *shape)["0"]
    assert (layer.kind, layer.macs, layer.calls) == (kind, macs, 1)
    assert layer.shape == tuple(module.weight.shape)
    assert layer.parameters == module.weight.numel()
    assert layer.parameter == "0.weight"


@st.composite
def modules(draw: st.DrawFn) -> tuple[nn.Module, Tensor, int]:
    """A module with one weight, images that it needs no padding for, its outputs' channel axis."""
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    bias, batch = draw(st.booleans()), draw(st.integers(1, 3))
    kind = draw(st.sampled_from(["Conv", "ConvTranspose", "Linear", "Product"]))
    if kind in ("Linear", "Product"):
        between = draw(st.lists(st.integers(1, 3), max_size=2))
        module = nn.Linear(inputs, outputs, bias) if kind == "Linear" else Product(inputs, outputs)
        return module, torch.randn(batch, *between, inputs), -1
    dims, groups = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    module = getattr(nn, f"{kind}{dims}d")(
        inputs * groups,
        outputs * groups,
        draw(st.integers(1, 3)),
        stride=draw(st.integers(1, 2)),
        dilation=draw(st.integers(1, 2)),
        groups=groups,
        bias=bias,
    )
    return module, torch.randn(batch, inputs * groups, *[5] * dims), 1


@given(modules())
@settings(max_examples=60)
def test_multiplications_are_those_counted_one_by_one(drawn):
    module, images, _ = drawn
    (layer,) = find_layers(module, images)
    with torch.no_grad():  # with ones everywhere, each multiplication adds one to an output
        for parameter in module.parameters():
            parameter.fill_(1.0)
        if getattr(module, "bias", None) is not None:
            module.bias.fill_(0.0)
        counted = module(torch.ones_like(images[:1])).sum()
    assert layer.macs == int(counted)


@given(modules(), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_row_of_a_weight_is_what_one_output_channel_reads(drawn, random):
    module, images, axis = drawn
    (layer,) = find_layers(module, images)
    with torch.no_grad():
        before = module(images)
        rows = layer.channels.rows(module.weight).clone()
        assert len(rows) == before.shape[axis]
        assert rows.numel() == layer.parameters
        changed = random.randrange(len(rows))
        rows[changed] += 1
        module.weight.copy_(layer.channels.weight(rows, module.weight.shape))
        moved = (module(images) != before).movedim(axis, 0).flatten(1).any(1)
    assert moved.nonzero().flatten().tolist() == [changed]


@given(modules())
@settings(max_examples=30)
def test_rows_and_back_give_the_weight(drawn):
    module, images, _ = drawn
    channels = find_layers(module, images)[0].channels
    assert torch.equal(
        channels.weight(channels.rows(module.weight), module.weight.shape), module.weight
    )


def test_rows_of_a_grouped_transposed_convolution():
    weight = torch.arange(8.0).reshape(4, 2, 1)  # two groups, two inputs and two outputs in each
    rows = Channels(axis=1, groups=2).rows(weight)
    assert rows.tolist() == [[0, 2], [1, 3], [4, 6], [5, 7]]


@pytest.mark.parametrize(
    ("weight", "product", "images", "channels", "macs"),
    [
        ((3, 5), lambda w, x: w @ x, (2, 5, 7), Channels(0), 3 * 5 * 7),
        ((3, 5), lambda w, x: torch.mm(w, x.T).T, (2, 5), Channels(0), 3 * 5),
        ((5, 3), lambda w, x: torch.mm(w.T, x.T).T, (2, 5), Channels(1), 3 * 5),
        ((5, 3), lambda w, x: x.bmm(w.expand(2, 5, 3)), (2, 7, 5), Channels(1), 3 * 5 * 7),
        ((5, 1), lambda w, x: x @ w, (2, 5), Channels(1), 5),
        ((1, 5), lambda w, x: F.linear(x, w), (2, 7, 5), Channels(0), 5 * 7),
        ((1, 3), lambda w, x: x @ w, (2, 1), Channels(1), 3),
        ((5,), lambda w, x: x @ w, (2, 5), Channels(0), 5),
        ((5,), lambda w, x: w @ x, (2, 5, 7), Channels(0), 5 * 7),
    ],
)
def test_a_product_has_its_outputs_where_they_are(weight, product, images, channels, macs):
    model = Calls(lambda self, x: product(self.part.weight, x), part=Product(*weight))
    (layer,) = find_layers(model, torch.randn(images))
    assert (layer.name, layer.channels, layer.macs) == ("part", channels, macs)
    rows = channels.rows(model.part.weight)
    assert len(rows) == (weight[channels.axis] if len(weight) > 1 else 1)
    assert torch.equal(channels.weight(rows, model.part.weight.shape), model.part.weight)


def test_layers_come_in_the_order_of_their_calls():
    model = Calls(
        lambda self, x: self.head(self.body(self.stem(x))),
        head=nn.Linear(4, 2),
        unused=nn.Linear(9, 9),
        stem=nn.Linear(3, 4),
        body=nn.Linear(4, 4),
    )
    assert list(found(model, 2, 3)) == ["stem", "body", "head"]
    layers = find_layers(model, torch.randn(2, 3))
    assert skipped_weights(model, layers) == {
        "unused.weight": "no convolution or matrix product reads it as it is stored"
    }


def test_a_layer_called_twice_counts_both_calls():
    model = Calls(lambda self, x: self.fc(F.relu(self.fc(x))), fc=nn.Linear(4, 4))
    layer = found(model, 3, 4)["fc"]
    assert (layer.calls, layer.macs) == (2, 32)


def test_a_weight_that_two_modules_share_is_one_layer():
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    layers = found(model, 1, 4)
    assert list(layers) == ["0"]
    assert layers["0"].calls == 2


def test_a_parameter_of_another_name_is_named_in_full():
    layers = found(nn.Sequential(Kernel(4, 3)), 2, 4)
    assert layers["0.kernel"].parameter == "0.kernel"
    assert layers["0.kernel"].channels == Channels(0)


@pytest.mark.parametrize("requires_grad", [True, False])
def test_attention_shows_its_weights(requires_grad):
    model = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval()
    model.requires_grad_(requires_grad)
    layers = found(model, 2, 5, 8)
    assert {name: layer.macs for name, layer in layers.items()} == {
        "self_attn.in_proj_weight": 5 * 24 * 8,
        "self_attn.out_proj": 5 * 8 * 8,
        "linear1": 5 * 16 * 8,
        "linear2": 5 * 8 * 16,
    }
    assert {layer.channels for layer in layers.values()} == {Channels(0)}


def test_attention_to_others_reads_its_weight_in_three_parts():
    model = Calls(
        lambda self, x: self.attention(x, x + 1, x + 2)[0],
        attention=nn.MultiheadAttention(8, 2, batch_first=True),
    )
    layer = found(model, 2, 5, 8)["attention.in_proj_weight"]
    assert (layer.calls, layer.macs, layer.channels) == (3, 5 * 24 * 8, Channels(0))


def test_memory_order_is_no_matter():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, groups=4))
    plain = find_layers(model, torch.randn(1, 3, 8, 8))
    assert find_layers(model.to(memory_format=torch.channels_last), torch.randn(1, 3, 8, 8)) == (
        plain
    )


def test_a_network_without_layers_is_refused():
    with pytest.raises(ValueError, match=r"model must call a convolution or a linear layer, ") as e:
        find_layers(nn.Sequential(nn.ReLU()), torch.randn(1, 2))
    assert str(e.value).endswith("got Sequential without one: quantize a network that has weights.")


# --- the network comes back as it was


class Failing(nn.Module):
    def forward(self, _: Tensor) -> Tensor:
        raise RuntimeError("no forward")


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("use", [find_layers, fold_batch_norm])
def test_the_network_comes_back_as_it_was(use, fails):
    last = Failing() if fails else nn.ReLU()
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), last)
    model[0].requires_grad_(False)
    model[2].eval()
    modes = [module.training for module in model.modules()]
    grads = [parameter.requires_grad for parameter in model.parameters()]
    state = copy.deepcopy(model.state_dict())
    if fails:
        with pytest.raises(RuntimeError, match="no forward"):
            use(model, torch.randn(2, 2, 4, 4))
    else:
        use(model, torch.randn(2, 2, 4, 4))
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(now, state[name]) for name, now in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_evaluation_mode_gives_every_weight_a_gradient():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).requires_grad_(False)
    with evaluation_mode(model):
        assert not model[1].training
        assert all(parameter.requires_grad for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert model[1].training


# --- folding batch norms


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("layer", "norm", "shape"),
    [
        (lambda b: nn.Conv1d(3, 4, 3, bias=b), nn.BatchNorm1d, (2, 3, 6)),
        (lambda b: nn.Conv2d(3, 4, 3, bias=b), nn.BatchNorm2d, (2, 3, 5, 5)),
        (lambda b: nn.Conv2d(4, 4, 3, groups=4, bias=b), nn.BatchNorm2d, (2, 4, 5, 5)),
        (lambda b: SamePadding(3, 4, 2, bias=b), nn.BatchNorm2d, (2, 3, 5, 5)),
        (lambda b: nn.Conv3d(2, 4, 2, bias=b), nn.BatchNorm3d, (2, 2, 3, 3, 3)),
        (lambda b: nn.ConvTranspose1d(3, 4, 3, bias=b), nn.BatchNorm1d, (2, 3, 4)),
        (lambda b: nn.ConvTranspose2d(6, 4, 3, groups=2, bias=b), nn.BatchNorm2d, (2, 6, 4, 4)),
        (lambda b: nn.Linear(3, 4, bias=b), nn.BatchNorm1d, (2, 3)),
        (lambda b: nn.Conv2d(3, 4, 3, bias=b), nn.SyncBatchNorm, (2, 3, 5, 5)),
    ],
)
def test_a_folded_network_computes_the_same(layer, norm, shape, bias, affine):
    parts = nn.Sequential(layer(bias), norm(4, affine=affine), nn.ReLU())
    model = trained(nn.Sequential(parts))
    images = torch.randn(*shape, dtype=torch.float64)
    state = copy.deepcopy(model.state_dict())
    folded = fold_batch_norm(model, images)
    assert isinstance(folded[0][1], nn.Identity)
    torch.testing.assert_close(folded(images), model(images), rtol=1e-9, atol=1e-9)
    assert not torch.equal(folded[0][0].weight, model[0][0].weight)
    assert [layer.name for layer in find_layers(folded, images)] == ["0.0"]
    assert all(torch.equal(now, state[name]) for name, now in model.state_dict().items())
    assert isinstance(model[0][1], norm)


def test_folding_by_hand():
    model = trained(nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1, eps=0.0)))
    with torch.no_grad():
        for tensor, value in (
            (model[0].weight, 5.0),
            (model[0].bias, 2.0),
            (model[1].running_mean, 1.0),
            (model[1].running_var, 4.0),
            (model[1].weight, 3.0),
            (model[1].bias, 7.0),
        ):
            tensor.fill_(value)
    folded = fold_batch_norm(model, torch.ones(1, 1, dtype=torch.float64))
    assert folded[0].weight.item() == 5 * 3 / 2
    assert folded[0].bias.item() == 7 + (2 - 1) * 3 / 2


class PlusReLU(nn.BatchNorm2d):
    """A batch norm that does more, as some libraries have them."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(super().forward(x))


@pytest.mark.parametrize("affine", [True, False])
def test_a_batch_norm_with_more_to_it_keeps_the_rest(affine):
    model = trained(nn.Sequential(nn.Conv2d(2, 4, 3), PlusReLU(4, affine=affine)))
    images = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    folded = fold_batch_norm(model, images)
    assert folded[1].running_var.tolist() == [1.0] * 4
    assert not torch.equal(folded[0].weight, model[0].weight)
    torch.testing.assert_close(folded(images), model(images), rtol=1e-9, atol=1e-9)


def conv_and_norm(run: Callable[..., Tensor]) -> nn.Module:
    return Calls(run, conv=nn.Conv2d(3, 3, 3, padding=1), norm=nn.BatchNorm2d(3))


def residual(self, x):
    y = self.conv(x)
    return self.norm(y) + y


def in_place(self, x):
    return self.norm(F.relu_(self.conv(x)))


def viewed_twice(self, x):
    y = self.conv(x)
    return self.norm(y) + y.transpose(2, 3)


STAYING = {
    "another reader of the layer": conv_and_norm(residual),
    "a reader of a view of it": conv_and_norm(viewed_twice),
    "the layer's output is the network's": Calls(
        lambda self, x: (y := self.conv(x), self.norm(y)),
        conv=nn.Conv2d(3, 3, 1),
        norm=nn.BatchNorm2d(3),
    ),
    "something in place between": conv_and_norm(in_place),
    "batch norm called twice": conv_and_norm(lambda self, x: self.norm(self.conv(self.norm(x)))),
    "batch norm called on two layers": Calls(
        lambda self, x: self.norm(self.conv(x)) + self.norm(self.other(x)),
        conv=nn.Conv2d(3, 3, 3),
        other=nn.Conv2d(3, 3, 3),
        norm=nn.BatchNorm2d(3),
    ),
    "layer called twice": conv_and_norm(lambda self, x: self.norm(self.conv(self.conv(x)))),
    "before the layer": conv_and_norm(lambda self, x: self.conv(F.relu(self.norm(x)))),
    "batch statistics": nn.Sequential(
        nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3, track_running_stats=False)
    ),
    "another norm": nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)),
    "a weight of another name": nn.Sequential(nn.Flatten(), Kernel(48, 4), nn.BatchNorm1d(4)),
    "no bias to take the shift": nn.Sequential(nn.Flatten(), Product(48, 4), nn.BatchNorm1d(4)),
    "over another axis": nn.Sequential(nn.Flatten(2), nn.Linear(16, 3), nn.BatchNorm1d(3)),
    "branches that meet": Calls(
        lambda self, x: self.norm(torch.cat([self.conv(x), self.other(x)], 1)),
        conv=nn.Conv2d(3, 3, 3),
        other=nn.Conv2d(3, 3, 3),
        norm=nn.BatchNorm2d(6),
    ),
}


@pytest.mark.parametrize("model", STAYING.values(), ids=STAYING)
def test_batch_norms_that_cannot_be_folded_stay(model):
    model = trained(model)
    images = torch.randn(2, 3, 4, 4, dtype=torch.float64)
    folded = fold_batch_norm(model, images)
    assert str(folded) == str(model)
    torch.testing.assert_close(folded(images), model(images), rtol=0, atol=0)


def test_each_batch_norm_goes_to_its_own_layer():
    model = Calls(
        lambda self, x: self.norm2(self.conv2(x)) * self.norm1(self.conv1(x)),
        norm1=nn.BatchNorm2d(4),
        norm2=nn.BatchNorm2d(4),
        conv1=nn.Conv2d(3, 4, 3),
        conv2=nn.Conv2d(3, 4, 3),
    )
    model = trained(model)
    images = torch.randn(2, 3, 5, 5, dtype=torch.float64)
    folded = fold_batch_norm(model, images)
    assert isinstance(folded.norm1, nn.Identity)
    assert isinstance(folded.norm2, nn.Identity)
    torch.testing.assert_close(folded(images), model(images), rtol=1e-9, atol=1e-9)


def test_outputs_that_are_no_tensors_are_passed_over():
    model = trained(conv_and_norm(lambda self, x: (self.norm(self.conv(x)), None, "words")))
    folded = fold_batch_norm(model, torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert isinstance(folded.norm, nn.Identity)


def test_a_network_that_reads_a_folded_weight_otherwise_is_refused():
    model = trained(conv_and_norm(lambda self, x: self.norm(self.conv(x)) + self.conv.weight.sum()))
    with pytest.raises(ValueError, match="model must compute the same with its batch") as error:
        fold_batch_norm(model, torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert "norms folded, got outputs" in str(error.value)
    assert str(error.value).endswith(
        " apart: replace the batch norms that its code reads by other ways than a call."
    )


def test_a_network_that_reads_a_batch_norms_factors_is_refused():
    model = trained(conv_and_norm(lambda self, x: self.norm(self.conv(x)) * self.norm.weight[0]))
    with pytest.raises(ValueError, match="model must compute the same with its batch") as error:
        fold_batch_norm(model, torch.randn(2, 3, 4, 4, dtype=torch.float64))
    assert "got 'Identity' object has no attribute 'weight': replace" in str(error.value)
